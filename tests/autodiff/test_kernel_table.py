"""The table of what the attention kernel compiles to, and compiling ahead: offline, for GPUs that are not here."""

import importlib
import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import kernel_table
from benchmarks.kernel_table import LIMIT, Compiled, Elsewhere, Variant

from scm_distill.autodiff import flash_launch
from scm_distill.autodiff.flash_tiles import TILES, Tile, pieces, tiles
from scm_distill.progress import Silent

PATH = Path(kernel_table.__file__).with_suffix(".json")
TABLE = json.loads(PATH.read_text())
KERNELS = [
    Compiled(
        Variant(row["gpu"], row["dtype"], row["width"], row["kind"], Tile(*row["tile"])),
        row["registers"], row["shared"], row["spills"],
    )
    for row in TABLE["kernels"]
]  # fmt: skip
SMALLEST = 101_376  # bytes of shared memory of a program on sm_86 and sm_89


def test_it_holds_what_a_launch_can_ask_for() -> None:
    assert [one.variant for one in KERNELS] == kernel_table.variants((80, 90))
    known = {(one.variant.gpu, one.variant.dtype, one.variant.tile) for one in KERNELS}
    for (itemsize, gpu, _), rows in TILES.items():
        dtype = "bfloat16" if itemsize == 2 else "float32"
        assert {(gpu, dtype, tile) for row in rows.values() for tile in row} <= known


def test_nothing_spills_at_head_dimensions_up_to_128_and_everything_fits() -> None:
    for one in KERNELS:
        assert one.spills == 0 or one.variant.width > 128, one
        assert one.shared <= LIMIT[one.variant.gpu], one
        assert one.registers <= 255


def test_the_last_tile_of_a_row_fits_the_smallest_gpu() -> None:
    for one in KERNELS:
        v = one.variant
        if v.gpu == 80 and v.tile == v.call().tiles((8, 0))[-1]:
            assert one.shared <= SMALLEST, one


@pytest.mark.parametrize(
    ("width", "expected"),
    [(8, (16, 0)), (24, (32, 0)), (40, (32, 16)), (64, (64, 0)), (72, (64, 16)), (80, (64, 16)), (96, (64, 32)),
     (104, (128, 0)), (128, (128, 0)), (160, (128, 32)), (192, (128, 64)), (256, (256, 0))],
)  # fmt: skip
def test_a_head_dimension_in_two_pieces(width: int, expected: tuple[int, int]) -> None:
    assert pieces(width) == expected
    assert pieces(width, whole=True)[1] == 0
    assert width <= pieces(width, whole=True)[0] < max(17, 2 * width)


def test_tiles_by_gpu() -> None:
    assert tiles((9, 0), 2, 128, known=True)[0] == Tile(128, 64, 8, 2)
    assert tiles((10, 0), 2, 128, known=True) == tiles((9, 0), 2, 128, known=True)
    for consumer in ((8, 6), (8, 9), (12, 0)):
        assert tiles(consumer, 2, 80, known=True) == TILES[2, 80, True][96]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An sm_80 to compile for, with nothing compiled yet."""
    pytest.importorskip("triton")
    driver = importlib.import_module("triton.runtime.driver").driver
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 80)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=None: (8, 0))
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    before = dict(vars(driver))  # to reset it asks for a GPU
    driver.set_active(Elsewhere(80))
    yield
    vars(driver).update(before)


@pytest.mark.wide
@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("at", [("float32", 72, "self"), ("bfloat16", 64, "mask")], ids=str)
def test_it_is_what_this_triton_makes(at: tuple[str, int, str]) -> None:
    v = next(
        one
        for one in KERNELS
        if one.variant.gpu == 80 and (one.variant.dtype, *at[1:]) == (at[0], one.variant.width, one.variant.kind)
    )
    found = kernel_table.compiled(v.variant)
    assert found.spills == 0
    if importlib.import_module("triton").__version__ == TABLE["triton"]:
        assert found == v


class Heard(Silent):
    """What a phase was begun with, and how far it came."""

    def __init__(self) -> None:
        self.steps: list[Any] = []

    def begin(self, phase: str, total: int, done: int = 0) -> None:
        self.steps.append((phase, total))

    def advance(self, done: int, figures: dict[str, float] | None = None) -> None:
        self.steps.append(done)

    def end(self) -> None:
        self.steps.append("end")


@pytest.mark.wide
@pytest.mark.usefixtures("elsewhere")
def test_the_kernels_of_a_network_are_compiled_ahead() -> None:
    call = Variant(80, "bfloat16", 16, "self", Tile(0, 0, 0, 0)).call()
    choice, heard = call.tiles((8, 0)), Heard()
    assert flash_launch.compile_all([call, call], heard) == len(choice) == 3
    assert heard.steps == [("compile attention", 3), 1, 2, 3, "end"]
    kernel = flash_launch.kernel()
    binaries = kernel.tangent_kernel.device_caches[80][0].values()
    assert {(one.metadata.num_warps, one.metadata.num_stages) for one in binaries} >= {
        (t.warps, t.stages) for t in choice
    }
    before = len(binaries)
    flash_launch.compile_all([call], heard)
    assert len(binaries) == before  # nothing is compiled twice
