"""Teachers as they were published go the whole way, or are refused in a sentence; nothing ends in a traceback."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from whole_way import another_interpreter, goes_the_whole_way, inspected

import published
from published.build import build

ALL = published.load_all()

# Inspected in the default run; the whole way in `wide`.
FEW = ("sd-1.5", "sd-2.1", "wan2.1-t2v-1.3b", "flux.1-dev")
WHOLE_WAY = (
    *FEW, "sdxl-base-1.0", "ddpm-cifar10", "ldm-text2im", "dit-xl-2-512", "pixart-sigma", "sd3-medium", "sana-600m",
    "cogvideox-2b", "ltx-video-0.9", "audioldm-s-full-v2", "stable-audio-open-1.0", "playground-2.5", "wan2.2-t2v-a14b",
)  # fmt: skip
UNGUIDED = ("DDPMPipeline",)
SIGMA_D = {"playground-2.5": 0.5}
CONDITIONS = {"DDPMPipeline": "none", "DiTPipeline": "labels"}

started = pytest.fixture(scope="module", name="stock")(another_interpreter)
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds the folder of an entry, by its name."""

    def folder(name: str) -> Path:
        path = tmp_path_factory.mktemp("published") / "teacher"
        build(ALL[name].files, path)
        return path

    return folder


@pytest.mark.parametrize("name", FEW)
def test_published_teachers_can_be_distilled(name: str, folder_of: Callable[[str], Path]) -> None:
    inspected(folder_of(name), ALL[name].call)


@pytest.mark.wide
@pytest.mark.parametrize("name", WHOLE_WAY)
def test_published_teachers_go_the_whole_way(
    name: str,
    folder_of: Callable[[str], Path],
    stock: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = ALL[name]
    goes_the_whole_way(
        folder_of(name),
        CONDITIONS.get(entry.pipeline, "prompt"),
        entry.call,
        stock,
        monkeypatch,
        guidance="{}" if entry.pipeline in UNGUIDED else "{scale: 3.0}",
        sigma_d=SIGMA_D.get(name, 1.0),
    )
