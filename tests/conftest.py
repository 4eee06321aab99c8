"""Tiny random-weight pipelines of diffusers' own classes, saved to disk and loaded through the real code."""

import gc
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from hypothesis import settings
from PIL import Image

settings.register_profile("scm", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("scm")
gc.disable()  # while the tests are imported: half a million objects, walked again and again
torch.set_num_threads(1)  # these sizes gain nothing from a second thread, and lose much on a busy machine

TeacherMaker = Callable[..., Path]


class ShortLBFGS(torch.optim.LBFGS):
    """LBFGS of at most 60 iterations."""

    def __init__(self, parameters: Any, **settings: Any) -> None:
        super().__init__(parameters, **{**settings, "max_iter": min(60, settings["max_iter"]), "max_eval": 90})


@pytest.fixture(autouse=True, scope="module")
def small(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fewer samples to probe a teacher of pixels with, and a shorter fit of a student's own clock.

    That fit is exact at the two sampling times all the same; tests/models has it at its full length.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not among(request.path, ("maths", "objectives", "models")):
            patch.setattr(torch.optim, "LBFGS", ShortLBFGS)
            if setup := sys.modules.get("scm_distill.training.setup"):
                patch.setattr(setup, "PROBE", 32)
        yield


# Folders and files whose tests have the marker `quick`; with -m quick no other file is even imported.
QUICK = (
    "maths", "objectives", "config", "artifacts", "models", "data",
    *(f"training/test_{name}.py" for name in ("batches", "randomness", "optimizer", "endpoint", "prefit", "setup")),
    "autodiff/test_dual.py", "autodiff/test_rules.py", "evaluation/test_metrics.py", "evaluation/test_inputs.py",
    "export/test_schedulers.py", "publish/test_licence.py", "sampling/test_request.py",
    "sampling/test_per_sample_noise.py",
)  # fmt: skip
ELSEWHERE = ("wide", "slow", "gpu", "network")

# In these files, tests that go through MANY or more families of the zoo (by a parameter `name`) run on these, or where
# none of them is among theirs on the first; the others are `wide`. One a kind: pixels, discrete, flow, video, EDM.
SWEEPS = ("test_conformance.py", "teachers", "sampling/test_open.py", "training/test_verify.py",
          "training/test_precision.py", "training/test_latents.py", "training/test_conditioning.py")  # fmt: skip
MANY = 4
REPRESENTATIVES = ("ddpm", "sd15", "flux", "wan", "stable_audio")


def among(path: Path, names: Collection[str]) -> bool:
    """Whether this file, or a folder that it is in, is one of `names`."""
    name = path.relative_to(Path(__file__).parent).as_posix()
    return any(name == one or name.startswith(f"{one}/") for one in names)


def sweep(items: list[pytest.Item]) -> None:
    """Mark as wide the cases of a sweep that are not about a representative."""
    families: dict[str, list[pytest.Item]] = {}
    for item in items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if among(item.path, SWEEPS) and isinstance(parameters.get("name"), str):
            families.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cases in families.values():
        of = [case.callspec.params["name"] for case in cases]
        if len(set(of)) < MANY:
            continue
        kept = [name for name in of if name in REPRESENTATIVES] or of[:1]
        for case, name in zip(cases, of, strict=True):
            if name not in kept and not any(case.get_closest_marker(mark) for mark in ELSEWHERE):
                case.add_marker("wide")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if config.option.markexpr != "quick" or not collection_path.name.startswith("test_"):
        return None
    return None if among(collection_path, QUICK) else True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    sweep(items)
    for item in items:
        if among(item.path, QUICK) and not any(item.get_closest_marker(name) for name in ELSEWHERE):
            item.add_marker("quick")


def pytest_collection_finish() -> None:
    gc.freeze()  # what the libraries brought along stays: no collection has to walk it
    gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # or the bindings of Triton report leaks


def wide(*cases: Any) -> list[Any]:
    """Cases of a parametrization that only `pytest -m wide` runs."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.wide) for case in cases]


def tiny_net(*, classes: int | None = None, channels: int = 1, **changes: object) -> UNet2DModel:
    """A UNet2DModel with attention on 8 x 8 images; its random weights depend on a fixed seed only."""
    config = {
        "sample_size": 8, "in_channels": channels, "out_channels": channels, "layers_per_block": 1,
        "block_out_channels": (8, 16), "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "norm_num_groups": 4, "attention_head_dim": 8,
        "num_class_embeds": classes,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        return UNet2DModel(**{**config, **changes}).eval()


@pytest.fixture(scope="session")
def make_teacher(tmp_path_factory: pytest.TempPathFactory) -> TeacherMaker:
    """Save a DDPMPipeline of a tiny net and return its folder."""

    def make(*, prediction: str = "epsilon", classes: int | None = None, channels: int = 1, **changes: object) -> Path:
        folder = tmp_path_factory.mktemp("teacher")
        scheduler = DDPMScheduler(prediction_type=prediction)
        net = tiny_net(classes=classes, channels=channels, **changes)
        DDPMPipeline(net, scheduler).save_pretrained(str(folder))
        return folder

    return make


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of six images each, of differing sizes and modes."""
    folder = tmp_path_factory.mktemp("images")
    for label in range(3):
        (folder / f"class{label}").mkdir()
        for i in range(6):
            size, mode = (9 + i, 12), ("RGB", "L", "RGBA")[i % 3]
            color = {"RGB": (40 * i, 80 * label, 9), "L": 30 * i, "RGBA": (40 * i, 80 * label, 9, 128)}[mode]
            Image.new(mode, size, color).save(folder / f"class{label}" / f"{i}.png")
    return folder


RECIPE = """
teacher: {{repo: {teacher}}}
data: {{source: {data}}}
objective: {{warmup_steps: 100}}
adapt: {{prefit_steps: 2, smooth_time: 20}}
train: {{steps: 4, batch_size: 4, checkpoint_every: 2, evaluate_every: 2, evaluate_samples: 4, device: cpu}}
sampler: {{teacher_steps: 3}}
export: {{t_mid: [0.8, 1.1], samples: 8, check_first: false}}
"""


@pytest.fixture(scope="session")
def recipe_of() -> Callable[..., str]:
    """The text of a recipe that runs in seconds."""

    def recipe(teacher: Path | str, data: Path | str = "builtin:digits/data.npz") -> str:
        return RECIPE.format(teacher=teacher, data=data)

    return recipe
