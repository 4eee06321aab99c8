"""How many kernels a step launches on a GPU, counted on the device of tests/foreign, as JSON.

python tests/benchmarks/operators.py --out tests/benchmarks/operators.json     without compilation, float32 and bf16
python tests/benchmarks/operators.py --compile --precision bf16 --only DiT     minutes: what Inductor would generate too

The small networks of networks.py, batch 2. Below some batch a GPU waits for the host that launches these. An operator
that writes a tensor counts once however many it writes, a view or an allocation not at all; attention's tangent is one.
A compiled graph counts as the Triton kernels that are generated for it and the operators and products that it calls
beside them; its code is written as for sm_90 and not compiled, the graph's values are computed without it.
"""

import argparse
import json
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

import foreign

CALLED = re.compile(r"(?:extern_kernels\.\w+|torch\.ops\.(?!aten\.set_)[\w.]+)\(")
GRAPH = "a compiled graph"


@dataclass
class Graph:
    """What Inductor made of a graph: stands in for the module that it would have compiled and loaded."""

    module: Any  # the graph itself, which computes the values
    code: str
    generated: int
    launched: "Counter[str]"  # gets the counts of every call
    __file__ = __file__  # asked for by Inductor's log

    def call(self, inputs: list[Any]) -> Any:
        """The outputs of the graph."""
        from foreign.device import one_operator

        self.launched["generated"] += self.generated
        self.launched["called in graphs"] += len(CALLED.findall(self.code))
        with one_operator(GRAPH):
            return self.module(*inputs)


def generate_only(launched: "Counter[str]") -> None:
    """Let Inductor write its code for the foreign device, and neither compile nor time it."""
    import torch
    from torch._inductor import config, metrics
    from torch._inductor.graph import GraphLowering
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver

    config.force_disable_caches = True
    config.shape_padding = False  # it is decided by timing
    torch.cuda._get_device_properties = torch.cuda.get_device_properties  # type: ignore[attr-defined]
    target = GPUTarget("cuda", 90, 32)
    driver.set_active(SimpleNamespace(get_current_target=lambda: target, get_current_device=lambda: 0))

    def generated(graph: Any) -> Graph:
        before = metrics.generated_kernel_count
        code, _ = graph.codegen()
        return Graph(graph.module, code.value, metrics.generated_kernel_count - before, launched)

    mock.patch.object(GraphLowering, "_compile_to_module", generated).start()


def counted(run: Callable[[], None], launched: "Counter[str]") -> dict[str, int]:
    """Of the second call of `run`; the first makes the optimizer's states and compiles."""
    run()
    launched.clear()
    with foreign.counting() as count:
        run()
    eager = count.operators - count.by_operator[GRAPH]
    return {"all": eager + launched.total(), "one by one": eager, **launched} if launched else {"all": eager}


def figures(make: Callable[[], Any], precision: str, launched: "Counter[str]", *, compile: bool) -> dict[str, Any]:
    """Of one network: a forward, a plain training step and a distillation step."""
    from step import Bench

    from scm_distill.autodiff.derivatives import OnePass
    from scm_distill.training.compiling import CompiledTeacher

    b = Bench(make, 2, "cuda", precision)
    runs = {"forward": b.forward, "training step": b.training, "one pass": b.step(OnePass(b.blocks))}
    result: dict[str, Any] = {"blocks": len(b.blocks)}
    result |= {name: counted(run, launched)["all"] for name, run in runs.items()}
    if compile:
        b.teacher = CompiledTeacher(b.teacher)  # type: ignore[assignment]
        start = time.perf_counter()
        result["one pass, compiled blocks"] = counted(b.step(OnePass(b.blocks, compile="blocks")), launched)
        result["code written in, s"] = round(time.perf_counter() - start)
    return result


def main() -> None:
    """Count, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", choices=("fp32", "bf16"), action="append")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--only", default="", help="part of a network's name")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    foreign.activate()
    import torch
    from networks import networks

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of the compiler
    launched: Counter[str] = Counter()
    if args.compile:
        generate_only(launched)
    facts: dict[str, Any] = {
        "date": date.today().isoformat(),
        "versions": {name: version(name) for name in ("torch", "diffusers")},
        "networks": {},
    }
    for precision in args.precision or ("fp32", "bf16"):
        for name, make in networks("small").items():
            if args.only in name:
                found = figures(make, precision, launched, compile=args.compile)
                facts["networks"][f"{name}, {precision}"] = found
                print(json.dumps({f"{name}, {precision}": found}), flush=True)
    if args.out:
        args.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
