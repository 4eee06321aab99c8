"""Runs on real files, encoded by the teacher's own VAE, and the ways of guiding that need more than a scale."""

import functools
import json
import shutil
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from diffusers import AutoencoderOobleck, DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from scm_distill import config
from scm_distill.cli.app import app
from scm_distill.data import media
from scm_distill.errors import UserError
from scm_distill.progress import Silent
from scm_distill.teachers import load
from scm_distill.teachers.latents import LatentMap, latent_map
from scm_distill.training import derivative, networks, source
from scm_distill.training import latents as latent_files

pytestmark = pytest.mark.filterwarnings("ignore")

RECIPE = """
teacher: {{repo: {teacher}, call: {call}}}
data: {{source: {data}}}
objective: {{sigma_d: 1.0, warmup_steps: 100, tangent: jvp}}
adapt: {{prefit_steps: 2}}
train: {{steps: 3, batch_size: 2, evaluate_samples: 2, checkpoint_every: 3, evaluate_every: 3, device: cpu,
        stop_if_worse: false}}
sampler: {{teacher_steps: 3}}
export: {{t_mid: [1.1], samples: 4}}
"""
CAPTIONS = ["a cat", "a dog", "a cat", "a bird"]  # of a, b, c, d: sorted, they are bird 0, cat 1, dog 2
SAMPLE = {"sd15": (4, 8, 8), "wan": (4, 3, 8, 8), "stable_audio": (8, 16), "dit": (4, 8, 8)}
Make = Callable[[str], Path]


def invoke(*arguments: object) -> Any:
    done = CliRunner().invoke(app, [*map(str, arguments)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def train(recipe: Path, out: Path, *more: object) -> dict[str, Any]:
    done = invoke("train", recipe, "-o", out, "--json", *more)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def family_call(name: str) -> dict[str, Any]:
    """Wan's encoder takes 4 k + 1 frames, whatever its decoder does."""
    return {**zoo.load_all()[name].call, **({"num_frames": 5} if name == "wan" else {})}


def pipeline_of(name: str) -> Any:
    """The zoo's; the sounds' VAE with an encoder that fits its decoder, as the released one's does."""
    pipeline: Any = zoo.load_all()[name].pipeline()
    if name == "stable_audio":
        with torch.random.fork_rng():
            torch.random.manual_seed(0)
            vae = AutoencoderOobleck(
                encoder_hidden_size=16, downsampling_ratios=[2, 2], channel_multiples=[1, 2], decoder_channels=8,
                decoder_input_channels=8, sampling_rate=16,
            )  # fmt: skip
        pipeline.register_modules(vae=vae.eval())
    return pipeline


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Make:
    @functools.cache
    def save(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name) / "teacher"
        pipeline_of(name).save_pretrained(str(folder))
        return folder

    return save


def picture(seed: int, size: int) -> Image.Image:
    low = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(low).resize((size, size), Image.Resampling.BICUBIC)


def write(name: str, folder: Path) -> None:
    """Four files of the kind that this teacher makes; captioned, or in one folder a class."""
    folder.mkdir(exist_ok=True)
    for i, letter in enumerate("abcd"):
        if name == "stable_audio":
            with wave.open(str(folder / f"{letter}.wav"), "wb") as file:
                file.setparams((2, 2, 16, 0, "NONE", ""))
                tone = np.sin(np.arange(140).reshape(70, 2) * (i + 1) / 7)
                file.writeframes((9000 * tone).astype("<i2").tobytes())
        elif name == "wan":
            frames = [picture(10 * i + k, 40) for k in range(6)]
            frames[0].save(folder / f"{letter}.gif", save_all=True, append_images=frames[1:])
        elif name == "dit":
            (folder / CAPTIONS[i]).mkdir(exist_ok=True)
            picture(i, 20).save(folder / CAPTIONS[i] / f"{letter}.png")
        else:
            picture(i, 20).save(folder / f"{letter}.png")
        if name != "dit":
            (folder / f"{letter}.txt").write_text(CAPTIONS[i])


@pytest.fixture
def recipe(teacher: Make, tmp_path: Path) -> Make:
    """The path of a recipe for a family on four files."""

    def of(name: str) -> Path:
        write(name, tmp_path / "data")
        call, path = json.dumps(family_call(name)), tmp_path / "recipe.yaml"
        path.write_text(RECIPE.format(teacher=teacher(name), call=call, data=tmp_path / "data"))
        return path

    return of


def drawn(recipe: Path) -> Path:
    """The same recipe on the teacher's own samples."""
    prompts = recipe.with_name("prompts.txt")
    prompts.write_text("a cat\na dog\n")
    data = f"data: {{source: teacher, samples: 2, prompts: {prompts}}}"
    lines = [data if line.startswith("data:") else line for line in recipe.read_text().splitlines()]
    recipe.write_text("\n".join(lines))
    return recipe


def mapped(name: str, folder: Path) -> LatentMap:
    reading = load(str(folder), call=family_call(name)).reading
    assert reading
    return latent_map(reading)


def are_of(folder: Path, x_0: torch.Tensor, lm: LatentMap) -> None:
    """Row i is file i, by itself."""
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".png", ".gif", ".wav"))
    for file, row in zip(files, x_0, strict=True):
        if file.suffix == ".wav":
            x = media.sound(file, lm.pixels[1:], 16)
        else:
            x = (media.clip if file.suffix == ".gif" else media.image)(file, lm.pixels[1:])
        assert torch.allclose(lm.encode(x[None])[0], row, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLE)
def test_a_run_on_files(name: str, recipe: Make, teacher: Make, tmp_path: Path) -> None:
    summary = train(recipe(name), tmp_path / "run")
    assert summary["steps"] == 3
    assert summary["stock_difference"] < 1e-4
    latents = load_file(tmp_path / "run" / latent_files.FILE)
    assert latents["x_0"].shape == (4, *SAMPLE[name])
    assert latents["x_0"].isfinite().all()
    ids = {"dit": [0, 1, 1, 2]}.get(name, [1, 2, 1, 0])
    assert latents["ids"].tolist() == ids
    assert len(list((tmp_path / "run" / "conditions").iterdir())) == 3
    are_of(tmp_path / "data", latents["x_0"], mapped(name, teacher(name)))


@pytest.mark.parametrize("name", ["sd15", "wan", "stable_audio"])
def test_the_stock_call_decodes_a_latent_as_its_vae_does(name: str, teacher: Make) -> None:
    """What was encoded comes back out of the tail of the stock call as the VAE alone would give it back."""
    lm = mapped(name, teacher(name))
    pixels = torch.rand(lm.pixels, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    latent = lm.encode(pixels)
    alone = pipeline_of(name).vae
    with torch.no_grad():
        expected = alone.decode(alone.encode(pixels).latent_dist.mode())[0]
    pipeline = DiffusionPipeline.from_pretrained(teacher(name))
    pipeline.set_progress_bar_config(disable=True)

    def ends_here(pipe: Any, i: int, t: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        return {"latents": latent.clone()}

    call: dict[str, Any] = {**family_call(name), "num_inference_steps": 2, "prompt": "a", "output_type": "pt"}
    if name == "stable_audio":
        step = pipeline.scheduler.step
        pipeline.scheduler.step = lambda *a, **k: type(step(*a, **k))(prev_sample=latent.clone())
        out = pipeline(**call).audios
        assert torch.allclose(out[..., : expected.shape[-1]], expected, atol=1e-4)
        return
    out = pipeline(**call, callback_on_step_end=ends_here)[0]
    out = out.movedim(1, 2) if out.ndim == 5 else out
    assert torch.allclose(out * 2 - 1, expected.clamp(-1, 1), atol=1e-4)


def test_a_resumed_run_takes_its_latents_from_the_disk(recipe: Make, tmp_path: Path) -> None:
    path = recipe("dit")
    train(path, tmp_path / "run")
    latents = tmp_path / "run" / latent_files.FILE
    before = (latents.stat().st_mtime_ns, latents.read_bytes())
    summary = train(path, tmp_path / "run", "--resume", "auto", "-s", "train.steps=4")
    assert summary["steps"] == 4
    assert (latents.stat().st_mtime_ns, latents.read_bytes()) == before


def test_what_was_drawn_outlives_a_run_that_does_not_start(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = drawn(recipe("sd15")), tmp_path / "run"
    with monkeypatch.context() as broken:
        broken.setattr(derivative, "choose", lambda *_: (_ for _ in ()).throw(UserError("no tangent.")))
        assert CliRunner().invoke(app, ["train", str(path), "-o", str(out)]).exit_code == 2
    latents = out / latent_files.FILE
    before = latents.stat().st_mtime_ns
    train(path, out)
    assert latents.stat().st_mtime_ns == before


def prepare(recipe: Path, out: Path, *overrides: str) -> dict[str, torch.Tensor]:
    """The latents of a run that has not begun yet."""
    settings = config.read(str(recipe), overrides)
    out.mkdir(exist_ok=True)
    latent_files.prepare(settings, networks.load_teacher(settings), out, Silent())
    return load_file(out / latent_files.FILE)


def test_data_of_other_settings_is_made_anew(recipe: Make, tmp_path: Path) -> None:
    path = drawn(recipe("sd15"))
    assert prepare(path, tmp_path / "run")["ids"].tolist() == [0, 1]
    assert prepare(path, tmp_path / "run", "data.samples=3")["ids"].tolist() == [0, 1, 0]


def test_the_draws_are_the_seeds(recipe: Make, tmp_path: Path) -> None:
    path = drawn(recipe("dit"))
    first, again = (prepare(path, tmp_path / out)["x_0"] for out in "ab")
    assert torch.equal(first, again)
    assert not torch.equal(first, prepare(path, tmp_path / "c", "train.seed=1")["x_0"])


@pytest.mark.parametrize("change", ["a file more", "another caption"])
def test_changed_files_are_encoded_anew(change: str, recipe: Make, tmp_path: Path) -> None:
    path = recipe("sd15")
    prepare(path, tmp_path / "run")
    if change == "a file more":
        shutil.copy(tmp_path / "data" / "a.png", tmp_path / "data" / "0.png")
        (tmp_path / "data" / "0.txt").write_text("a bear")
    else:
        (tmp_path / "data" / "b.txt").write_text("a bear")
    stored = prepare(path, tmp_path / "run")["ids"].tolist()
    captions = media.find(tmp_path / "data", media.IMAGES).captions or []
    given = sorted(set(captions))
    assert [given[i] for i in stored] == captions


def test_changed_prompts_are_drawn_anew(recipe: Make, tmp_path: Path) -> None:
    path = drawn(recipe("sd15"))
    before = prepare(path, tmp_path / "run")["x_0"]
    (tmp_path / "prompts.txt").write_text("zz zz zz zz\na dog\n")
    after = prepare(path, tmp_path / "run")["x_0"]
    assert (before[0] - after[0]).abs().max() > 1e-6


@pytest.fixture(scope="module")
def ranged(teacher: Make, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The summary of a run of sd15 that is told its scale, and sometimes no prompt."""
    folder = tmp_path_factory.mktemp("ranged")
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(teacher=teacher("sd15"), call="{}", data="teacher"))
    more = ("-s", "guidance.scale=[2, 6]", "-s", "guidance.dropout=0.5")
    return train(drawn(path), folder / "run", *more)


def test_a_range_of_scales_is_an_input_of_the_exported_call(ranged: dict[str, Any]) -> None:
    assert ranged["call"] == {"num_inference_steps": 2, "guidance_scale": 4.0}
    assert ranged["stock_difference"] < 1e-4
    pipeline = DiffusionPipeline.from_pretrained(ranged["export"])
    pipeline.set_progress_bar_config(disable=True)
    weight = pipeline.unet.time_embedding.cond_proj.weight.data
    assert weight.abs().max() > 0

    def draw(scale: float) -> torch.Tensor:
        call = {**ranged["call"], "guidance_scale": scale, "output_type": "latent"}
        return pipeline("a cat", **call, generator=torch.random.manual_seed(0)).images

    weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    low, again, high = draw(2.0), draw(2.0), draw(6.0)
    assert torch.equal(low, again)
    assert (low - high).norm() > 1e-3 * low.norm()


def test_the_card_of_a_range_says_so(ranged: dict[str, Any]) -> None:
    card = (Path(ranged["export"]) / "README.md").read_text()
    assert "`guidance_scale` may be chosen from 2 to 6" in card
    assert "guidance_scale=4.0" in card


def test_a_sample_of_a_range_is_drawn_at_its_middle(ranged: dict[str, Any], tmp_path: Path) -> None:
    done = invoke("sample", ranged["run"], "-p", "a cat", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"seed-00000.png", "index.jsonl"}


def test_dropped_conditions_train(recipe: Make, tmp_path: Path) -> None:
    more = ("-s", "guidance.scale=3.0", "-s", "guidance.dropout=0.5")
    summary = train(drawn(recipe("sd15")), tmp_path / "run", *more)
    assert summary["steps"] == 3
    assert summary["stock_difference"] < 1e-4


def test_about_half_of_the_conditions_are_dropped(teacher: Make, tmp_path: Path) -> None:
    from scm_distill import teachers
    from scm_distill.training.conditioning import Conditioning

    sd15 = load(str(teacher("sd15")))
    conditions = teachers.record(
        sd15.reading, ["a cat"], tmp_path, guided=True, negative="blurry", identity="", progress=lambda _: None
    )
    settings = config.parse(
        {
            "teacher": {"repo": "x"}, "data": {"source": "teacher"}, "train": {"steps": 1, "batch_size": 1},
            "guidance": {"scale": [2, 6], "dropout": 0.5},
        }
    ).guidance  # fmt: skip
    chance = torch.rand(64, 3, generator=torch.Generator().manual_seed(0))
    cond = Conditioning(sd15, conditions, settings)(torch.zeros(64, dtype=torch.long), chance)
    name = "encoder_hidden_states"
    dropped = (cond[name] == cond[f"u/{name}"]).flatten(1).all(1)
    assert torch.equal(dropped, chance[:, 1] < 0.5)
    assert 16 < dropped.sum() < 48
    assert torch.allclose(cond["w"], 2 + 4 * chance[:, 0])


REFUSED = {
    "a range without an input": ("sd3", ["guidance.scale=[2, 6]"], "has no input for a range of guidance scales"),
    "guidance of one that is told": ("flux", ["guidance.scale=3", "guidance.dropout=0.5"], "no unconditional half"),
    "a range upside down": ("sd15", ["guidance.scale=[6, 2]"], "no range from low to high"),
    "dropout without guidance": ("sd15", ["guidance.dropout=0.5"], "needs guidance.scale"),
    "mirrored latents": ("sd15", ["data.flip=true"], "cannot be mirrored"),
    "a missing folder": ("sd15", ["data.source=/nowhere"], "/nowhere"),
    "no prompts": ("sd15", ["data.source=teacher", "data.prompts=null"], "driven by prompts"),
    "missing prompts": ("sd15", ["data.source=teacher", "data.prompts=/nowhere"], "/nowhere cannot be read"),
}


def refused(name: str, overrides: list[str], say: str, recipe: Path, out: Path) -> None:
    done = CliRunner().invoke(app, ["train", str(recipe), "-o", str(out), *(a for o in overrides for a in ("-s", o))])
    assert done.exit_code == 2, repr(done.exception)
    assert say in " ".join(done.stderr.split())
    assert done.stderr.count("error: ") == 1
    assert not out.exists()


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_is_one_error_and_leaves_nothing(case: str, recipe: Make, tmp_path: Path) -> None:
    name, overrides, say = REFUSED[case]
    path = drawn(recipe(name)) if "data" not in case and "folder" not in case else recipe(name)
    refused(name, overrides, say, path, tmp_path / "run")


def no_captions(folder: Path) -> None:
    for path in folder.glob("*.txt"):
        path.unlink()


def one_caption(folder: Path) -> None:
    (folder / "b.txt").unlink()


def damaged(folder: Path) -> None:
    (folder / "b.png").write_bytes(b"no picture")


def short_clip(folder: Path) -> None:
    picture(0, 40).save(folder / "b.gif")


def fast_sound(folder: Path) -> None:
    with wave.open(str(folder / "b.wav"), "wb") as file:
        file.setparams((2, 2, 44100, 0, "NONE", ""))
        file.writeframes(bytes(4 * 70))


def no_classes(folder: Path) -> None:
    for path in list(folder.rglob("*.png")):
        path.rename(folder / path.name)


SPOILT = {
    "no captions": ("sd15", no_captions, "have no captions"),
    "one caption": ("sd15", one_caption, "b.png has no caption"),
    "damaged": ("sd15", damaged, "b.png cannot be decoded"),
    "short clip": ("wan", short_clip, "b.gif has 1 frames"),
    "fast sound": ("stable_audio", fast_sound, "44100 Hz"),
    "no classes": ("dit", no_classes, "has 0 sub-folders"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_spoilt_data_is_one_error_and_leaves_nothing(case: str, recipe: Make, tmp_path: Path) -> None:
    name, spoil, say = SPOILT[case]
    path = recipe(name)
    spoil(tmp_path / "data")
    refused(name, [], say, path, tmp_path / "run")


def test_files_beside_the_classes_are_refused(recipe: Make, tmp_path: Path) -> None:
    path = recipe("dit")
    picture(9, 20).save(tmp_path / "data" / "z.png")
    refused("dit", [], "z.png", path, tmp_path / "run")


def test_an_encoder_that_does_not_fit_its_decoder_is_one_error(recipe: Make, tmp_path: Path) -> None:
    """As of Wan with a number of frames that is not 4 k + 1."""
    path = recipe("wan")
    refused("wan", ["teacher.call.num_frames=3"], "decodes from (1, 4, 2, 8, 8)", path, tmp_path / "run")


def origin(name: str, kind: str, teacher: Make, folder: Path) -> source.DataSource:
    """What a run of this family would train on, given files of the kind that another one makes."""
    write(kind, folder)
    settings = config.parse(
        {
            "teacher": {"repo": str(teacher(name)), "call": family_call(name)}, "data": {"source": str(folder)},
            "train": {"steps": 1, "batch_size": 1},
        }
    )  # fmt: skip
    return source.open_source(settings, networks.load_teacher(settings).teacher)


def test_an_image_teacher_with_the_vae_of_a_video_one_takes_images(teacher: Make, tmp_path: Path) -> None:
    assert len(origin("qwenimage", "sd15", teacher, tmp_path / "data")) == 4


def test_a_sound_teacher_takes_no_images(teacher: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        origin("audioldm2", "sd15", teacher, tmp_path / "data")


def test_a_shuffled_latent_is_seen(
    recipe: Make, teacher: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = LatentMap.encode
    monkeypatch.setattr(LatentMap, "encode", lambda self, x: encode(self, x).flip(-1))
    latents = prepare(recipe("sd15"), tmp_path / "run")
    monkeypatch.undo()
    with pytest.raises(AssertionError):
        are_of(tmp_path / "data", latents["x_0"], mapped("sd15", teacher("sd15")))
