"""What the attention kernel compiles to: registers, shared memory and spills of every tile, by GPU; no GPU is needed.

python tests/benchmarks/kernel_table.py --out tests/benchmarks/kernel_table.json      sm_80 and sm_90
python tests/benchmarks/kernel_table.py --gpu --jobs 16                               the GPU of this machine

Triton compiles for a GPU that it is told of. Spills are the bytes of a thread's stack; registers that find no room live
there.
"""

import argparse
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from scm_distill.autodiff import flash, flash_launch
from scm_distill.autodiff.flash_tiles import Tile

WIDTHS = {torch.bfloat16: (64, 72, 80, 96, 128, 160, 256), torch.float32: (64, 72, 80, 128)}
KINDS = ("self", "mask", "fused")  # O known: q, k and v move; the same under a mask a row; O unknown, q, k and v move
LIMIT = {80: 166_912, 90: 232_448}  # bytes of shared memory that a program may have


@dataclass(frozen=True)
class Variant:
    """A kernel as it is compiled: for a GPU (80 is sm_80), a dtype, a head dimension, a kind of call, in a tile."""

    gpu: int
    dtype: str
    width: int
    kind: str
    tile: Tile

    def call(self) -> flash_launch.Call:
        """The launch that asks for it, by the code that launches."""
        q = torch.empty(2, 2, 256, self.width, dtype=getattr(torch, self.dtype), device="meta")
        six, settings = (q,) * 6, {"causal": False, "scale": 1.0, "tf32": q.dtype == torch.float32}
        with flash_launch.recording() as calls:
            if self.kind == "fused":
                flash.launch(*six[:3], six[3:], None, None, **settings)
            else:
                mask = q.new_empty(2, 1, 256, 256) if self.kind == "mask" else None
                flash.launch(*six[:3], six[3:], (q, q.new_empty(2, 2, 256, dtype=torch.float32)), mask, **settings)
        return calls[0]


@dataclass(frozen=True)
class Compiled:
    """Registers and stack bytes of a thread, shared memory of a program in bytes."""

    variant: Variant
    registers: int
    shared: int
    spills: int

    def row(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self.variant), "registers": self.registers, "shared": self.shared, "spills": self.spills}


def variants(gpus: tuple[int, ...]) -> list[Variant]:
    """Every tile that `flash_tiles` offers to these GPUs, at each head dimension and kind of call."""
    found = []
    for gpu in gpus:
        for dtype, widths in WIDTHS.items():
            for width in widths:
                for kind in KINDS if width in (64, 128, 256) else KINDS[:2]:
                    name = str(dtype).removeprefix("torch.")
                    call = Variant(gpu, name, width, kind, Tile(0, 0, 0, 0)).call()
                    found += [Variant(gpu, name, width, kind, tile) for tile in call.tiles((gpu // 10, gpu % 10))]
    return found


class Elsewhere:
    """Stands in for Triton's driver: a GPU that is not here, one device a capability."""

    def __init__(self, gpu: int) -> None:
        backend = __import__("triton.backends.compiler", fromlist=["GPUTarget"])
        self.gpu, self.target = gpu, backend.GPUTarget("cuda", gpu, 32)

    def get_current_device(self) -> int:
        return self.gpu

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        return self.target


def compiled(variant: Variant) -> Compiled:
    """Compile one, offline."""
    triton = __import__("triton.runtime.driver")
    triton.runtime.driver.set_active(Elsewhere(variant.gpu))
    call = variant.call()
    binary = flash_launch.kernel().compiled(call.args, call.flags, variant.tile)
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        said = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    figures = {name: int(value) for name, value in re.findall(r"(REG|STACK):(\d+)", said)}
    return Compiled(variant, figures["REG"], binary.metadata.shared, figures["STACK"])


def table(gpus: tuple[int, ...], jobs: int) -> Iterator[Compiled]:
    """All of `variants`, by `jobs` processes, in order."""
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        yield from pool.map(compiled, variants(gpus))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true", help="for the GPU of this machine")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--out", type=Path, help="JSON")
    args = parser.parse_args()
    gpus: tuple[int, ...] = (80, 90)
    if args.gpu:
        major, minor = torch.cuda.get_device_capability()
        gpus = (10 * major + minor,)
    rows = []
    for one in table(gpus, args.jobs):
        rows.append(one.row())
        v = one.variant
        print(f"sm_{v.gpu} {v.dtype:8} {v.width:3} {v.kind:5} {'x'.join(map(str, v.tile)):12}", end=" ")
        print(f"{one.registers:3} registers {one.shared:6} B shared {one.spills:5} B spilled", flush=True)
    if args.out:
        facts = {"date": date.today().isoformat(), "triton": version("triton")}
        lines = ",\n  ".join(json.dumps(row) for row in rows)
        args.out.write_text(json.dumps(facts)[:-1] + f', "kernels": [\n  {lines}\n]}}\n')


if __name__ == "__main__":
    main()
