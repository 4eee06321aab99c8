"""Tiny random-weight pipelines of diffusers' own classes, saved to disk and loaded through the real code."""

import gc
from collections.abc import Callable
from pathlib import Path

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

# Folders and files whose tests have the marker `quick`; with -m quick no other file is even imported.
QUICK = ("maths", "objectives", "config", "artifacts", "models", "data")
ELSEWHERE = ("wide", "slow", "gpu", "network")


def is_quick(path: Path) -> bool:
    """Whether the tests of this file, or of files in this folder, are quick."""
    name = path.relative_to(Path(__file__).parent).as_posix()
    return any(name == quick or name.startswith(f"{quick}/") for quick in QUICK)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if config.option.markexpr != "quick" or not collection_path.name.startswith("test_"):
        return None
    return None if is_quick(collection_path) else True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_quick(item.path) and not any(item.get_closest_marker(name) for name in ELSEWHERE):
            item.add_marker("quick")


def pytest_collection_finish() -> None:
    gc.freeze()  # what the libraries brought along stays: no collection has to walk it
    gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # or the bindings of Triton report leaks


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
export: {{t_mid: [0.8, 1.1], samples: 8}}
"""


@pytest.fixture(scope="session")
def recipe_of() -> Callable[..., str]:
    """The text of a recipe that runs in seconds."""

    def recipe(teacher: Path | str, data: Path | str = "builtin:digits/data.npz") -> str:
        return RECIPE.format(teacher=teacher, data=data)

    return recipe
