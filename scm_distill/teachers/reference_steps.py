"""Reference steps: inputs and outputs of steps of the stock call, which the network that trains must give again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from scm_distill.maths.cond import SCALE
from scm_distill.teachers import told_scale
from scm_distill.teachers.convention import Convention, Unclear
from scm_distill.teachers.scheduler import FOLLOWED, Schedule
from scm_distill.teachers.stock_call import StockCall
from scm_distill.teachers.trace import Step


@dataclass(frozen=True)
class ReferenceStep:
    """One step of a stock call, to compare a network with: the denoiser's inputs and the scheduler's.

    Times are functions of sigma_d, which is chosen later. Batches are of one sample, two in "two samples".
    """

    what: str  # "plain", "guided" or "two samples"
    x_nat: Tensor  # the denoiser's input, (B, ...)
    t: Callable[[float], float]  # TrigFlow time by the denoiser's own time tau
    cond: dict[str, Tensor]  # conditions; of a guided step with w and u/NAME
    native: Tensor  # the native prediction as the scheduler received it, (B, ...)
    next_x_nat: Tensor | None = None  # the denoiser's next input, where the scheduler's step is a DDIM step
    step: Callable[[float], tuple[float, float]] | None = None  # TrigFlow times of that DDIM step, from and to
    tau: float | None = None  # the denoiser's own time
    t_of_sigma: Callable[[float], float] | None = None  # TrigFlow time by the scheduler's sigma, where it has one
    x_0: Tensor | None = None  # the scheduler's estimate of x_0, where it returns one without clipping


def with_scale(convention: Convention, cond: dict[str, Tensor], w: float) -> dict[str, Tensor]:
    """`cond` of one sample with the guidance scale `w`, if that is an input of the denoiser."""
    if convention.scale_of is None:
        return cond
    return {**cond, SCALE: torch.full((1,), w)}


@dataclass
class Recorder:
    """Makes reference steps of the recorded steps of a stock call, whose guidance scale is `off`."""

    stock: StockCall
    convention: Convention
    schedule: Schedule
    off: float | None

    def step(
        self, steps: Sequence[Step], i: int, cond: dict[str, Tensor], what: Literal["plain", "guided"] = "plain"
    ) -> ReferenceStep:
        """Step `i` of a call, with the conditions `cond` of its first sample. Raises Unclear."""
        reference = self._velocity(steps[i], cond, what)
        scheduler = self.stock.scheduler
        if what == "guided" or type(scheduler).__name__ not in FOLLOWED:
            return reference
        clipped = scheduler.config.get("clip_sample") or scheduler.config.get("thresholding")
        x_0 = None if clipped else steps[i].x_0
        next_x, times = (None, None) if clipped else self._ddim_step(steps[i : i + 2])
        if x_0 is not None:
            x_0 = x_0[:1].reshape(1, *self.convention.sample_shape)
        return replace(reference, next_x_nat=next_x, step=times, x_0=x_0)

    def pair(self, steps: Sequence[Step]) -> ReferenceStep:
        """Two samples with different conditions, which show how a batch is arranged. Raises Unclear.

        They are of one step, or of a step each where the call takes one prompt at a time.
        """
        convention, calls = self.convention, [step.calls[0].arguments for step in steps]
        first = self._velocity(steps[0], convention.cond(calls[0]), "two samples")
        output = torch.cat([step.model_output for step in steps])
        native = self.schedule.sign * output.reshape(2, *convention.sample_shape)
        x_nat = torch.cat([convention.sample(arguments, slice(0, 2)) for arguments in calls])
        others = [convention.cond(arguments) for arguments in calls[1:]]
        cond = {
            name: value.expand(2) if name == SCALE else torch.cat([value, *(other[name] for other in others)])
            for name, value in first.cond.items()
        }
        return replace(first, x_nat=x_nat, cond=cond, native=native)

    def _velocity(self, step: Step, cond: dict[str, Tensor], what: str) -> ReferenceStep:
        """The denoiser's inputs and prediction for the first sample of `step`. Raises Unclear."""
        convention, schedule, arguments = self.convention, self.schedule, step.calls[0].arguments
        if convention.scale_of:
            cond = {**cond, SCALE: torch.tensor([told_scale.scale_in(convention, arguments, self.off)])}
        tau, sigma = self._time(step)
        x = convention.sample(arguments)
        _check_scaling(step, x)
        return ReferenceStep(
            what=what,
            x_nat=x,
            t=lambda d: schedule.t_of(tau, None, d),
            cond=cond,
            native=schedule.sign * step.model_output[:1].reshape(1, *convention.sample_shape),
            tau=tau,
            t_of_sigma=None if sigma is None or schedule.kind == "vp" else lambda d: schedule.t_of(tau, sigma, d),
        )

    def _time(self, step: Step) -> tuple[float, float | None]:
        """The denoiser's time of `step`, and its sigma as the share of noise (some flows count data)."""
        config, sigma = self.stock.scheduler.config, step.sigma
        if sigma is not None and self.schedule.kind == "flow" and config.get("invert_sigmas", False):
            sigma = 1 - sigma
        return float(step.calls[0].arguments[self.convention.time].flatten()[0]), sigma

    def _ddim_step(self, steps: Sequence[Step]) -> tuple[Tensor | None, Callable[[float], tuple[float, float]] | None]:
        """Of two steps, the first a DDIM step: the second's x_nat, and both times by sigma_d."""
        scheduler, schedule = self.stock.scheduler, self.schedule
        if len(steps) < 2 or steps[0].draws:
            return None, None
        (tau, sigma), (next_tau, next_sigma) = self._time(steps[0]), self._time(steps[1])

        def times(d: float) -> tuple[float, float]:
            return schedule.t_of(tau, sigma, d), schedule.t_of(next_tau, next_sigma, d)

        # DDIM steps to tau - K / steps, whatever comes next: with linspace spacing that is another time.
        follows = sigma is not None or abs(tau - next_tau - (scheduler.config.num_train_timesteps // 2)) < 1
        return (self.convention.sample(steps[1].calls[0].arguments) if follows else None), times


def _check_scaling(step: Step, x: Tensor) -> None:
    """Raises Unclear where the denoiser's input `x` is not a multiple of the scheduler's sample."""
    sample = step.sample[:1].reshape(x.shape).double()
    ratio = (x.double() * sample).sum() / sample.square().sum()
    if not (x.double() - ratio * sample).abs().max() <= 1e-4 * x.abs().max():
        raise Unclear("its denoiser is not given a multiple of the scheduler's sample")
