"""The run: Algorithm 1 step by step, with checkpoints, comparisons with the teacher, and reasons to stop."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from scm_distill import config, ranks
from scm_distill.artifacts.layout import CHECKPOINTS
from scm_distill.artifacts.run_records import Endpoints, EvaluationLine
from scm_distill.errors import UserError
from scm_distill.models.network import Network
from scm_distill.objectives.scm import Objective
from scm_distill.training import checkpoint, distributed, metrics, optimizer, signals
from scm_distill.training.batches import Batch, to_device
from scm_distill.training.latents import TrainingData
from scm_distill.training.memory import out_of_memory
from scm_distill.training.networks import LoadedTeacher
from scm_distill.training.setup import Setup

UNMOVED = 1e-12  # relative change of the parameters' sums; within the learning rate's warm-up it may round to nothing


@dataclass(frozen=True)
class Trained:
    """The end of a run: the EMA student and what its export needs."""

    recipe: config.Recipe
    loaded: LoadedTeacher
    data: TrainingData
    student: Network
    step: int


class Run:
    """One process's share of a run: what moves while it is trained. `saved` is the newest checkpoint."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.step, self.saved = setup, setup.step, setup.resumed
        self.records = metrics.Records(setup.out, setup.step, setup.report, main=setup.accelerator.is_main_process)
        self.deferred = metrics.DeferredMetrics()

    def train(self) -> Trained:
        """Step until recipe.train.steps. Raises UserError on a failing run, signals.Interrupted on a signal."""
        setup, recipe, report = self.setup, self.setup.recipe, self.setup.report
        settings, o = recipe.train, recipe.objective
        objective = Objective(o.sigma_d, o.c, o.normalization, o.warmup_steps, o.velocity)
        with out_of_memory.explained(setup.planner, recipe, setup.memory, lambda: self.saved):
            batches = setup.batches.steps("train", settings.seed, self.step)
            if self.saved is None:
                self.saved = self._save()
            if self._due():  # a resumed run too: its evaluation may have been what failed, or was cut off
                self._evaluate()
            with signals.held_back() as received:
                report.begin("distil", settings.steps, self.step)
                while self.step < settings.steps:
                    self._step(objective, next(batches), received)
                    saves = self.step % settings.checkpoint_every == 0 or self.step == settings.steps
                    stop = 0
                    while len(self.deferred) > (0 if saves or stop or self._due() else 1):  # those of the step before
                        stop = max(stop, self._log(*self.deferred.take()))
                    if stop or saves:
                        self.saved = self._save()
                        if stop:
                            raise signals.Interrupted(stop, self.saved)
                    if self._due():
                        self._evaluate()
                report.end()
                if received:
                    raise signals.Interrupted(received[0], self.saved)
            main, F_teacher = setup.accelerator.is_main_process, setup.loaded.F_teacher
            student, F_teacher = setup.distributed.gather(F_teacher, setup.device, main=main)
        return Trained(recipe, replace(setup.loaded, F_teacher=F_teacher), setup.data, student, self.step)

    def _due(self) -> bool:
        """Whether the student is compared with its teacher at this step."""
        return self.step % self.setup.recipe.train.evaluate_every == 0 or self.step >= self.setup.recipe.train.steps

    def _step(self, objective: Objective, batches: list[Batch], received: list[int]) -> None:
        """One step, launched: nothing here waits for the device. Its figures follow by `self.deferred`."""
        setup, settings, losses = self.setup, self.setup.recipe.optimizer, []
        wrapped, state, accelerator = setup.distributed.wrapped, setup.state, setup.accelerator
        F_teacher = setup.loaded.F_teacher
        for group in state.optimizer.param_groups:
            group["lr"] = optimizer.lr(self.step, setup.recipe.train.steps, settings)
        student = partial(wrapped, derivative=setup.derivative)
        for i, batch in enumerate(batches):
            x_0, z, t, cond = to_device(batch, accelerator.device)
            with (
                distributed.accumulating(accelerator, wrapped, last=i == len(batches) - 1),
                F_teacher.knowing(batch[2]),
            ):
                loss = objective(student, setup.velocity, x_0, z, t, cond, self.step)
                (loss.total / len(batches)).backward()
            losses.append(replace(loss, total=loss.total.detach()))
        grad_norm = distributed.clip(
            wrapped.parameters(), math.inf if settings.grad_clip is None else settings.grad_clip
        )
        state.optimizer.step()
        state.optimizer.zero_grad()
        self.step += 1
        state.ema.update(state.student, self.step)
        figures: Tensor = accelerator.gather(
            metrics.columns_of(losses, grad_norm, float(received[0] if received else 0))
        )
        self.deferred.put(self.step, figures)

    def _log(self, step: int, figures: Tensor) -> int:
        """Write a line of metrics; return the signal that any process got. Raises when a figure is not finite."""
        recipe = self.setup.recipe
        lr = optimizer.lr(step - 1, recipe.train.steps, recipe.optimizer)
        line, signal = metrics.line_of(step, lr, figures)
        self.records.write(line)
        shown = {"loss": line.loss, "grad_norm": line.grad_norm}
        for name, value in shown.items():
            if not math.isfinite(value):
                fix = f"Lower optimizer.lr and --resume {self.saved}."
                raise UserError(f"The {name} is {value} at step {step}.", fix, code=1)
        self.setup.report.advance(step, shown)
        return signal

    def _evaluate(self) -> None:
        """Compare the EMA student with its teacher, save a preview, and stop a run that fails by these figures."""
        setup, recipe, comparison = self.setup, self.setup.recipe, self.setup.comparison
        with setup.state.ema.on(setup.device) as average:
            student, (one, two) = comparison.measure(average.network)
        student = _of_first(student)
        teacher = comparison.teacher
        self.records.write(EvaluationLine(step=self.step, student=student, teacher=teacher))
        if self.records.main:
            self.records.preview(self.step, [setup.data.pictures(x) for x in (comparison.endpoint, two, one)])
            if any(flags := setup.data.flagged()):
                setup.report.say(f"preview: {sum(flags)} of {len(flags)} pictures were flagged by the safety checker")
        ranks.exchange("the preview")
        setup.report.say(
            f"step {self.step}: distance to the teacher's endpoints, student (undistilled teacher): "
            f"1 step {student.one_step:.3g} ({teacher.one_step:.3g}), "
            f"2 steps {student.two_steps:.3g} ({teacher.two_steps:.3g}); "
            f"1-step RMSE {student.rmse:.3g} ({teacher.rmse:.3g})"
        )
        if any(math.isnan(value) for value in (student.rmse, student.one_step, student.two_steps)):
            fix = f"Lower optimizer.lr and --resume {self.saved}."
            raise UserError(f"The student's samples are not finite at step {self.step}.", fix, code=1)
        if self.step > recipe.optimizer.warmup_steps and moved(setup.state.sums(), setup.start) < UNMOVED:
            raise UserError(
                f"The student's parameters have not moved in {self.step} steps.",
                "Check optimizer.lr, and grad_norm in metrics.jsonl.",
                code=1,
            )
        warm = self.step > 0 and self.step >= recipe.objective.warmup_steps
        if recipe.train.stop_if_worse and warm and comparison.worse(student):
            raise UserError(
                f"At step {self.step}, after the warm-up, the student is worse than the teacher it started from.",
                "Lower optimizer.lr, lengthen objective.warmup_steps or raise adapt.tolerance; "
                "train.stop_if_worse=false trains on.",
                code=1,
            )

    def _save(self) -> Path:
        """Write the checkpoint of this step."""
        setup = self.setup
        state = checkpoint.state_at(self.step, setup.smooth_time, setup.start, setup.recipe)
        folder, keep = setup.out / CHECKPOINTS, setup.recipe.train.keep_checkpoints
        return checkpoint.save(setup.accelerator, folder, setup.state, state, keep)


def _of_first(figures: Endpoints) -> Endpoints:
    """The figures of the first process, by which all go on or stop."""
    one = (figures.rmse, figures.one_step, figures.two_steps)
    rmse, one_step, two_steps = ranks.of_first("comparing student and teacher", *one)
    return Endpoints(rmse=rmse, one_step=one_step, two_steps=two_steps)


def moved(now: Sequence[float], start: Sequence[float]) -> float:
    """The relative change of the sums of the parameters, from `start` to `now`."""
    a, b = (torch.tensor(x, dtype=torch.float64) for x in (now, start))
    return float((a - b).norm() / b.norm())
