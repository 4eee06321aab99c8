"""Teachers that sample in a few steps already: what gives them away, and that others are left in peace."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from conftest import TeacherMaker, wide
from torch import Tensor, nn
from zoo.flow_image import flux_scheduler
from zoo.stable_diffusion import BETAS

from scm_distill import config
from scm_distill.errors import UserError
from scm_distill.maths.clocks import FlowClock
from scm_distill.maths.trigflow import like
from scm_distill.models.network import Network
from scm_distill.training import few_step, networks

pytestmark = pytest.mark.filterwarnings("ignore")

CHANNELS, RANK, S = 64, 4, 0.8  # data are S times a normal vector of RANK dimensions, turned into CHANNELS


def recipe_for(repo: object, *overrides: str, call: dict[str, Any] | None = None) -> config.Recipe:
    content = {
        "teacher": {"repo": str(repo), "call": call or {}}, "data": {"source": "teacher"},
        "train": {"steps": 1, "batch_size": 1}, "export": {"t_mid": [1.1]},
    }  # fmt: skip
    return config.parse(content, overrides)


def saved(name: str, folder: Path, change: Callable[[Any], None]) -> config.Recipe:
    """A recipe about a family of the zoo that was changed before it was saved."""
    family = zoo.load_all()[name]
    pipeline = family.pipeline()
    change(pipeline)
    pipeline.save_pretrained(str(folder))
    return recipe_for(folder, call=family.call)


def doubts_about(recipe: config.Recipe) -> str:
    return " ".join(networks.load_teacher(recipe, torch.device("cpu"), 1).doubts)


class Solved(nn.Module):
    """A network of flow's velocity whose x_0 is `x_0(c, t)` of the coordinates c of x_t among the data's."""

    def __init__(self, x_0: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        basis = torch.randn(CHANNELS, RANK, generator=torch.Generator().manual_seed(1))
        self.basis, self.x_0 = nn.Parameter(torch.linalg.qr(basis).Q), x_0

    def forward(self, x: Tensor, s: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        t = torch.atan2(s, 1 - s)
        x_t = x * like(t.cos() + t.sin(), x)
        x_0 = self.x_0(x_t @ self.basis, like(t, x)) @ self.basis.T
        return ((x - x_0) / like(s.clamp_min(1e-6), x),)


def posterior_mean(c: Tensor, t: Tensor) -> Tensor:
    return S**2 * t.cos() * c / (S**2 * t.cos() ** 2 + t.sin() ** 2)


def consistent(c: Tensor, t: Tensor) -> Tensor:
    return S * c / (S**2 * t.cos() ** 2 + t.sin() ** 2).sqrt()


def error_of(net: nn.Module) -> float | None:
    F = Network(net, FlowClock(1.0, 0.0, 1.0), "flow", 1.0)
    z = torch.randn(2, 64, CHANNELS, generator=torch.Generator().manual_seed(0))
    return few_step.first_step_error(F, z, {}, math.atan(80.0))


def test_the_first_step_of_a_diffusion_model_is_off_by_the_spread_of_its_samples() -> None:
    assert error_of(Solved(posterior_mean)) == pytest.approx(1.0, abs=0.05)


def test_the_first_step_of_a_consistency_model_is_near_its_samples() -> None:
    """It is right at once, but no velocity: its own ODE drifts away from there."""
    assert error_of(Solved(consistent)) == pytest.approx(0.45, abs=0.02)


@pytest.mark.parametrize("factor", [0.0, 0.3])
def test_a_network_that_knows_nothing_of_data_shows_nothing(factor: float) -> None:
    """A flow that stands still ends where it begins, as a consistency model does."""

    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(CHANNELS, CHANNELS, generator=torch.Generator().manual_seed(2)) / 8)

        def forward(self, x: Tensor, s: Tensor, return_dict: bool = False) -> tuple[Tensor]:
            return (factor * torch.tanh(x @ self.weight),)

    assert error_of(Idle()) is None


def test_the_digits_teacher_is_none() -> None:
    recipe = config.read("digits")
    loaded = networks.load_teacher(recipe, torch.device("cpu"), 2)
    assert loaded.doubts == ()
    z = torch.randn(2, 16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    error = few_step.first_step_error(loaded.F_teacher, z, {}, loaded.t_max)
    assert error is not None  # it is seen to be trained
    assert error > 1


@pytest.mark.parametrize(
    ("index", "what"),
    [
        ({"_class_name": "LatentConsistencyModelPipeline", "scheduler": ["diffusers", "LCMScheduler"]}, "a latent"),
        ({"_class_name": "LatentConsistencyModelPipeline", "scheduler": [None, None]}, "a latent consistency model"),
        ({"_class_name": "SanaSprintPipeline", "scheduler": ["diffusers", "SCMScheduler"]}, "SANA-Sprint"),
        ({"_class_name": "SanaPipeline", "scheduler": ["diffusers", "SCMScheduler"]}, "in TrigFlow, by its SCM"),
        ({"_class_name": "ConsistencyModelPipeline"}, "a consistency model"),
    ],
)  # fmt: skip
def test_a_pipeline_of_few_steps_is_refused_before_its_weights_are_read(
    index: dict[str, Any], what: str, tmp_path: Path
) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_diffusers_version": "0.22.0", **index}))
    with pytest.raises(UserError, match=what) as caught:
        networks.load_teacher(recipe_for(tmp_path))
    assert caught.value.code == 2
    assert "teacher.allow_few_step=true" in caught.value.fix
    few_step.refuse(recipe_for(tmp_path, "teacher.allow_few_step=true"))


def test_an_export_is_no_teacher(make_teacher: TeacherMaker) -> None:
    folder = make_teacher()
    few_step.refuse(recipe_for(folder))
    (folder / "scm_distill.json").write_text("{}")
    with pytest.raises(UserError, match="is a student that scm-distill exported"):
        networks.load_teacher(recipe_for(folder))
    loaded = networks.load_teacher(recipe_for(folder, "teacher.allow_few_step=true"))
    assert loaded.doubts == ()


def named(folder: Path, name: str) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_name_or_path": name}))


def test_what_sdxl_turbo_was_published_with_is_doubted(tmp_path: Path) -> None:
    from diffusers import EulerAncestralDiscreteScheduler

    def turbo(pipeline: Any) -> None:
        pipeline.scheduler = EulerAncestralDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="trailing")

    recipe = saved("sdxl", tmp_path, turbo)
    named(tmp_path, "stabilityai/sdxl-turbo")
    doubts = doubts_about(recipe)
    assert "may be a few-step network already:" in doubts
    assert "the name 'stabilityai/sdxl-turbo' says turbo" in doubts
    assert "its EulerAncestralDiscreteScheduler has trailing steps, as SD-Turbo's" in doubts


@pytest.mark.parametrize(("shift", "doubted"), [(3.0, True), *wide((6.0, False))])
def test_z_image_turbo_is_doubted_and_z_image_is_not(shift: float, doubted: bool, tmp_path: Path) -> None:
    recipe = saved("zimage", tmp_path, lambda pipeline: pipeline.scheduler.register_to_config(shift=shift))
    assert ("as Z-Image-Turbo's" in doubts_about(recipe)) == doubted


@pytest.mark.parametrize(("dynamic", "doubted"), [(False, True), *wide((True, False))])
def test_flux_schnell_is_doubted_and_one_without_embedded_guidance_is_not(
    dynamic: bool, doubted: bool, tmp_path: Path
) -> None:
    def schnell(pipeline: Any) -> None:
        plain = {**pipeline.transformer.config, "guidance_embeds": False}
        pipeline.transformer = zoo.parts.awaken(type(pipeline.transformer).from_config(plain))
        pipeline.scheduler = flux_scheduler(use_dynamic_shifting=dynamic, shift=1.0)

    assert ("as FLUX.1-schnell's" in doubts_about(saved("flux", tmp_path, schnell))) == doubted


@pytest.mark.wide
def test_klein_says_that_it_is_distilled(tmp_path: Path) -> None:
    recipe = saved("flux2_klein", tmp_path, lambda pipeline: pipeline.register_to_config(is_distilled=True))
    assert "its model_index.json says is_distilled" in doubts_about(recipe)


@pytest.mark.parametrize("trained", [False, True])
def test_lcms_scheduler_alone_is_doubted_with_a_trained_embedding_of_the_scale_it_is_refused(
    trained: bool, tmp_path: Path
) -> None:
    from diffusers import LCMScheduler
    from zoo.stable_diffusion import unet

    def lcm(pipeline: Any) -> None:
        pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
        if trained:
            pipeline.unet = unet(time_cond_proj_dim=256)

    recipe = saved("sd15", tmp_path, lcm)
    if not trained:
        assert "its LCMScheduler is one for few steps" in doubts_about(recipe)
        return
    with pytest.raises(UserError, match=r"a few-step network: .* told the guidance scale \(time_cond_proj_dim\)"):
        doubts_about(recipe)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("stabilityai/sd-turbo", "turbo"), ("ByteDance/SDXL-Lightning", "lightning"), ("org/lcm-sdxl", "lcm"),
        ("org/wan2.1-4steps", "4steps"), ("org/model_8-step_v2", "8-step"), ("FastVideo/FastHunyuan", "fasthunyuan"),
        ("stabilityai/stable-diffusion-xl-base-1.0", None), ("runwayml/stable-diffusion-v1-5", None),
        ("org/trained-20000-steps", None), ("org/sd-100-steps", None), ("black-forest-labs/FLUX.1-dev", None),
        ("black-forest-labs/FLUX.2-klein-base-4B", None), ("Tongyi-MAI/Z-Image", None), ("org/finetune-1000step", None),
    ],
)  # fmt: skip
def test_names_of_few_step_models_are_known(name: str, word: str | None) -> None:
    assert few_step._word(name) == word


@pytest.mark.parametrize(
    ("name", "shown"),
    [("org/name", "org/name"), ("/home/someone/turbo/base", "base"), ("./lcm", "lcm"), ("base", "base")],
)
def test_a_folder_above_says_nothing(name: str, shown: str) -> None:
    assert few_step._short(name) == shown
