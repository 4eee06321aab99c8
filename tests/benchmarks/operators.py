"""How many operators that write a tensor a step launches (tests/launches.py), as JSON.

python tests/benchmarks/operators.py --out tests/benchmarks/operators.json          eager, float32 and bf16
python tests/benchmarks/operators.py --compile blocks --precision fp32 --only DiT   minutes: the compiler's

The small networks of networks.py on a CPU, batch 2. Below some batch a GPU waits for the host that launches these.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from scm_distill.autodiff import attention
from scm_distill.autodiff.derivatives import OnePass
from scm_distill.training.compiling import CompiledTeacher

sys.path.insert(0, str(Path(__file__).parents[1]))

from launches import launches
from networks import Made, networks
from step import Bench

INSIDE = ("generated kernels", "operators of compiled graphs")


def counted(b: Bench) -> dict[str, int]:
    """In a forward, a plain training step and a distillation step, all eager."""
    runs = {"forward": b.forward, "training step": b.training, "one pass": b.step(OnePass(b.blocks))}
    result = {}
    for name, run in runs.items():
        run()  # the optimizer makes its states
        result[name] = sum(launches(run).values())
    return result


def compiled(b: Bench) -> dict[str, Any]:
    """In a distillation step with compiled blocks, the teacher's too. Attention counts as all that one chunk takes."""
    attention.CHUNK = 2**40
    b.teacher = CompiledTeacher(b.teacher)  # type: ignore[assignment]
    step = b.step(OnePass(b.blocks, compile="blocks"))
    start = time.perf_counter()
    step()
    took = time.perf_counter() - start
    counts = launches(step, kernels=False)
    inside = {kind: counts[kind] for kind in INSIDE}
    total = sum(counts.values())
    return {"all": total, **inside, "eager": total - sum(inside.values()), "first step, s": round(took, 1)}


def figures(made: Callable[[], Made], precision: str, *, compile: bool) -> dict[str, Any]:
    """Of one network."""
    b = Bench(made, 2, "cpu", precision)
    result: dict[str, Any] = {"blocks": len(b.blocks), **counted(b)}
    return {**result, "one pass, compiled blocks": compiled(b)} if compile else result


def main() -> None:
    """Count, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", choices=("fp32", "bf16"), action="append")
    parser.add_argument("--compile", choices=("off", "blocks"), default="off")
    parser.add_argument("--only", default="", help="part of a network's name")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of the compiler
    facts: dict[str, Any] = {
        "date": date.today().isoformat(),
        "versions": {name: version(name) for name in ("torch", "diffusers")},
        "networks": {},
    }
    for precision in args.precision or ("fp32", "bf16"):
        for name, made in networks("small").items():
            if args.only in name:
                found = figures(made, precision, compile=args.compile == "blocks")
                facts["networks"][f"{name}, {precision}"] = found
                print(json.dumps({f"{name}, {precision}": found}), flush=True)
    if args.out:
        args.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
