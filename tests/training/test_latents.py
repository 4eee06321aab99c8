"""What a latent run trains on: drawn or encoded once, and batches of one bucket of conditions."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from teachers.conftest import TeacherOf
from torch import Tensor

from scm_distill import config
from scm_distill.data import media
from scm_distill.errors import UserError
from scm_distill.progress import Silent
from scm_distill.teachers import Conditions, Teacher
from scm_distill.teachers.latents import Decoder
from scm_distill.training import latents as latent_files
from scm_distill.training import networks
from scm_distill.training.batches import read_samples
from scm_distill.training.latents import Latents, TrainingData

pytestmark = pytest.mark.filterwarnings("ignore")

BUCKETS = [0, 1, 1, 0, 2]  # of five prompts
Go = Callable[..., TrainingData]


@pytest.fixture
def conditions(tmp_path: Path) -> Conditions:
    """Of five prompts in three buckets; those of a prompt are its number."""
    files = []
    for i, bucket in enumerate(BUCKETS):
        files.append(tmp_path / f"{i}.safetensors")
        save_file({"text": torch.full((1, 2 + bucket), float(i))}, files[-1])
    return Conditions(files)


@pytest.fixture
def latents(conditions: Conditions, tmp_path: Path) -> Latents:
    """Forty samples; each is its own number."""
    x_0 = torch.arange(40.0).reshape(40, 1, 1).expand(40, 2, 2).contiguous()
    save_file({"x_0": x_0, "ids": torch.arange(40) % 5}, tmp_path / "latents.safetensors")
    return Latents(tmp_path / "latents.safetensors", conditions)


def steps(latents: Latents, n: int, *, micro: int = 6, rank: int = 0, world: int = 1) -> list[tuple[Tensor, Tensor]]:
    """The first micro-batches of a run with a batch of 12."""
    order = read_samples(latents, batch=12, micro=micro, rank=rank, world=world, seed=0, first=0, workers=0)
    return list(itertools.islice(order, n))


def test_a_sample_keeps_its_prompt(latents: Latents, conditions: Conditions) -> None:
    for x_0, ids in steps(latents, 40):
        assert torch.equal(x_0[:, 0, 0].long() % 5, ids)
        assert conditions(ids)["text"][:, 0].tolist() == ids.tolist()


def test_a_step_is_of_one_bucket_in_every_process(latents: Latents, conditions: Conditions) -> None:
    shares = [steps(latents, 40, micro=3, rank=rank, world=2) for rank in range(2)]
    seen = set()
    for i in range(0, 40, 2):  # two micro-batches a step
        found = {int(v) for share in shares for _, ids in share[i : i + 2] for v in conditions.bucket[ids]}
        assert len(found) == 1
        seen |= found
    assert seen == {0, 1, 2}


def test_two_processes_share_the_batch_of_one(latents: Latents) -> None:
    whole = steps(latents, 20, micro=12)
    halves = [steps(latents, 20, micro=6, rank=rank, world=2) for rank in range(2)]
    for (x_0, _), *parts in zip(whole, *halves, strict=True):
        assert sorted(x_0[:, 0, 0].tolist()) == sorted(torch.cat([part[0][:, 0, 0] for part in parts]).tolist())


def test_every_sample_has_its_turn(latents: Latents) -> None:
    assert {int(v) for x_0, _ in steps(latents, 80) for v in x_0[:, 0, 0]} == set(range(40))


def test_prompts_of_one_bucket_are_not_grouped(latents: Latents, conditions: Conditions) -> None:
    same = Latents(latents.path, Conditions(conditions.files[:1] * 5))
    assert same.groups is None
    x_0, ids = same.__getitems__([7, 7, 0, 39])
    assert x_0[:, 0, 0].tolist() == [7, 7, 0, 39]
    assert ids.tolist() == [2, 2, 0, 4]


@pytest.fixture
def go(tmp_path: Path, teacher_of: TeacherOf) -> Go:
    """Prepare the data of a run in the same folder each time."""
    (tmp_path / "run").mkdir()
    (tmp_path / "prompts.txt").write_text("a cat\na long description of a small cat on a mat\na dog\n")

    def prepared(name: str, *overrides: str, teacher: Teacher | None = None, **data: Any) -> TrainingData:
        recipe = config.parse(
            {
                "teacher": {"repo": "read already"},
                "data": {"source": "teacher", "prompts": str(tmp_path / "prompts.txt"), "samples": 6, **data},
                "train": {"steps": 1, "batch_size": 2},
                "sampler": {"teacher_steps": 2},
            },
            overrides,
        )
        parts = networks.load_teacher(recipe, teacher=teacher or teacher_of(name, **recipe.teacher.call))
        return latent_files.prepare(recipe, parts, tmp_path / "run", Silent())

    return prepared


@pytest.fixture
def keep(monkeypatch: pytest.MonkeyPatch) -> None:
    """The teachers that tests share keep their text encoders."""
    monkeypatch.setattr(Decoder, "drop_encoders", lambda _: [])


@pytest.mark.parametrize("name", ["zimage", "qwenimage", "cogview4", "kandinsky5"])
@pytest.mark.usefixtures("keep")
def test_prompts_of_other_lengths_never_share_a_batch(name: str, go: Go) -> None:
    prepared = go(name, "guidance.scale=3")
    assert prepared.conditioning.conditions.bucket.tolist() == [0, 1, 0]
    order = read_samples(prepared.samples, batch=4, micro=4, rank=0, world=1, seed=0, first=0, workers=0)
    for x_0, ids in itertools.islice(order, 8):
        assert len(set(prepared.conditioning.conditions.bucket[ids].tolist())) == 1
        assert x_0.shape == (4, *prepared.conditioning.teacher.sample_shape)
        assert prepared.conditioning(ids, torch.rand(4, 3))["w"].tolist() == [3.0] * 4


def test_text_encoders_are_out_of_memory_and_previews_are_there(go: Go, fresh: TeacherOf) -> None:
    prepared = go("sdxl", teacher=fresh("sdxl"))
    pipeline = prepared.conditioning.teacher.reading.stock.pipeline
    assert pipeline.text_encoder is None
    assert pipeline.text_encoder_2 is None
    pictures = prepared.pictures(prepared.samples.__getitems__([0, 1])[0])
    assert [picture.size for picture in pictures] == [(16, 16), (16, 16)]


def drawn(go: Go, monkeypatch: pytest.MonkeyPatch, *overrides: str, **data: Any) -> bool:
    """Whether this run draws samples anew."""
    calls: list[int] = []
    draw = latent_files._draw
    with monkeypatch.context() as patch:
        patch.setattr(latent_files, "_draw", lambda *known: calls.append(1) or draw(*known))
        go("sd15", *overrides, **data)
    return bool(calls)


@pytest.mark.usefixtures("keep")
def test_samples_on_disk_are_used_again(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(go, monkeypatch)
    assert not drawn(go, monkeypatch)
    assert not drawn(go, monkeypatch, "train.steps=7", "optimizer.lr=1e-3")


@pytest.mark.parametrize(
    "override",
    ["guidance.scale=3", "teacher.revision=another", "train.seed=1", "sampler.teacher_steps=3", "data.samples=5"],
)
@pytest.mark.usefixtures("keep")
def test_other_samples_are_drawn_anew(override: str, go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(go, monkeypatch)
    assert drawn(go, monkeypatch, override)


@pytest.mark.parametrize(
    "override", ["teacher.revision=another", "guidance.negative_prompt=blurry", "teacher.call={height: 32, width: 32}"]
)
@pytest.mark.usefixtures("keep")
def test_other_conditions_are_recorded_anew(override: str, go: Go) -> None:
    before = {file.name for file in go("sd15", "guidance.scale=3").conditioning.conditions.files}
    assert before.isdisjoint(
        file.name for file in go("sd15", "guidance.scale=3", override).conditioning.conditions.files
    )


@pytest.mark.usefixtures("keep")
def test_samples_depend_on_the_seed_and_not_on_the_batch(go: Go) -> None:
    eight = go("sd15").samples.__getitems__(range(6))[0]
    few = go("sd15", "train.micro_batch_size=2", "train.batch_size=4", "data.samples=5")
    two = few.samples.__getitems__(range(5))[0]
    assert (eight[:5] - two).abs().max() < 1e-4
    assert (eight[0] - eight[1]).abs().max() > 0.1


@pytest.fixture
def captioned(tmp_path: Path) -> Path:
    """Four images, two of one caption."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i, text in enumerate(["a dog", "a cat", "a dog", "a house"]):
        Image.effect_noise((16, 16), 20 + 20 * i).convert("RGB").save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(text)
    return folder


@pytest.mark.usefixtures("keep")
def test_files_are_encoded_with_their_own_captions(go: Go, captioned: Path) -> None:
    prepared = go("sd15", source=str(captioned), prompts=None)
    x_0, ids = prepared.samples.__getitems__([0, 1, 2, 3])
    assert [prepared.prompts[i] for i in ids] == ["a dog", "a cat", "a dog", "a house"]
    vae = prepared.conditioning.teacher.reading.stock.pipeline.vae
    x = torch.stack([media.image(captioned / f"{i}.png", (3, 16, 16)) for i in range(4)])
    with torch.no_grad():
        expected = vae.encode(x).latent_dist.mode() * vae.config.scaling_factor
    assert torch.allclose(x_0, expected, atol=1e-5)


@pytest.mark.usefixtures("keep")
def test_a_vae_that_encodes_to_another_shape_is_refused_in_a_sentence(
    go: Go, captioned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import AutoencoderKL

    monkeypatch.setattr(AutoencoderKL, "encode", lambda *_: (torch.zeros(1, 4, 4, 4),))
    with pytest.raises(UserError, match=r"data\.source=teacher"):
        go("sd15", source=str(captioned), prompts=None)


def problem(act: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        act()
    assert caught.value.code == 2
    return str(caught.value)


@pytest.mark.usefixtures("keep")
def test_data_that_does_not_fit_is_refused(go: Go, captioned: Path, tmp_path: Path) -> None:
    assert "Latents cannot be mirrored" in problem(lambda: go("sd15", flip=True))
    assert "Set data.prompts" in problem(lambda: go("sd15", prompts=None))
    assert "There is no folder" in problem(lambda: go("sd15", source=str(tmp_path / "nothing")))
    (captioned / "0.txt").unlink()
    assert "0.png has no caption, but others have" in problem(lambda: go("sd15", source=str(captioned)))
    for file in captioned.glob("*.txt"):
        file.unlink()
    assert "have no captions" in problem(lambda: go("sd15", source=str(captioned)))
    assert "The teacher knows 1000 classes" in problem(lambda: go("dit", source=str(captioned)))


@pytest.mark.usefixtures("keep")
def test_samples_of_labels_go_round_the_classes(go: Go) -> None:
    prepared = go("dit", "guidance.scale=2", prompts=None)
    _, ids = prepared.samples.__getitems__(range(6))
    assert ids.tolist() == list(range(6))
    assert prepared.conditioning(ids, torch.rand(6, 3))["class_labels"].tolist() == list(range(6))


@pytest.mark.usefixtures("keep")
def test_samples_that_are_not_finite_are_refused(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latent_files, "ode", lambda _, x, *rest: x * float("inf"))
    with pytest.raises(UserError, match="not finite") as caught:
        go("sd15")
    assert caught.value.code == 1
