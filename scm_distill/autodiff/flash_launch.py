"""Launches of the kernel of `flash`: in which tile, found by timing; compiled ahead, many at a time.

Triton is imported when a kernel is first asked for.
"""

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scm_distill.autodiff.flash_tiles import Tile, tiles
from scm_distill.autodiff.torch_private import cuda_sleep
from scm_distill.progress import Reporter

INTERPRETER = Tile(32, 16, 4, 1)
RUNS = 5  # of a tile, to be timed
STRIDES = 16  # arguments before the strides: ten tensors, two factors, four sizes for which Triton compiles nothing


def kernel() -> Any:
    """The module `flash_kernel`. Raises ImportError without Triton."""
    return importlib.import_module("scm_distill.autodiff.flash_kernel")


def _dtype(x: Any) -> torch.dtype:
    return x.dtype if isinstance(x, Tensor) else x


@dataclass(frozen=True)
class Call:
    """One launch: the kernel's positional arguments and flags, without the tile.

    `rows` and `keys` are N and M, `batch_heads` is B H. In a recorded call a dtype stands for each tensor.
    """

    args: tuple[Any, ...]
    flags: Mapping[str, Any]
    batch_heads: int
    rows: int
    keys: int

    @property
    def dtype(self) -> torch.dtype:
        """Of the query."""
        return _dtype(self.args[0])

    def variant(self) -> tuple[Any, ...]:
        """What the compiled kernel depends on, beside the tile: dtypes, flags, and what Triton asks of a stride."""
        strides = (n if n == 1 else n % 16 == 0 for n in self.args[STRIDES:])
        return (self.dtype, _dtype(self.args[6]), *self.flags.values(), *strides)

    def without_tensors(self) -> "Call":
        """The same, which keeps no memory."""
        return replace(self, args=tuple(x.dtype if isinstance(x, Tensor) else x for x in self.args))

    def tiles(self, capability: tuple[int, int]) -> tuple[Tile, ...]:
        """The tiles to choose from on this GPU."""
        f = self.flags
        wide = max(f["D0"] + f["D1"], f["E0"] + f["E1"])
        return tiles(capability, self.dtype.itemsize, wide, known=not f["FUSED"])


_recorded: list[Call] | None = None
_chosen: dict[tuple[Any, ...], Tile] = {}


@contextmanager
def recording() -> Iterator[list[Call]]:
    """Within it nothing is launched: the list that is given is filled with the calls, whose outputs are zero."""
    global _recorded
    before, _recorded = _recorded, []
    try:
        yield _recorded
    finally:
        _recorded = before


def launch(call: Call) -> None:
    """Run the kernel; the first call of a kind, and of lengths up to twice as long, tries every tile and waits."""
    if _recorded is not None:
        _recorded.append(call.without_tensors())
        outputs = call.args[7:10:2] if call.flags["FUSED"] else call.args[9:10]
        for x in outputs:
            x.zero_()
        return
    if kernel().INTERPRETED:
        _start(call, INTERPRETER)
        return
    device = torch.cuda.current_device()
    key = (device, call.rows.bit_length(), call.keys.bit_length(), *call.variant())
    if key not in _chosen:
        _chosen[key] = _fastest(call, call.tiles(torch.cuda.get_device_capability(device)))
    _start(call, _chosen[key])


def _start(call: Call, tile: Tile) -> None:
    kernel().start(call.args, call.flags, tile, -(-call.rows // tile.rows) * call.batch_heads)


def _fastest(call: Call, choice: Sequence[Tile]) -> Tile:
    """The tile in which this call takes least time. Raises what the last raised where this GPU runs none of them."""
    times: dict[Tile, float] = {}
    problem: Exception | None = None
    for tile in choice:
        try:
            times[tile] = _milliseconds(call, tile)
        except kernel().UNFIT as error:
            problem = error
    if not times:
        assert problem is not None
        raise problem
    return min(times, key=lambda tile: times[tile])


def _milliseconds(call: Call, tile: Tile) -> float:
    _start(call, tile)  # compiled and loaded
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    cuda_sleep(2_000_000)  # a millisecond in which the host gets ahead
    begin.record()
    for _ in range(RUNS):
        _start(call, tile)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


def compile_all(calls: Sequence[Call], report: Reporter) -> int:
    """Compile every kernel that these calls may take on the current GPU, in parallel; how many those are.

    What Triton's cache on disk holds is read from there. A tile that does not fit the GPU is left out.
    """
    device = torch.cuda.current_device()
    capability = torch.cuda.get_device_capability(device)
    variants = {call.variant(): call for call in calls}.values()
    jobs = [(call, tile) for call in variants for tile in call.tiles(capability)]
    kernel()  # imported here: threads that import the same module wait for each other

    def compiled(call: Call, tile: Tile) -> None:
        with torch.cuda.device(device):
            try:
                kernel().compiled(call.args, call.flags, tile)
            except kernel().UNFIT:
                return

    cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # of this process
    report.begin("compile attention", len(jobs))
    try:
        with ThreadPoolExecutor(max(1, min(len(jobs), cores))) as pool:
            for done, future in enumerate(as_completed([pool.submit(compiled, *job) for job in jobs]), 1):
                future.result()
                report.advance(done)
    finally:
        report.end()
    return len(jobs)
