"""The run: Algorithm 1 step by step, with checkpoints, comparisons with the teacher, and reasons to stop."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scm_distill import config, data
from scm_distill.autodiff.derivatives import Memory
from scm_distill.errors import UserError
from scm_distill.maths.cond import Cond
from scm_distill.models import low_pass
from scm_distill.models.network import Network
from scm_distill.models.student import Student
from scm_distill.objectives.scm import Objective
from scm_distill.progress import Reporter
from scm_distill.training import (
    checkpoint,
    derivative,
    distributed,
    latents,
    metrics,
    networks,
    optimizer,
    prefit,
    setup,
    signals,
    source,
    teacher_weights,
)
from scm_distill.training.batches import Batch, evaluation_batch, pinned, prefetch, probe_batch, to_device
from scm_distill.training.distributed import whole
from scm_distill.training.endpoint import Comparison, Figures
from scm_distill.training.memory import out_of_memory
from scm_distill.training.memory.plan import Planner, available, gib
from scm_distill.training.metrics import DeferredMetrics
from scm_distill.training.student import new_student

NOTICED = 0.02  # share of a host's free memory that weights must take before it is planned: tracing takes seconds
UNMOVED = 1e-12  # relative change of the parameters' sums; within the learning rate's warm-up it may round to nothing


@dataclass(frozen=True)
class Trained:
    """The end of a run: the EMA student and what its export needs."""

    recipe: config.Recipe
    loaded: networks.LoadedTeacher
    data: latents.TrainingData
    student: Network
    step: int


class Training:
    """One process's share of a run in `out`, which exists, from the checkpoint `resume` or afresh. Raises UserError."""

    def __init__(self, recipe: config.Recipe, out: Path, resume: Path | None, report: Reporter) -> None:
        self.recipe, self.out, self.report, self.last = recipe, out, report, resume
        state = checkpoint.read_state(resume) if resume else None
        if state:
            checkpoint.same_student(recipe, state, resume)
        source.check_paths(recipe)
        self.accelerator = distributed.accelerator(recipe)
        self.device = self.accelerator.device
        self.loaded = networks.open_parts(recipe, self.device)
        self.F_teacher = self.loaded.F_teacher.to(self.device)
        self.draws = setup.draws(recipe, self.loaded, self.accelerator.process_index, self.accelerator.num_processes)
        d = self.draws
        self.F_teacher.chunk = probe_batch(d.micro, d.shape)  # until the layout is known
        report.say(
            f"processes {d.world}, device {self.device.type}, {recipe.train.precision}, global batch {d.batch} = "
            f"{d.world} x {d.batch // d.world // d.micro} x {d.micro} (processes, accumulation, images), "
            f"{sum(p.numel() for p in self.F_teacher.parameters()):,} parameters"
        )
        self.prepared = latents.prepare(recipe, self.loaded, out, self.accelerator, report)
        self.data, self.conditioning = self.prepared.samples, self.prepared.conditioning
        report.say(f"data: {len(self.data):,} samples")

        x_t, t, cond = setup.probe(self.loaded, self.data, self.conditioning, d, self.device)
        low_pass.prepare(self.F_teacher, x_t, t, cond)
        networks.keep_time_exact(self.F_teacher, recipe, x_t, t, cond, report)
        if state:
            self.width = float(state["smooth_time"])
            low_pass.set_width(self.F_teacher.net, self.width)
        else:
            self.width = networks.smooth(self.loaded, x_t, t, cond, recipe, report)
        shared = recipe.train.shard != "off"
        self.F_teacher.to("cpu" if shared else self.device)  # so that the whole student is never on the device then
        student = Student(
            new_student(self.loaded, recipe, x_t, t, cond, report),
            adaptive=recipe.objective.weighting == "adaptive",
        )
        self.F_teacher.to(self.device)
        self.network = student.network
        bones = distributed.meta_copies(self.network, self.F_teacher)
        self.planner = Planner(*bones, x_t / self.network.sigma_d, t, cond, self.device, d.world)
        self.memory = memory = self._layout()
        self.network.chunk = self.F_teacher.chunk = evaluation_batch(d.micro, memory)
        with out_of_memory.explained(self.planner, recipe, memory, lambda: self.last):
            teacher_weights.quantize(self.F_teacher, recipe.teacher, x_t, t, cond, report)
            self._build(student, memory, state, x_t, t, cond)

    def _layout(self) -> Memory:
        """The recipe's memory layout; `auto` is fast where that fits into what every process has."""
        free = torch.tensor([available(self.device)], device=self.device)
        least = int(distributed.min_over_ranks(self.accelerator, free))
        planned = self.device.type == "cuda" or 24 * sum(p.numel() for p in self.network.parameters()) > NOTICED * least
        if not planned:
            return "lean" if self.recipe.train.memory == "lean" else "fast"
        memory = "fast" if self.recipe.train.compile != "off" else self.planner.fit(self.recipe, least)
        self.report.say(f"memory a process: {self.planner.estimate(self.recipe, memory)}; {gib(least)} are free")
        return memory

    def _build(
        self, student: Student, memory: Memory, state: dict[str, Any] | None, x_t: Tensor, t: Tensor, cond: Cond
    ) -> None:
        """All that is needed beside the student itself; most of it on the device."""
        recipe, report = self.recipe, self.report
        self.placed = distributed.place(self.accelerator, student, self.F_teacher, recipe, x_t[:1], t[:1], cond, report)
        self.student, self.ema = self.placed.wrapped, self.placed.ema
        if "teacher" in recipe.train.offload:
            teacher_weights.offload(self.F_teacher, self.device, report)
        if not state and self.network.prediction != self.F_teacher.prediction:
            self._prefit(x_t, t, cond)
            self.ema.update(student, 1)  # all of it
        self.optimizer = optimizer.build(student.parameters(), recipe.optimizer)
        self.whole = checkpoint.TrainState(student, self.optimizer, self.ema)
        self.step = 0
        if self.last and state:
            self.whole.load(self.last)
            self.step = int(state["step"])
            report.say(f"resumed {self.last} at step {self.step}")
        self.start = state["start"] if state else self._fingerprint()

        x = x_t / self.network.sigma_d
        with torch.no_grad():
            v = self.F_teacher(x, t, cond)
        student.derivative = derivative.choose(
            derivative.Trial(self.student, student, x, t, cond, v),
            recipe, memory, self.draws.micro, networks.difference_step(self.loaded, recipe.objective), report,
        )  # fmt: skip
        self.comparison: Comparison = setup.comparison(recipe, self.loaded, self.conditioning, self.device)
        self.records = metrics.Records(self.out, self.step, main=self.accelerator.is_main_process)
        self.late = DeferredMetrics()

    def train(self) -> Trained:
        """Step until recipe.train.steps. Raises UserError on a failing run, signals.Interrupted on a signal."""
        settings, o = self.recipe.train, self.recipe.objective
        objective = Objective(o.sigma_d, o.c, o.normalization, o.warmup_steps, o.velocity)
        batches = prefetch(self._batches("train", settings.seed, self.step))
        with out_of_memory.explained(self.planner, self.recipe, self.memory, lambda: self.last):
            return self._run(objective, batches)

    def _run(self, objective: Objective, batches: Iterator[list[Batch]]) -> Trained:
        settings = self.recipe.train
        if self.last is None:
            self.last = self._save()
        if self._due():  # a resumed run too: its evaluation may have been what failed, or was cut off
            self._evaluate()
        with signals.held_back() as received:
            self.report.begin("distil", settings.steps, self.step)
            while self.step < settings.steps:
                self._optimizer_step(objective, next(batches), received)
                saves = self.step % settings.checkpoint_every == 0 or self.step == settings.steps
                stop = 0
                while len(self.late) > (0 if saves or stop or self._due() else 1):  # those of the step before this one
                    stop = max(stop, self._log(*self.late.take()))
                if stop or saves:
                    self.last = self._save()
                    if stop:
                        raise signals.Interrupted(stop, self.last)
                if self._due():
                    self._evaluate()
            self.report.end()
            if received:
                raise signals.Interrupted(received[0], self.last)
        return self._trained()

    def _trained(self) -> Trained:
        student, F_teacher = self.placed.whole(self.F_teacher, self.device, main=self.accelerator.is_main_process)
        return Trained(self.recipe, replace(self.loaded, F_teacher=F_teacher), self.prepared, student, self.step)

    def _due(self) -> bool:
        return self.step % self.recipe.train.evaluate_every == 0 or self.step >= self.recipe.train.steps

    def _batches(self, purpose: str, seed: int, first: int) -> Iterator[list[Batch]]:
        """The micro-batches of this process for step `first`, `first` + 1, ..., on the host."""
        d, device = self.draws, self.device
        loader = data.batches(
            self.data, batch=d.batch, micro=d.micro, rank=d.rank, world=d.world,
            seed=seed, first=first, workers=self.recipe.data.workers,
        )  # fmt: skip
        while True:
            step: list[Batch] = []
            for z, t, flip, chance in d.step(purpose, first):
                x_0, ids = next(loader)
                if flip.any():
                    x_0 = torch.where(flip[:, None, None, None], x_0.flip(-1), x_0)
                batch: Batch = (x_0, z, t, self.conditioning(ids, chance))
                step.append(pinned(batch) if device.type == "cuda" else batch)
            yield step
            first += 1

    def _optimizer_step(self, objective: Objective, batches: list[Batch], received: list[int]) -> None:
        """One step, launched: nothing here waits for the device. The figures follow by `self.late`."""
        settings, losses = self.recipe.optimizer, []
        for group in self.optimizer.param_groups:
            group["lr"] = optimizer.lr(self.step, self.recipe.train.steps, settings)
        for i, batch in enumerate(batches):
            x_0, z, t, cond = to_device(batch, self.device)
            with distributed.accumulating(self.accelerator, self.student, last=i == len(batches) - 1):
                loss = objective(self.student, self.F_teacher, x_0, z, t, cond, self.step)
                (loss.total / len(batches)).backward()
            losses.append(replace(loss, total=loss.total.detach()))
        limit = math.inf if settings.grad_clip is None else settings.grad_clip
        grad_norm = distributed.clip(self.student.parameters(), limit)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.ema.update(self.whole.student, self.step)
        signal = float(received[0] if received else 0)
        self.late.put(self.step, self._everywhere(metrics.columns_of(losses, grad_norm, signal)))

    def _everywhere(self, figures: Tensor) -> Tensor:
        gathered: Tensor = self.accelerator.gather(figures)
        return gathered

    def _log(self, step: int, figures: Tensor) -> int:
        """Write a line of metrics; return the signal that any process got. Raises when a figure is not finite."""
        line, signal = metrics.line_of(figures)
        lr = optimizer.lr(step - 1, self.recipe.train.steps, self.recipe.optimizer)
        shown = {name: line[name] for name in ("loss", "grad_norm")}
        self.records.write({"step": step, **shown, "lr": lr, **line})
        for name, value in shown.items():
            if not math.isfinite(value):
                fix = f"Lower optimizer.lr and --resume {self.last}."
                raise UserError(f"The {name} is {value} at step {step}.", fix, code=1)
        self.report.advance(step, shown)
        return signal

    def _evaluate(self) -> None:
        """Compare the EMA student with its teacher, save a preview, and stop a run that fails by these figures."""
        with self.ema.on(self.device) as average:
            student, (one, two) = self.comparison.measure(average.network)
        teacher: Figures = self.comparison.teacher
        self.records.write({"step": self.step, "student": asdict(student), "teacher": asdict(teacher)})
        if self.records.main:
            self.records.preview(self.step, [self.prepared.pictures(x) for x in (self.comparison.endpoint, two, one)])
        self.report.say(
            f"step {self.step}: distance to the teacher's endpoints, student (undistilled teacher): "
            f"1 step {student.one_step:.3g} ({teacher.one_step:.3g}), "
            f"2 steps {student.two_steps:.3g} ({teacher.two_steps:.3g}); "
            f"1-step RMSE {student.rmse:.3g} ({teacher.rmse:.3g})"
        )
        if any(math.isnan(value) for value in asdict(student).values()):
            fix = f"Lower optimizer.lr and --resume {self.last}."
            raise UserError(f"The student's samples are not finite at step {self.step}.", fix, code=1)
        if self.step > self.recipe.optimizer.warmup_steps and moved(self._fingerprint(), self.start) < UNMOVED:
            raise UserError(
                f"The student's parameters have not moved in {self.step} steps.",
                "Check optimizer.lr, and grad_norm in metrics.jsonl.",
                code=1,
            )
        warm = self.step > 0 and self.step >= self.recipe.objective.warmup_steps
        if self.recipe.train.stop_if_worse and warm and self.comparison.worse(student):
            raise UserError(
                f"At step {self.step}, after the warm-up, the student is worse than the teacher it started from.",
                "Lower optimizer.lr, lengthen objective.warmup_steps or raise adapt.tolerance; "
                "train.stop_if_worse=false trains on.",
                code=1,
            )

    def _save(self) -> Path:
        state = {
            "step": self.step,
            "smooth_time": self.width,
            "start": self.start,
            "made_with": checkpoint.identity(self.recipe),
        }
        folder, keep = self.out / "checkpoints", self.recipe.train.keep_checkpoints
        return checkpoint.save(self.accelerator, folder, self.whole, state, keep)

    def _fingerprint(self) -> list[float]:
        return fingerprint(self.network, self.whole.student.trained)

    def _prefit(self, x_t: Tensor, t: Tensor, cond: Cond) -> None:
        settings = self.recipe.adapt
        before = prefit.relative_error(self.student, self.F_teacher, x_t, t, cond)
        prefit.fit(
            self.accelerator, self.student, self.F_teacher,
            prefetch(self._batches("pre-fit", self.recipe.train.seed + 1, 0)),
            total=settings.prefit_steps, lr=settings.prefit_lr, report=self.report,
        )  # fmt: skip
        after = prefit.relative_error(self.student, self.F_teacher, x_t, t, cond)
        self.report.say(f"pre-fit to v prediction: relative error of F {before:.3g} -> {after:.3g}")


def fingerprint(network: Network, trained: list[str]) -> list[float]:
    """The float64 sum of every trained parameter: it shows whether a single entry of it moved.

    `trained` are names of a student, of which `network` is a part; a collective where parameters are shared out.
    """
    parameters = {f"network.{name}": p for name, p in network.named_parameters()}
    found = [parameters[name] for name in trained if name in parameters]
    return torch.stack([whole(p.detach().sum(dtype=torch.float64)) for p in found]).tolist()


def moved(now: list[float], start: list[float]) -> float:
    """The relative change from fingerprint `start` to fingerprint `now`."""
    a, b = (torch.tensor(x, dtype=torch.float64) for x in (now, start))
    return float((a - b).norm() / b.norm())
