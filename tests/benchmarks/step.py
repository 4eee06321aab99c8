"""The distillation step against what it would cost by other means, side by side in one run, as JSON.

python tests/benchmarks/step.py --out tests/benchmarks/step_cpu.json                                small, any machine
python tests/benchmarks/step.py --size real --precision bf16 --out tests/benchmarks/step_gpu.json   one GPU

Random weights. A step is the teacher's forward, the loss of Algorithm 1, backward, clipping, AdamW and EMA. Times are
multiples of one forward of the same network, the fastest of interleaved rounds; the student's part is without teacher
and optimizer; FLOPs are torch's own count; memory is the peak above what lay there before. `plain` is torch.func.jvp
with math attention. On a GPU there are milliseconds too: `host` until the last kernel is launched, `device` between
CUDA events, `busy` the sum of the kernels' own times by the profiler, which counts them.
"""

import argparse
import copy
import gc
import json
import platform
import sys
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from scm_distill import config
from scm_distill.autodiff.attention import backend
from scm_distill.autodiff.derivatives import Derivative, Difference, OnePass, TwoPasses, direction, tangent_pass
from scm_distill.autodiff.dual import blocks
from scm_distill.maths.clocks import FlowClock
from scm_distill.maths.cond import Cond
from scm_distill.models.ema import PowerEMA
from scm_distill.models.network import Network
from scm_distill.models.student import Student
from scm_distill.objectives.scm import Objective
from scm_distill.training.distributed import clip
from scm_distill.training.optimizer import build

sys.path.insert(0, str(Path(__file__).parents[1]))

from counting import flops
from networks import Call, Made, networks
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

PARTS = ("plain", "two passes", "one pass")  # whose student's part is timed apart


class Contiguous(TorchFunctionMode):
    """What plain PyTorch lacks to differentiate a UNet2D with attention at all."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.group_norm:
            args = (args[0].contiguous(), *args[1:])
        return func(*args, **(kwargs or {}))


class Plain:
    """torch.func.jvp with math attention, then an ordinary forward."""

    def __call__(self, F: Any, x: Tensor, t: Tensor, cond: Cond, v: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), Contiguous():
            _, cs_dF = torch.func.jvp(lambda x, t: F(x, t, cond), (x, t), direction(t, v))
        return F(x, t, cond), cs_dF


class Bench:
    """One network with everything a step needs."""

    def __init__(self, make: Callable[[], Made], batch: int, device: str, precision: str) -> None:
        with torch.random.fork_rng(), torch.device(device):  # made there: a host takes minutes for 1.5 B parameters
            torch.random.manual_seed(0)
            net, shape, conditions = make()
        g = torch.Generator(device).manual_seed(0)
        for p in net.parameters():  # zero-initialised gates would hide most of the network
            p.data.add_(0.02 * torch.randn(p.shape, generator=g, device=device))
        autocast = torch.bfloat16 if precision == "bf16" else None
        self.teacher = Network(net.eval().to(device), FlowClock(1000.0, 0.0, 1.0), "flow", 1.0, autocast, Call())
        self.student = Student(copy.deepcopy(self.teacher), adaptive=True).to(device)
        self.teacher.requires_grad_(False)
        self.device, self.F = torch.device(device), self.student.network
        self.x_0, self.z = (torch.randn(batch, *shape, generator=g, device=device) for _ in range(2))
        self.t = torch.linspace(0.2, 1.5, batch, dtype=torch.float64, device=device)
        self.cond = {
            name: torch.randint(s, (batch,), generator=g, device=device)
            if isinstance(s, int)
            else torch.randn(batch, *s, generator=g, device=device)
            for name, s in conditions.items()
        }
        self.objective = Objective(1.0, 0.1, "rms", 0, "teacher")
        settings = config.Optimizer(name="adamw", lr=1e-9)
        self.optimizer, self.ema = build(self.student.parameters(), settings), PowerEMA(self.student, 0.05)
        self.blocks = blocks(self.F.net)

    def forward(self) -> None:
        """F, without a graph."""
        with torch.no_grad():
            self.F(self.x_0, self.t, self.cond)

    def _end(self, loss: Tensor) -> None:
        loss.backward()
        clip(self.student.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update(self.student, 2)

    def training(self) -> None:
        """A plain diffusion training step."""
        F, _, w = self.student(self.x_0, self.t, self.cond)
        self._end((F - self.z).square().mean() + 0 * w.sum())

    def step(self, derivative: Derivative) -> Callable[[], None]:
        """The distillation step by `derivative`."""

        def run() -> None:
            student = partial(self.student, derivative=derivative)
            loss = self.objective(student, self.teacher, self.x_0, self.z, self.t, self.cond, 1)
            self._end(loss.total)

        return run

    def part(self, derivative: Derivative) -> Callable[[], None]:
        """The student's part of a step: F, its derivative, backward."""

        def run() -> None:
            F, _ = derivative(self.F, self.x_0, self.t, self.cond, self.z)
            F.square().mean().backward()
            self.optimizer.zero_grad()

        return run

    def tangent(self, derivative: Any) -> Tensor:
        """cos t sin t dF/dt by `derivative`."""
        v = torch.randn(self.x_0.shape, generator=torch.Generator().manual_seed(1)).to(self.device)
        return derivative(self.F, self.x_0, self.t, self.cond, v)[1]  # type: ignore[no-any-return]


class Seconds(NamedTuple):
    """Of one call: until all of it is done, until it is launched, and on the device between two events."""

    whole: float
    host: float
    device: float


def timed(f: Callable[[], object], device: torch.device) -> Seconds:
    """One call; on a CPU all three times are the same."""
    if device.type != "cuda":
        start = time.perf_counter()
        f()
        whole = time.perf_counter() - start
        return Seconds(whole, whole, whole)
    torch.cuda.synchronize()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start = time.perf_counter()
    begin.record()
    f()
    end.record()
    host = time.perf_counter() - start
    torch.cuda.synchronize()
    return Seconds(time.perf_counter() - start, host, begin.elapsed_time(end) / 1e3)


def seconds(f: Callable[[], object], device: torch.device) -> float:
    """Of one call, until all of it is done."""
    return timed(f, device).whole


def busy(f: Callable[[], object]) -> dict[str, Any]:
    """The kernels of one call: the sum of their times, and how many there are."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        f()
        torch.cuda.synchronize()
    on_device = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    kernels = [e for e in on_device if not e.is_user_annotation]  # a span over the optimizer's kernels, say
    return {"busy, ms": round(sum(e.time_range.elapsed_us() for e in kernels) / 1e3, 2), "kernels": len(kernels)}


def peak(f: Callable[[], None], device: torch.device) -> float:
    """MiB at the peak of a call above what lay there before it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        f()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        f()
    held = highest = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            highest = max(highest, held)
    return highest / 2**20


def ways(b: Bench, args: argparse.Namespace) -> dict[str, Derivative]:
    """The derivatives to compare, by name: all, or those of `args.ways`."""
    known: dict[str, Derivative] = {
        "plain": Plain(),
        "differences": Difference(0.002),
        "two passes": TwoPasses(b.blocks),
        "one pass": OnePass(b.blocks),
        "one pass, lean": OnePass(b.blocks, "lean"),
    }
    if args.compile != "off":
        known[f"one pass, compiled {args.compile}"] = OnePass(b.blocks, "fast", args.compile)
    return {name: way for name, way in known.items() if not args.ways or name in args.ways}


def measured(make: Callable[[], Made], args: argparse.Namespace) -> dict[str, Any]:
    """The figures of one network."""
    b = Bench(make, args.batch, args.device, args.precision)
    compared = ways(b, args)
    runs: dict[str, Callable[[], None]] = {"forward": b.forward, "training step": b.training}
    runs |= {name: b.step(way) for name, way in compared.items()}
    runs |= {f"student's part, {name}": b.part(compared[name]) for name in PARTS if name in compared}
    failed, table = {}, {}
    for name, run in list(runs.items()):
        try:
            run()
            table[name] = {"MiB": round(peak(run, b.device), 1)}
        except (RuntimeError, NotImplementedError) as error:  # plain forward AD lacks operators of some networks
            failed[name] = " ".join(str(error).split())[:120]
            del runs[name]
    rounds: dict[str, list[Seconds]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, run in runs.items():
            rounds[name].append(timed(run, b.device))
    times = {name: [x.whole for x in found] for name, found in rounds.items()}
    unit = min(times["forward"])
    for name, run in runs.items():
        table[name]["F"] = round(min(times[name]) / unit, 2)
        if b.device.type == "cuda":
            table[name]["host, ms"] = round(1e3 * min(x.host for x in rounds[name]), 2)
            table[name]["device, ms"] = round(1e3 * min(x.device for x in rounds[name]), 2)
            if torch.profiler.ProfilerActivity.CUDA in torch.profiler.supported_activities():
                table[name] |= busy(run)
    exact = b.tangent(Plain()) if "plain" in runs else b.tangent(tangent_pass)
    apart = {n: float((b.tangent(w) - exact).norm() / exact.norm()) for n, w in compared.items() if n in runs}
    result: dict[str, Any] = {
        "parameters": sum(p.numel() for p in b.F.parameters()), "batch": args.batch,
        "forward, ms": round(1e3 * unit, 2),
        "attention": backend(b.device, torch.bfloat16 if args.precision == "bf16" else torch.float32),
        "steps": table, "tangent against plain": {n: float(f"{e:.1e}") for n, e in apart.items()}, "failed": failed,
    }  # fmt: skip
    if "plain" in runs:
        for part in ("", "student's part, "):
            if f"{part}one pass" in times:
                ratio = min(times[f"{part}one pass"]) / min(times[f"{part}plain"])
                result[f"{part}one pass / plain"] = round(ratio, 3)
    if args.device == "cpu":  # a kernel is no product to the counter
        one = flops(b.forward)
        count: dict[str, Callable[[], Any]] = {"tangent pass": lambda: b.tangent(tangent_pass)}
        count |= {name: runs[name] for name in ("plain", "one pass", "one pass, lean") if name in runs}
        result["FLOPs, F"] = {name: round(flops(f) / one, 3) for name, f in count.items()}
        result["attention's share"] = round(share(b) / one, 3)
    x, t = b.x_0[:1], b.t[:1]
    c = {k: v[:1] for k, v in b.cond.items()}
    double = {k: v.repeat(2, *[1] * (v.ndim - 1)) for k, v in c.items()}
    with torch.no_grad():
        two = min(seconds(lambda: [b.F(x, t, c) for _ in range(2)] and None, b.device) for _ in range(args.rounds))
        guided = min(
            seconds(lambda: b.F(x.repeat(2, *[1] * (x.ndim - 1)), t.repeat(2), double), b.device)
            for _ in range(args.rounds)
        )
    result["two-step latency, ms"] = round(1e3 * two, 2)
    result["50 guided steps / two steps"] = round(50 * guided / two, 1)
    return result


def share(b: Bench) -> float:
    """FLOPs of attention's two products in a forward."""
    total = 0

    class Count(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal total
            if func is nn.functional.scaled_dot_product_attention:
                q, k, v = args[:3] if len(args) >= 3 else (args + tuple(kwargs.values()))[:3]
                total += 2 * q[..., 0].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1])
            return func(*args, **(kwargs or {}))

    with Count():
        b.forward()
    return total


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cuda = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--size", choices=("small", "real"), default="small")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--compile", choices=("off", "blocks", "step"), default="off")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--ways", nargs="+", help="names of the derivatives that are compared; all without it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="part of a network's name")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    machine = f"{platform.machine()}, {torch.get_num_threads()} thread(s)"
    if args.device != "cpu":
        machine = torch.cuda.get_device_name()
    facts: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": machine,
        "versions": {name: version(name) for name in ("torch", "diffusers")},
        "precision": args.precision,
    }  # fmt: skip
    facts["networks"] = {}
    for name, made in networks(args.size).items():
        if args.only is None or args.only in name:
            facts["networks"][name] = measured(made, args)
            print(json.dumps({name: facts["networks"][name]}, indent=1), flush=True)
    if args.out:
        args.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
