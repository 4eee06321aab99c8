"""What a run takes of a device's memory, before anything is allocated there: weights are counted, a step is traced.

The real step (objective, derivative, backward) runs on fake tensors, which have shapes, dtypes and a device but no
contents, while every storage is counted from its birth to its death. Integers and masks stay real, since networks read
lengths off them. A network that needs contents all the same is measured, on 1 and 2 real samples.
"""

from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Any
from unittest import mock

import psutil  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn

from scm_distill import config
from scm_distill.autodiff import attention
from scm_distill.autodiff.derivatives import Difference, Memory, OnePass, TwoPasses, tangent_pass
from scm_distill.autodiff.dual import blocks
from scm_distill.autodiff.torch_private import FakeTensorMode
from scm_distill.errors import UserError
from scm_distill.maths.cond import Cond
from scm_distill.models.network import Network
from scm_distill.models.student import Student
from scm_distill.objectives.scm import Objective
from scm_distill.training import batches, optimizer
from scm_distill.training.memory.trace import AllocationTracker, Peak, fake_copy
from scm_distill.training.student import shares

ROOM = 0.92  # of the free memory may be planned for: the rest is workspaces and what the allocator cannot reuse


def gib(n: float) -> str:
    """Bytes for people, in three digits."""
    return f"{n / 2**30:.3g} GiB" if n >= 2**30 else f"{n / 2**20:.3g} MiB"


@dataclass(frozen=True)
class Plan:
    """Bytes of one process by phase and part, and how they were found."""

    phases: dict[str, dict[str, int]]
    how: str

    @property
    def phase(self) -> str:
        """The one with the peak."""
        return max(self.phases, key=lambda name: sum(self.phases[name].values()))

    @property
    def parts(self) -> dict[str, int]:
        """What the peak is made of."""
        return self.phases[self.phase]

    @property
    def total(self) -> int:
        """The peak."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {gib(n)}" for name, n in self.parts.items() if n)
        return f"{gib(self.total)} in {self.phase} ({parts}; {self.how})"


def available(device: torch.device) -> int:
    """The bytes that this process may have on `device`: the free ones, and those that it holds."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    return int(psutil.virtual_memory().available + psutil.Process().memory_info().rss)


def _size(module: nn.Module) -> int:
    return sum(x.nbytes for x in (*module.parameters(), *module.buffers()))


@dataclass
class Planner:
    """Estimates for a student and its teacher; neither is moved or changed, both may be on the meta device.

    Of the probe x, t (B, ...) and cond (B, ...) only shapes, dtypes and integers count. The student must not be wrapped
    yet; `device` is the one of the run. Parameters that both have are counted once.
    """

    network: Network
    F_teacher: Network
    x: Tensor
    t: Tensor
    cond: Cond
    device: torch.device
    world: int = 1
    _peaks: dict[Any, tuple[Peak, str]] = field(default_factory=dict)

    def estimate(self, recipe: config.Recipe, memory: Memory | None = None, world: int | None = None) -> Plan:
        """The peak of a run; where train.memory is auto, of `memory` or the fast layout."""
        s, world = recipe.train, world or self.world
        micro, sharded = batches.micro_batch(recipe, world), s.shard != "off"
        memory = s.memory if s.memory != "auto" else memory or "fast"
        share, whole, own = world if sharded else 1, _size(self.F_teacher), _size(self.network)
        teachers = {id(p) for p in self.F_teacher.parameters()} if shares(recipe) else set()
        shared = sum(p.nbytes for p in self.network.parameters() if id(p) in teachers)
        frozen = sum(p.nbytes for p in self.network.parameters() if not p.requires_grad)
        ema = own // share if sharded or "ema" in s.offload else own - frozen
        trained = sum(p.nbytes for p in self.network.parameters() if p.requires_grad) // share
        there = whole // (world if s.shard == "all" else 1)
        away = () if self.device.type == "cpu" else s.offload  # where the device is the host, nothing can be
        if "teacher" in away:
            there = 2 * max(sum(p.nbytes for p in m.parameters(recurse=False)) for m in self.F_teacher.modules())
        held = {
            "student": (own - shared) // share,
            "gradients": trained,
            "optimizer": 2 * trained,
            "ema": 0 if "ema" in away else ema,
            "teacher": there // {"fp32": 1, "bf16": 2, "int8": 4}[recipe.teacher.dtype],
            "gathered": 0,
        }
        if sharded:  # two blocks, the rest, and a block's gradients twice, before and after they are packed
            sizes = [_size(block) for block in blocks(self.network.net)]
            held["gathered"] = own - sum(sizes) + 4 * max(sizes, default=0)
        step, how = self._trace("step", recipe, micro, memory)
        at_once = batches.evaluation_batch(micro, memory)
        forward, _ = self._trace("evaluation", recipe, min(at_once, s.evaluate_samples), memory)
        phases = {
            "backward": held | {"activations": step.bare},
            "optimizer step": held | {"activations": self._update(recipe) // share},
            "evaluation": held | {"activations": forward.bare, "ema": ema},  # it comes back for that
        }
        if world == 1 and s.batch_size == micro:  # no buckets of DDP and no accumulation: gradients come and go
            phases["backward"] |= {"gradients": step.gradients, "activations": step.total - step.gradients}
        if world == 1 or sharded:
            phases["evaluation"]["gradients"] = 0
        if recipe.objective.tangent != "difference":
            check, _ = self._trace("check", recipe, min(at_once, len(self.x)), memory)
            phases["check"] = held | {"gradients": 0, "optimizer": 0, "activations": check.bare}
        return Plan(phases, how)

    def fit(self, recipe: config.Recipe, free: int) -> Memory:
        """What train.memory=auto means: fast, if that needs no more of the `free` bytes than ROOM."""
        wanted = recipe.train.memory
        fits = wanted == "auto" and self.estimate(recipe, "fast").total <= ROOM * free
        return "fast" if fits or wanted == "fast" else "lean"

    def advice(self, recipe: config.Recipe, memory: Memory | None = None) -> list[tuple[str, int]]:
        """Single changes that lower the peak (of `memory` where train.memory is auto) and by how many bytes; ranked."""
        s, micro = recipe.train, batches.micro_batch(recipe, self.world)
        more = self.world if self.world > 1 else max(2, torch.cuda.device_count())
        changes = ["train.memory=lean", "train.precision=bf16"]
        changes += ["teacher.dtype=bf16"] if self.F_teacher.prediction != "epsilon" else []  # which frozen.py refuses
        changes += [f"train.micro_batch_size={micro // 2}"] if micro > 1 else []
        changes += [f"train.offload=[{', '.join([*s.offload, x])}]" for x in ("ema", "teacher") if x not in s.offload]
        changes += [f"train.shard={x}" for x in ("student", "all") if s.shard not in (x, "all")]
        now, found = self.estimate(recipe, memory).total, []
        for change in changes:
            world = more if "shard" in change else self.world
            with suppress(UserError):  # settings that do not go together
                other = config.parse(recipe.model_dump(mode="json"), [change])
                saved = now - self.estimate(other, memory, world).total
                found.append((change + f" with --num-processes {world}" * (world != self.world), saved))
        return sorted(((change, n) for change, n in found if n > 0), key=lambda pair: -pair[1])

    def _update(self, recipe: config.Recipe) -> int:
        """The bytes that a step of the optimizer makes and drops."""
        if (name := recipe.optimizer.name) not in self._peaks:
            with FakeTensorMode(allow_non_fake_inputs=True):
                made = [nn.Parameter(torch.empty(p.shape)) for p in self.network.parameters() if p.requires_grad]
            for p in made:
                p.grad = torch.empty_like(p)
            stepped = optimizer.build(made, recipe.optimizer)
            if name == "radam":  # PyTorch's own choice, which it does not make for fake tensors
                stepped.param_groups[0]["foreach"] = self.device.type == "cuda"
            with AllocationTracker(fake=True) as live:
                stepped.step()  # makes the moments
                kept, live.peak = live.now, Peak()
                stepped.step()
            self._peaks[name] = Peak(max(0, live.peak.total - kept)), "traced"
        return self._peaks[name][0].total

    def _trace(self, what: str, recipe: config.Recipe, n: int, memory: Memory) -> tuple[Peak, str]:
        """The peak of a "step", an "evaluation" or the first "check" on n samples, by the first way that works."""
        key = what, n, recipe.train.precision if what != "check" else "", memory if what == "step" else ""
        difference = recipe.objective.tangent == "difference"
        ways: list[Any] = [lambda *_: Difference(1e-3)] if difference else [OnePass, TwoPasses]
        problem: Exception | None = None
        for fake, way in product((True, False), ways * (key not in self._peaks)):
            try:
                peaks = [self._run(what, recipe, k, memory, way, fake=fake) for k in ([n] if fake else [1, 2])]
                pairs = zip(peaks[0], peaks[-1], strict=True)
                scaled = Peak(*(one + (n - 1) * max(0, two - one) for one, two in pairs))
                self._peaks[key] = scaled, "traced" if fake else "measured on 1 and 2 samples"
                break
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever an operator does not like, as in `derivative.choose`
                problem = error
        if key not in self._peaks:
            raise RuntimeError("The memory of a step could not be found.") from problem
        return self._peaks[key]

    def _run(self, what: str, recipe: config.Recipe, n: int, memory: Memory, way: Any, *, fake: bool) -> Peak:
        here = self.device if torch.cuda.is_available() else torch.device("cpu")  # else PyTorch dies of the backward
        device = here if fake else self.x.device
        narrow = torch.bfloat16 if recipe.train.precision == "bf16" else None
        o, network, F_teacher = recipe.objective, self.network, self.F_teacher
        mode: Any = FakeTensorMode(allow_non_fake_inputs=True) if fake else nullcontext()
        if fake:
            network, F_teacher = fake_copy(network, mode, device), fake_copy(F_teacher, mode, device)
            network.autocast = None if what == "check" else narrow
            F_teacher.autocast = None if F_teacher.prediction == "epsilon" else narrow
            network.chunk = F_teacher.chunk = n
        with mode, device:
            student = Student(network, adaptive=o.weighting == "adaptive")
        student.derivative = way(blocks(network.net), memory)
        live = AllocationTracker(fake=fake)
        trained = [p for p in student.parameters() if p.requires_grad]
        handles = [p.register_post_accumulate_grad_hook(live.own) for p in trained]
        parts = attention._parts  # of which two chunks have the peak of all
        few = mock.patch.object(attention, "_parts", lambda q, k: islice(parts(q, k), 2)) if fake else nullcontext()

        def rows(v: Tensor) -> Tensor:
            if fake and (v.is_floating_point() or v.is_meta):
                return torch.empty((n, *v.shape[1:]), dtype=v.dtype, device=device)
            return v[torch.arange(n, device=v.device) % len(v)].to(device)

        try:
            with few, mode, live:
                x, t, cond = rows(self.x), rows(self.t), {name: rows(v) for name, v in self.cond.items()}
                if what == "step":
                    objective = Objective(o.sigma_d, o.c, o.normalization, o.warmup_steps, o.velocity)
                    objective(student, F_teacher, x, x.clone(), t, cond, 0).total.backward()
                elif what == "check":
                    tangent_pass(network, x, t, cond, x.clone())
                else:
                    F_teacher(x, t, cond)
        finally:
            for handle in handles:
                handle.remove()
            student.zero_grad()
        return live.peak
