"""The self-check of an export sees what is wrong with a folder, and with the call of it."""

import functools
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from safetensors.torch import load_file, save_file

from scm_distill import config, teachers
from scm_distill.errors import UserError
from scm_distill.export import bundle, self_check, t_mid
from scm_distill.export.schedulers import Grid
from scm_distill.export.self_check import Checked
from scm_distill.models import low_pass
from scm_distill.models.network import Network
from scm_distill.progress import Silent
from scm_distill.training import networks
from scm_distill.training.conditioning import Conditioning
from scm_distill.training.latents import TrainingData
from scm_distill.training.run import Trained
from scm_distill.training.student import new_student

pytestmark = pytest.mark.filterwarnings("ignore")

NAMES = ("sd15", "wan", "stable_audio", "dit")


@dataclass(frozen=True)
class Case:
    """An undistilled teacher, exported as if it were a student."""

    trained: Trained
    student: Network
    grid: Grid
    folder: Path
    call: dict[str, Any]

    def check(self, folder: Path | None = None, **changes: Any) -> Checked:
        return self_check.check(folder or self.folder, self.student, self.grid, self.trained, {**self.call, **changes})


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    @functools.cache
    def make(name: str) -> Case:
        family, folder = zoo.load_all()[name], tmp_path_factory.mktemp(name)
        family.pipeline().save_pretrained(str(folder / "teacher"))
        recipe = config.parse(
            {
                "teacher": {"repo": str(folder / "teacher"), "call": family.call},
                "data": {"source": "teacher"},
                "train": {"steps": 1, "batch_size": 1},
                "export": {"t_mid": [1.1]},
            }
        )
        loaded = networks.load_teacher(recipe)
        reading = loaded.teacher.reading
        ids: list[Any] = ["a cat"] if family.conditions == "prompt" else [1]
        conditions = teachers.record(
            reading, ids, folder / "conditions", guided=False, negative="", identity="", progress=lambda _: None
        )
        given = Conditioning(loaded.teacher, conditions, recipe.guidance)
        F = loaded.F_teacher
        t = torch.linspace(0.2, 1.4, 4, dtype=torch.float64)
        x = torch.randn(4, *loaded.teacher.sample_shape, generator=torch.Generator().manual_seed(0))
        cond = given.for_evaluation(torch.zeros(4, dtype=torch.long))
        low_pass.prepare(F, x, t, cond)
        low_pass.set_width(F.net, 10)
        student = new_student(loaded, recipe, x, t, cond, Silent()).requires_grad_(False)
        trained = Trained(recipe, loaded, TrainingData((), given, None, ids), student, 0)  # type: ignore[arg-type]
        grid = t_mid.grids(trained)[0]
        call = bundle.save(trained, student, grid, folder / "export", {}, Silent())
        return Case(trained, self_check.alone(student), grid, folder / "export", call)

    return make


@contextmanager
def edited(folder: Path, tmp_path: Path, file: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A copy of `folder`, and the JSON of one of its files, to be changed."""
    shutil.copytree(folder, tmp_path / "edited")
    path = tmp_path / "edited" / file
    content = json.loads(path.read_text())
    yield tmp_path / "edited", content
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("name", NAMES)
def test_a_right_export_passes(name: str, case: Callable[[str], Case]) -> None:
    checked = case(name).check()
    assert checked.relative < 1e-5
    assert 0 <= checked.largest < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_weight_is_seen(name: str, case: Callable[[str], Case], tmp_path: Path) -> None:
    folder = shutil.copytree(case(name).folder, tmp_path / "edited")
    part = "unet" if name == "sd15" else "transformer"
    path = folder / part / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    last = next(n for n in ("conv_out.weight", "proj_out.weight", "proj_out_2.weight", "postprocess_conv.weight")
                if n in weights)  # fmt: skip
    weights[last] = weights[last] * 1.02
    save_file(weights, path, metadata={"format": "pt"})
    assert case(name).check(folder).relative > bundle.TOLERANCE


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("wan", "shift_terminal", 0.7),
        ("wan", "shift_terminal", None),
        ("sd15", "original_inference_steps", 3),
        ("sd15", "prediction_type", "epsilon"),
        ("sd15", "timestep_scaling", 1e-3),
        ("stable_audio", "sigma_min", 0.6),
        ("stable_audio", "prediction_type", "epsilon"),
    ],
)
def test_another_setting_of_the_scheduler_is_seen(
    name: str, setting: str, value: Any, case: Callable[[str], Case], tmp_path: Path
) -> None:
    with edited(case(name).folder, tmp_path, "scheduler/scheduler_config.json") as (folder, settings):
        assert settings[setting] != value
        settings[setting] = value
    assert case(name).check(folder).relative > bundle.TOLERANCE


@pytest.mark.parametrize("name", ["wan", "sd15"])
def test_a_time_that_is_not_the_exported_one_is_seen(name: str, case: Callable[[str], Case]) -> None:
    one = case(name)
    other = replace(one, grid=replace(one.grid, t_mid=one.grid.t_mid * 0.99))
    assert other.check().relative > bundle.TOLERANCE


@pytest.mark.parametrize(
    ("name", "say"),
    [
        ("wan", r"makes \[2, 2\] network calls of batch \[1, 1, 1, 1\]"),
        ("stable_audio", r"makes \[1, 1\] network calls of batch \[2, 2\]"),
        ("dit", r"makes \[1, 1\] network calls of batch \[2, 2\]"),
    ],
)
def test_a_call_with_guidance_on_is_refused(name: str, say: str, case: Callable[[str], Case]) -> None:
    assert case(name).call["guidance_scale"] == 1.0
    with pytest.raises(UserError, match=say):
        case(name).check(guidance_scale=3.0)


def test_a_folder_that_carries_guidance_off_may_be_given_any(case: Callable[[str], Case]) -> None:
    assert "guidance_scale" not in case("sd15").call
    assert case("sd15").check(guidance_scale=7.5).relative < 1e-5


def test_a_call_of_three_steps_is_seen(case: Callable[[str], Case]) -> None:
    assert case("wan").check(num_inference_steps=3).relative > bundle.TOLERANCE


def test_a_scheduler_that_adds_no_noise_is_seen(case: Callable[[str], Case], tmp_path: Path) -> None:
    with edited(case("wan").folder, tmp_path, "scheduler/scheduler_config.json") as (folder, settings):
        settings["stochastic_sampling"] = False
    try:
        relative = case("wan").check(folder).relative
    except UserError:
        return
    assert relative > bundle.TOLERANCE


def test_a_pipeline_that_brings_its_own_scheduler_is_refused(
    case: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline

    init = WanPipeline.__init__

    @functools.wraps(init)
    def own(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **{**kwargs, "scheduler": FlowMatchEulerDiscreteScheduler()})

    monkeypatch.setattr(WanPipeline, "__init__", own)
    with pytest.raises(UserError, match="brings its own scheduler along"):
        case("wan").check()


def test_the_check_leaves_the_student_alone(case: Callable[[str], Case]) -> None:
    before = [p.clone() for p in case("wan").student.parameters()]
    case("wan").check()
    assert all(torch.equal(a, b) for a, b in zip(before, case("wan").student.parameters(), strict=True))
