"""UNets that have learnt to be told the guidance scale (time_cond_proj_dim), and frozen dropout."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from cli.test_sample_traced import RECIPE, invoke
from torch import nn
from zoo.stable_diffusion import unet

from scm_distill import config
from scm_distill.autodiff.derivatives import tangent_pass
from scm_distill.models import low_pass
from scm_distill.models.network import Network
from scm_distill.progress import Silent
from scm_distill.teachers import Teacher, load
from scm_distill.training import networks
from scm_distill.training.student import new_student

pytestmark = pytest.mark.filterwarnings("ignore")

CHANNELS = 32


def told_unet() -> nn.Module:
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        net: Any = unet(time_cond_proj_dim=CHANNELS)
        nn.init.normal_(net.time_embedding.cond_proj.weight, std=0.2)
    return net


def save(folder: Path, net: nn.Module) -> Path:
    pipeline = zoo.load_all()["sd15"].pipeline()
    pipeline.register_modules(unet=net)
    pipeline.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("told"), told_unet())


@pytest.fixture(scope="module")
def teacher(folder: Path) -> Teacher:
    return load(str(folder))


def network(teacher: Teacher) -> Network:
    return Network(copy.deepcopy(teacher.net), teacher.clock(1.0), teacher.prediction, 1.0, call=teacher.convention)


def test_the_scale_is_an_input_as_the_pipeline_embeds_it(teacher: Teacher) -> None:
    path, embed = teacher.convention.scale_of
    w = torch.tensor([1.0, 7.5])
    expected = teacher.reading.stock.pipeline.get_guidance_scale_embedding(w - 1, embedding_dim=CHANNELS)
    assert path == "timestep_cond"
    assert torch.equal(embed(w), expected)
    assert "timestep_cond" not in teacher.convention.batched
    assert [float(step.cond["w"][0]) for step in teacher.reading.reference_steps] == [1.0, 1.0, 1.0, 3.0]
    assert teacher.reading.no_guidance == "the denoiser is told the scale"


def test_it_is_held_against_the_stock_call_at_two_scales(folder: Path) -> None:
    content = {
        "teacher": {"repo": str(folder)}, "data": {"source": "teacher"}, "guidance": {"scale": 5.0},
        "train": {"steps": 1, "batch_size": 1}, "export": {"t_mid": [1.1]},
    }  # fmt: skip
    loaded = networks.load_teacher(config.parse(content), torch.device("cpu"), 1)
    assert loaded.verified["plain velocity"] < 1e-5
    assert loaded.verified["guided velocity"] < 1e-5
    assert "told the guidance scale (time_cond_proj_dim)" in loaded.doubts[0]


def prepared(F: Network) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    g = torch.Generator().manual_seed(0)
    x, t = torch.randn(4, 4, 8, 8, generator=g), torch.linspace(0.3, 1.4, 4, dtype=torch.float64)
    cond = {"encoder_hidden_states": torch.randn(4, 77, 16, generator=g), "w": torch.tensor([1.0, 3.0, 5.0, 9.0])}
    assert low_pass.prepare(F, x, t, cond) == ["time_embedding.linear_1"]
    return x, t, cond


def test_the_low_pass_lies_on_the_sinusoids_and_not_on_the_scale(teacher: Teacher) -> None:
    F, plain = network(teacher), network(teacher)
    x, t, cond = prepared(F)
    assert {type(m) for m in low_pass.filters(F.net)} == {low_pass.Filtered, low_pass.Beside}
    with torch.no_grad():
        assert torch.equal(F(x, t, cond), plain(x, t, cond))  # of width 0
        low_pass.set_width(F.net, 30.0)
        filtered = F(x, t, cond)
        embedding: Any = plain.net.time_embedding
        factors = next(m for m in low_pass.filters(F.net) if type(m) is low_pass.Filtered).factors

        def by_hand(sample: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
            inner = embedding.act(embedding.linear_1(sample * factors + embedding.cond_proj(condition)))
            return embedding.linear_2(inner)

        embedding.forward = by_hand
        assert torch.allclose(filtered, plain(x, t, cond), rtol=1e-4, atol=1e-5)
        del embedding.forward
        assert not torch.allclose(filtered, plain(x, t, cond), rtol=1e-2)


def test_what_is_folded_is_a_stock_network_that_still_hears_the_scale(teacher: Teacher) -> None:
    F = network(teacher)
    x, t, cond = prepared(F)
    low_pass.set_width(F.net, 30.0)
    folded = Network(low_pass.fold(F.net), F.clock, F.prediction, 1.0, call=F.call)
    assert not low_pass.filters(folded.net)
    with torch.no_grad():
        expected, got = F(x, t, cond), folded(x, t, cond)
        assert torch.allclose(got, expected, rtol=1e-4, atol=1e-4)
        louder = folded(x, t, {**cond, "w": cond["w"] + 2})
    assert (louder - got).norm() > 1e-3 * got.norm()
    stock = low_pass.unprepared(F.net)
    assert not low_pass.filters(stock)
    assert not any("floor" in vars(m) for m in stock.modules())


def test_an_input_of_zeros_is_no_scale(tmp_path: Path) -> None:
    """What an export of our own has, and a UNet made ready for a range of scales."""
    net: Any = unet(time_cond_proj_dim=256)
    nn.init.zeros_(net.time_embedding.cond_proj.weight)
    F = network(load(str(save(tmp_path, net))))
    prepared(F)
    assert [type(m) for m in low_pass.filters(F.net)] == [low_pass.Filtered]


@pytest.mark.wide
def test_a_told_teacher_is_trained_and_exported(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    text = RECIPE.format(teacher=folder, call="{}", prompts=f", prompts: {tmp_path}/prompts.txt")
    (tmp_path / "recipe.yaml").write_text(text + "guidance: {scale: 7.5}\n")
    done = invoke("train", tmp_path / "recipe.yaml", "-o", tmp_path / "run", "-s", "adapt.smooth_time=20", "--json")
    assert done.exit_code == 0, done.output
    assert '"guidance_scale": 7.5' in done.stdout


def test_dropout_of_a_published_configuration_is_never_active(tmp_path: Path) -> None:
    """DDPM's and people's own UNets have dropout 0.1: teacher, student and derivative see no mask."""
    content = {
        "teacher": {"repo": str(save(tmp_path, unet(dropout=0.1).train()))}, "data": {"source": "teacher"},
        "train": {"steps": 1, "batch_size": 1}, "export": {"t_mid": [1.1]},
    }  # fmt: skip
    recipe = config.parse(content)
    loaded = networks.load_teacher(recipe, torch.device("cpu"), 1)
    g = torch.Generator().manual_seed(0)
    x, t = torch.randn(2, 4, 8, 8, generator=g), torch.tensor([0.5, 1.0], dtype=torch.float64)
    cond = {"encoder_hidden_states": torch.randn(2, 77, 16, generator=g)}
    student = new_student(loaded, recipe, x, t, cond, Silent())
    for net in (loaded.F_teacher.net, student.net):
        masks = [m for m in net.modules() if isinstance(m, nn.Dropout) and m.p > 0]
        assert masks
        assert not any(m.training for m in masks)
    with torch.no_grad():
        v = student(x, t, cond)
        F, derivative = tangent_pass(student, x, t, cond, v)
        again = tangent_pass(student, x, t, cond, v)
    assert torch.allclose(F, v, rtol=1e-4, atol=1e-6)  # another order of sums; a mask would be off by its rate
    assert torch.equal(derivative, again[1])
