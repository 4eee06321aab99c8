"""The run: Algorithm 1 step by step, with checkpoints, comparisons with the teacher, and reasons to stop."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor

from scm_distill import config, data
from scm_distill.errors import UserError
from scm_distill.models import adapt
from scm_distill.models.ema import PowerEMA
from scm_distill.models.student import Cond, Network, Student
from scm_distill.objectives import Loss
from scm_distill.objectives.scm import Objective
from scm_distill.training import build, checkpoint, dataset, derivative, optimizer, prefit, records, signals
from scm_distill.training.compare import Comparison, Figures
from scm_distill.training.given import on
from scm_distill.training.report import Reporter

UNMOVED = 1e-12  # relative change of the parameters' sums; within the learning rate's warm-up it may round to nothing
WAIT = timedelta(days=2)  # that the other processes wait for the first one, while it draws or encodes the data
Batch = tuple[Tensor, Tensor, Tensor, Cond]  # x_0, z, t, cond


@dataclass(frozen=True)
class Trained:
    """The end of a run: the EMA student and what its export needs."""

    recipe: config.Recipe
    parts: build.Parts
    prepared: dataset.Prepared
    student: Network
    step: int


class Training:
    """One process's share of a run in `out`, which exists, from the checkpoint `resume` or afresh. Raises UserError."""

    def __init__(self, recipe: config.Recipe, out: Path, resume: Path | None, report: Reporter) -> None:
        self.recipe, self.out, self.report, self.last = recipe, out, report, resume
        state = checkpoint.read_state(resume) if resume else None
        if state:
            _same_student(recipe, state, resume)
        dataset.check_paths(recipe)
        self.accelerator = _accelerator(recipe)
        self.device = self.accelerator.device
        self.parts = build.open_parts(recipe, self.device)
        self.F_teacher = self.parts.F_teacher.to(self.device)
        self.draws = build.draws(recipe, self.parts, self.accelerator.process_index, self.accelerator.num_processes)
        d = self.draws
        self.F_teacher.chunk = 4 * d.micro  # no activations are kept there, so four times a training batch fits too
        report.say(
            f"processes {d.world}, device {self.device.type}, {recipe.train.precision}, global batch {d.batch} = "
            f"{d.world} x {d.batch // d.world // d.micro} x {d.micro} (processes, accumulation, images), "
            f"{sum(p.numel() for p in self.F_teacher.parameters()):,} parameters"
        )
        self.prepared = dataset.prepare(recipe, self.parts, out, self.accelerator, report)
        self.data, self.given = self.prepared.data, self.prepared.given
        report.say(f"data: {len(self.data):,} samples")

        x_t, t, cond = build.probe(self.parts, self.data, self.given, d, self.device)
        adapt.prepare(self.F_teacher, x_t, t, cond)
        build.keep_time_exact(self.F_teacher, recipe, x_t, t, cond, report)
        if state:
            self.width = float(state["smooth_time"])
            adapt.set_width(self.F_teacher.net, self.width)
        else:
            self.width = build.smooth(self.parts, x_t, t, cond, recipe, report)
        student = Student(
            build.new_student(self.parts, recipe, x_t, t, cond, report),
            adaptive=recipe.objective.weighting == "adaptive",
        )
        self.network = student.network
        self.student = self.accelerator.prepare(student)
        if not state and self.network.prediction != self.F_teacher.prediction:
            self._prefit(x_t, t, cond)
        self.optimizer = self.accelerator.prepare(optimizer.build(student.parameters(), recipe.optimizer))
        self.ema: PowerEMA[Student] = PowerEMA(student, recipe.train.ema_std)
        self.step = 0
        if resume and state:
            checkpoint.load(self.accelerator, resume, self.ema)
            self.step = int(state["step"])
            report.say(f"resumed {resume} at step {self.step}")
        self.start = state["start"] if state else self._fingerprint()

        with torch.no_grad():
            dxdt = self.network.sigma_d * self.F_teacher(x_t / self.network.sigma_d, t, cond)
        o = recipe.objective
        self.derivative, found = derivative.choose(
            o.tangent, recipe.train.precision, self.network, x_t, dxdt, t, cond, build.difference_step(self.parts, o)
        )
        report.say(found)
        self.comparison: Comparison = build.comparison(recipe, self.parts, self.given, self.device)
        self.records = records.Records(out, self.step, main=self.accelerator.is_main_process)

    def train(self) -> Trained:
        """Step until recipe.train.steps. Raises UserError on a failing run, signals.Interrupted on a signal."""
        settings, o = self.recipe.train, self.recipe.objective
        objective = Objective(o.sigma_d, o.c, o.normalization, o.warmup_steps, o.velocity)
        batches = self._batches("train", settings.seed, self.step)
        if self.last is None:
            self.last = self._save()
        if self._due():  # a resumed run too: its evaluation may have been what failed, or was cut off
            self._evaluate()
        with signals.held_back() as received:
            self.report.begin("distil", settings.steps, self.step)
            while self.step < settings.steps:
                losses, grad_norm = self._optimizer_step(objective, next(batches))
                self.step += 1
                self.ema.update(self.accelerator.unwrap_model(self.student), self.step)
                stop = self._log(losses, grad_norm, received)
                if stop or self.step % settings.checkpoint_every == 0 or self.step == settings.steps:
                    self.last = self._save()
                    if stop:
                        raise signals.Interrupted(stop, self.last)
                if self._due():
                    self._evaluate()
            self.report.end()
            if received:
                raise signals.Interrupted(received[0], self.last)
        return Trained(self.recipe, self.parts, self.prepared, self.ema.module.network, self.step)

    def _due(self) -> bool:
        return self.step % self.recipe.train.evaluate_every == 0 or self.step >= self.recipe.train.steps

    def _batches(self, purpose: str, seed: int, first: int) -> Iterator[list[Batch]]:
        """The micro-batches of this process for step `first`, `first` + 1, ..."""
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
                cond = on(self.given(ids, chance), device)
                step.append((x_0.to(device), z.to(device), t.to(device), cond))
            yield step
            first += 1

    def _optimizer_step(self, objective: Objective, batches: list[Batch]) -> tuple[list[Loss], float]:
        settings, losses = self.recipe.optimizer, []
        for group in self.optimizer.param_groups:
            group["lr"] = optimizer.lr(self.step, self.recipe.train.steps, settings)
        for i, (x_0, z, t, cond) in enumerate(batches):
            last = i == len(batches) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.student):
                loss = objective(
                    self.student, self.network, self.F_teacher, self.derivative, x_0, z, t, cond, self.step
                )
                self.accelerator.backward(loss.total / len(batches))
            losses.append(loss)
        limit = math.inf if settings.grad_clip is None else settings.grad_clip
        grad_norm = float(self.accelerator.clip_grad_norm_(self.student.parameters(), limit))
        if math.isfinite(grad_norm):  # else the weights stay as they were, and _log stops the run
            self.optimizer.step()
        self.optimizer.zero_grad()
        return losses, grad_norm

    def _log(self, losses: list[Loss], grad_norm: float, received: list[int]) -> int:
        """Write a line of metrics; return the signal that any process got. Raises when a figure is not finite."""
        loss = torch.stack([x.total.detach() for x in losses]).mean().float()
        signal = torch.tensor(float(received[0] if received else 0), device=self.device)
        gathered: Any = self.accelerator.gather(torch.stack([loss, signal])[None])
        columns = {k: self.accelerator.gather(v) for k, v in records.columns_of(losses).items()}
        figures = {"loss": float(gathered[:, 0].mean()), "grad_norm": grad_norm}
        lr = self.optimizer.param_groups[0]["lr"]
        self.records.write({"step": self.step, **figures, "lr": lr, **records.buckets(columns)})
        for name, value in figures.items():
            if not math.isfinite(value):
                fix = f"Lower optimizer.lr and --resume {self.last}."
                raise UserError(f"The {name} is {value} at step {self.step}.", fix, code=1)
        self.report.advance(self.step, figures)
        return int(gathered[:, 1].max())

    def _evaluate(self) -> None:
        """Compare the EMA student with its teacher, save a preview, and stop a run that fails by these figures."""
        student, (one, two) = self.comparison.measure(self.ema.module.network)
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
        if self.step > self.recipe.optimizer.warmup_steps and self._moved() < UNMOVED:
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
        state = {"step": self.step, "smooth_time": self.width, "start": self.start, "made_with": _identity(self.recipe)}
        folder, keep = self.out / "checkpoints", self.recipe.train.keep_checkpoints
        return checkpoint.save(self.accelerator, folder, self.ema, state, keep)

    def _fingerprint(self) -> list[float]:
        """The float64 sum of every parameter: it shows whether a single entry of it moved."""
        sums = [p.detach().sum(dtype=torch.float64) for p in self.network.parameters()]
        return torch.stack(sums).tolist()

    def _moved(self) -> float:
        """The relative change of the parameters since step 0, over their fingerprints."""
        now, start = (torch.tensor(x, dtype=torch.float64) for x in (self._fingerprint(), self.start))
        return float((now - start).norm() / start.norm())

    def _prefit(self, x_t: Tensor, t: Tensor, cond: Cond) -> None:
        settings = self.recipe.adapt
        before = prefit.relative_error(self.network, self.F_teacher, x_t, t, cond)
        prefit.fit(
            self.accelerator, self.student, self.F_teacher,
            self._batches("pre-fit", self.recipe.train.seed + 1, 0),
            total=settings.prefit_steps, lr=settings.prefit_lr, report=self.report,
        )  # fmt: skip
        after = prefit.relative_error(self.network, self.F_teacher, x_t, t, cond)
        self.report.say(f"pre-fit to v prediction: relative error of F {before:.3g} -> {after:.3g}")


def _accelerator(recipe: config.Recipe) -> Accelerator:
    """Accelerate for processes and devices only: precision and accumulation are ours, whatever its config file says."""
    # Without cpu=True, Accelerate on a machine without a GPU takes every torchrun worker for the only one.
    cpu = recipe.train.device == "cpu" or not torch.cuda.is_available()
    wait = InitProcessGroupKwargs(timeout=WAIT)
    accelerator = Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=[wait])
    if accelerator.gradient_accumulation_steps != 1:
        raise UserError(
            "Accelerate's configuration asks for gradient accumulation.",
            "Set it to 1 there, and train.micro_batch_size in the recipe.",
        )
    return accelerator


def _identity(recipe: config.Recipe) -> dict[str, Any]:
    """The settings that decide what a checkpoint's weights mean."""
    return {
        "teacher": recipe.teacher.model_dump(mode="json"),
        "objective.sigma_d": recipe.objective.sigma_d,
        "objective.weighting": recipe.objective.weighting,
        "guidance": recipe.guidance.model_dump(mode="json"),
        "adapt.output": recipe.adapt.output,
        "adapt.smooth_time": recipe.adapt.smooth_time,
    }


def _same_student(recipe: config.Recipe, state: dict[str, Any], resume: Path | None) -> None:
    for key, value in _identity(recipe).items():
        if state["made_with"][key] != value:
            raise UserError(
                f"{resume} was made with {key}={state['made_with'][key]}, the recipe says {value}.",
                "Set it back, or start a new run with -o.",
            )
