"""Estimates the memory of a run before anything is allocated on its device: weights are counted, a step is traced.

The real step (objective, derivative, backward) runs on fake tensors, which have shapes, dtypes and a device but no
contents, while the size of every storage is counted as long as it lives. Integers and masks stay real, since networks
read lengths off them. A network that needs contents all the same is measured, on 1 and 2 real samples.
"""

from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any, Literal

import psutil
import torch
from torch import Tensor, nn

from scm_distill import config
from scm_distill.autodiff import attention
from scm_distill.autodiff.derivatives import Derivative, Difference, Memory, OnePass, TwoPasses, tangent_pass
from scm_distill.autodiff.dual import blocks
from scm_distill.autodiff.torch_private import FakeTensorMode
from scm_distill.errors import UserError
from scm_distill.maths.cond import Cond
from scm_distill.memory import out_of_memory
from scm_distill.models.network import Network
from scm_distill.models.student import Student
from scm_distill.objectives.scm import Objective
from scm_distill.training import batches, optimizer
from scm_distill.training.memory.trace import AllocationTracker, Peak, fake_copy
from scm_distill.training.student import shares

ROOM = 0.92  # of the free memory may be planned for: the rest is workspaces and what the allocator cannot reuse
NARROWER = {"fp32": 1, "bf16": 2, "int8": 4}  # how often a teacher's weight fits in a float32 one, by teacher.dtype

Work = Literal["step", "evaluation", "check"]  # of training, of the teacher without a graph, of the first JVP
MakeDerivative = Callable[[list[nn.Module], Memory], Derivative]


def gib(n: float) -> str:
    """A number of bytes in GiB or MiB, in three digits."""
    return f"{n / 2**30:.3g} GiB" if n >= 2**30 else f"{n / 2**20:.3g} MiB"


@dataclass(frozen=True)
class Plan:
    """Bytes of one process by phase and part, and how activations were found: traced, or measured."""

    phases: dict[str, dict[str, int]]
    how: str

    @property
    def phase(self) -> str:
        """The phase that takes most."""
        return max(self.phases, key=lambda name: sum(self.phases[name].values()))

    @property
    def parts(self) -> dict[str, int]:
        """Bytes by part in that phase."""
        return self.phases[self.phase]

    @property
    def total(self) -> int:
        """The peak, in bytes."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {gib(n)}" for name, n in self.parts.items() if n)
        return f"{gib(self.total)} in {self.phase} ({parts}; {self.how})"


def available(device: torch.device) -> int:
    """The bytes that this process may use on `device`: the free ones, and those that it has allocated already."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    return int(psutil.virtual_memory().available + psutil.Process().memory_info().rss)


def _size(module: nn.Module) -> int:
    return sum(x.nbytes for x in (*module.parameters(), *module.buffers()))


@dataclass
class Planner:
    """Estimates for the student `network` and its teacher; neither is moved or changed, both may be on the meta device.

    Of the probe x (B, ...), t (B,) and cond only shapes, dtypes and integers count. The student must not be wrapped for
    training yet; `device` is the one of the run. Parameters that both networks share are counted once.
    """

    network: Network
    F_teacher: Network
    x: Tensor
    t: Tensor
    cond: Cond
    device: torch.device
    world: int = 1  # processes
    _peaks: dict[tuple[Work, int, str, str], tuple[Peak, str]] = field(default_factory=dict)
    _updates: dict[str, int] = field(default_factory=dict)  # by optimizer

    def estimate(self, recipe: config.Recipe, memory: Memory | None = None, world: int | None = None) -> Plan:
        """The peak of a run in `world` processes; where train.memory is auto, of `memory` or the fast layout."""
        s, world = recipe.train, world or self.world
        micro, memory = batches.micro_batch(recipe, world), s.memory if s.memory != "auto" else memory or "fast"
        resident = self.resident(recipe, world)
        step, how = self._trace("step", recipe, micro, memory)
        without_graph = batches.evaluation_batch(micro, memory)
        forward, _ = self._trace("evaluation", recipe, min(without_graph, s.evaluate_samples), memory)
        phases = {
            "backward": resident | {"activations": step.bare},
            "optimizer step": resident | {"activations": self._update(recipe) // self._share(recipe, world)},
            "evaluation": resident
            | {"activations": forward.bare, "ema": self._ema(recipe, world)},  # no longer offloaded
        }
        if world == 1 and s.batch_size == micro:  # no buckets of DDP and no accumulation: gradients come and go
            phases["backward"] |= {"gradients": step.gradients, "activations": step.total - step.gradients}
        if world == 1 or s.shard != "off":
            phases["evaluation"]["gradients"] = 0
        if recipe.objective.tangent != "difference":
            check, _ = self._trace("check", recipe, min(without_graph, len(self.x)), memory)
            phases["check"] = resident | {"gradients": 0, "optimizer": 0, "activations": check.bare}
        return Plan(phases, how)

    def resident(self, recipe: config.Recipe, world: int | None = None) -> dict[str, int]:
        """The bytes of weights and states that stay on the device of one of `world` processes, by part.

        Of a student trained whole in float32 beside a float32 teacher they are 24 a parameter: teacher 4, student 4,
        gradients 4, two moments 8, EMA 4.
        """
        world = world or self.world
        share, size = self._share(recipe, world), _size(self.network)
        of_teacher = {id(p) for p in self.F_teacher.parameters()} if shares(recipe) else set()
        shared = sum(p.nbytes for p in self.network.parameters() if id(p) in of_teacher)
        trained = sum(p.nbytes for p in self.network.parameters() if p.requires_grad) // share
        gathered = 0
        if recipe.train.shard != "off":  # two blocks, the rest, and a block's gradients, before and after packing
            sizes = [_size(block) for block in blocks(self.network.net)]
            gathered = size - sum(sizes) + 4 * max(sizes, default=0)
        return {
            "student": (size - shared) // share,
            "gradients": trained,
            "optimizer": 2 * trained,
            "ema": self._ema(recipe, world) if "ema" not in self._offloaded(recipe) else 2 * self._largest(),
            "teacher": self._teacher(recipe, world) // NARROWER[recipe.teacher.dtype],
            "gathered": gathered,
        }

    def _share(self, recipe: config.Recipe, world: int) -> int:
        """Among how many processes the student is sharded."""
        return world if recipe.train.shard != "off" else 1

    def _offloaded(self, recipe: config.Recipe) -> tuple[str, ...]:
        """What waits in host memory: nothing, where that is the device's own."""
        return () if self.device.type == "cpu" else recipe.train.offload

    def _ema(self, recipe: config.Recipe, world: int) -> int:
        """The bytes of the EMA on a device; it has parameters of its own for those that are trained, or for all."""
        whole = recipe.train.shard != "off" or "ema" in recipe.train.offload
        frozen = sum(p.nbytes for p in self.network.parameters() if not p.requires_grad)
        return _size(self.network) // self._share(recipe, world) if whole else _size(self.network) - frozen

    def _largest(self) -> int:
        """The bytes of the largest parameter that is trained: an offloaded EMA has two tensors on the device."""
        return max((p.nbytes for p in self.network.parameters() if p.requires_grad), default=0)

    def _teacher(self, recipe: config.Recipe, world: int) -> int:
        """The float32 bytes of the teacher on a device: all, a shard, or two layers of one that is offloaded."""
        if "teacher" in self._offloaded(recipe):
            return 2 * max(sum(p.nbytes for p in m.parameters(recurse=False)) for m in self.F_teacher.modules())
        return _size(self.F_teacher) // (world if recipe.train.shard == "all" else 1)

    def fit(self, recipe: config.Recipe, free: int) -> Memory:
        """The recipe's memory layout; train.memory=auto is fast if that needs no more than ROOM of the `free` bytes."""
        setting = recipe.train.memory
        fits = setting == "auto" and self.estimate(recipe, "fast").total <= ROOM * free
        return "fast" if fits or setting == "fast" else "lean"

    def advice(self, recipe: config.Recipe, memory: Memory | None = None) -> list[tuple[str, int]]:
        """Single settings that lower the peak, and by how many bytes, most first.

        Where train.memory is auto, the peak is that of `memory`.
        """
        s, micro = recipe.train, batches.micro_batch(recipe, self.world)
        more = self.world if self.world > 1 else max(2, torch.cuda.device_count())
        changes = ["train.memory=lean", "train.precision=bf16"]
        changes += ["teacher.dtype=bf16"] if self.F_teacher.prediction != "epsilon" else []  # else refused
        changes += [f"train.micro_batch_size={micro // 2}"] if micro > 1 else []
        changes += [f"train.offload=[{', '.join([*s.offload, x])}]" for x in ("ema", "teacher") if x not in s.offload]
        changes += [f"train.shard={x}" for x in ("student", "all") if s.shard not in (x, "all")]
        now, ranked = self.estimate(recipe, memory).total, []
        for change in changes:
            world = more if "shard" in change else self.world
            with suppress(UserError):  # settings that do not go together
                other = config.parse(recipe.model_dump(mode="json"), [change])
                saved = now - self.estimate(other, memory, world).total
                ranked.append((change + f" with --num-processes {world}" * (world != self.world), saved))
        return sorted(((change, n) for change, n in ranked if n > 0), key=lambda pair: -pair[1])

    def _update(self, recipe: config.Recipe) -> int:
        """The bytes of the temporary tensors of an optimizer step."""
        if (name := recipe.optimizer.name) not in self._updates:
            with FakeTensorMode(allow_non_fake_inputs=True):
                parameters = [nn.Parameter(torch.empty(p.shape)) for p in self.network.parameters() if p.requires_grad]
            for p in parameters:
                p.grad = torch.empty_like(p)
            traced = optimizer.build(parameters, recipe.optimizer)
            if name == "radam":  # PyTorch's own choice, which it does not make for fake tensors
                traced.param_groups[0]["foreach"] = self.device.type == "cuda"
            with AllocationTracker(fake=True) as tracker:
                traced.step()  # makes the moments
                moments, tracker.peak = tracker.now, Peak()
                traced.step()
            self._updates[name] = max(0, tracker.peak.total - moments)
        return self._updates[name]

    def _trace(self, work: Work, recipe: config.Recipe, n: int, memory: Memory) -> tuple[Peak, str]:
        """The peak of `work` on n samples, and how it was found: traced with a derivative that works, else measured."""
        key = work, n, recipe.train.precision if work != "check" else "", memory if work == "step" else ""
        difference = recipe.objective.tangent == "difference"
        makers: list[MakeDerivative] = [lambda *_: Difference(1e-3)] if difference else [OnePass, TwoPasses]
        problem: Exception | None = None
        for fake, maker in product((True, False), makers * (key not in self._peaks)):
            try:
                peaks = [self._run(work, recipe, k, memory, maker, fake=fake) for k in ([n] if fake else [1, 2])]
                pairs = zip(peaks[0], peaks[-1], strict=True)
                scaled = Peak(*(one + (n - 1) * max(0, two - one) for one, two in pairs))
                self._peaks[key] = scaled, "traced" if fake else "measured on 1 and 2 samples"
                break
            except Exception as error:  # whatever an operator does not like, as in `derivative.choose`
                if out_of_memory(error):
                    raise
                problem = error
        if key not in self._peaks:
            raise RuntimeError("The memory of a step could not be found.") from problem
        return self._peaks[key]

    def _run(
        self, work: Work, recipe: config.Recipe, n: int, memory: Memory, maker: MakeDerivative, *, fake: bool
    ) -> Peak:
        """The peak of `work` on n samples, fake ones or real ones; gradients and hooks are removed after it."""
        at_hand = self.device if torch.cuda.is_available() else torch.device("cpu")  # else PyTorch's backward crashes
        device = at_hand if fake else self.x.device
        narrow = torch.bfloat16 if recipe.train.precision == "bf16" else None
        o, network, F_teacher = recipe.objective, self.network, self.F_teacher
        mode: Any = FakeTensorMode(allow_non_fake_inputs=True) if fake else nullcontext()
        if fake:
            network = fake_copy(network, mode, device).with_autocast(None if work == "check" else narrow).with_chunk(n)
            F_teacher = fake_copy(F_teacher, mode, device).with_chunk(n)
            F_teacher = F_teacher.with_autocast(None if F_teacher.prediction == "epsilon" else narrow)
        with mode, device:
            student = Student(network, adaptive=o.weighting == "adaptive")
        derived = partial(student, derivative=maker(blocks(network.net), memory))
        tracker = AllocationTracker(fake=fake)
        trained = [p for p in student.parameters() if p.requires_grad]
        handles = [p.register_post_accumulate_grad_hook(tracker.add_gradient) for p in trained]

        def rows(v: Tensor) -> Tensor:
            """n rows like those of v (B, ...)."""
            if fake and (v.is_floating_point() or v.is_meta):
                return torch.empty((n, *v.shape[1:]), dtype=v.dtype, device=device)
            return v[torch.arange(n, device=v.device) % len(v)].to(device)

        try:
            noise = torch.full((n,), F_teacher.clock.t_max)  # the times of fake samples are not known
            with (
                attention.first_chunks(2) if fake else nullcontext(),
                F_teacher.knowing(noise if fake else None),
                mode,
                tracker,
            ):
                x, t, cond = rows(self.x), rows(self.t), {name: rows(v) for name, v in self.cond.items()}
                if work == "step":
                    objective = Objective(o.sigma_d, o.c, o.normalization, o.warmup_steps, o.velocity)
                    objective(derived, F_teacher, x, x.clone(), t, cond, 0).total.backward()
                elif work == "check":
                    tangent_pass(network, x, t, cond, x.clone())
                else:
                    F_teacher(x, t, cond)
        finally:
            for handle in handles:
                handle.remove()
            student.zero_grad()
        return tracker.peak
