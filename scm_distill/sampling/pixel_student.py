"""Reads an exported pixel student as F, and samples it by scm-distill's own few-step sampler."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scm_distill import teachers
from scm_distill.artifacts.layout import pipeline_of
from scm_distill.errors import UserError
from scm_distill.maths.clocks import DiscreteSchedule
from scm_distill.maths.cond import Cond
from scm_distill.maths.sampling import few_step
from scm_distill.maths.schedules import native
from scm_distill.models.network import Network


@dataclass(frozen=True)
class Student:
    """An exported pixel student: its `pipeline` as diffusers has it, and the same `network` read as F."""

    pipeline: teachers.Teacher
    network: Network

    def times(self, steps: int) -> tuple[float, ...]:
        """The TrigFlow times (radians) of `steps` steps of its scheduler. Raises UserError for a number it has not."""
        scheduler: Any = self.pipeline.scheduler
        try:
            scheduler.set_timesteps(steps)
        except ValueError as error:
            most = scheduler.config.original_inference_steps
            raise UserError(
                f"This student samples in 1 to {most} steps, not {steps}.", "Two is what it is for."
            ) from error
        clock: Any = self.network.clock
        return tuple(float(clock.phi[k]) for k in scheduler.timesteps)


def as_stock_does(network: Network, eps: Tensor, times: Sequence[float], cond: Cond) -> Tensor:
    """x_0 from the draws eps (len(times), N, C, H, W) ~ N(0, I) of a stock pipeline, which starts from x_nat = eps."""
    sigma_d = network.sigma_d
    start = native("v_prediction", torch.tensor([times[0]], device=eps.device), sigma_d)
    x_T = eps[0] / start.rho.to(eps.dtype)
    return few_step(lambda x, t: network(x, t, cond), x_T, times, [sigma_d * e for e in eps[1:]], sigma_d)


def load(model: str) -> Student:
    """Open an exported student by run folder, pipeline folder or Hub id. Raises UserError for anything else.

    It is read at sigma_d = 1 whatever it was trained with: the native pipeline does not depend on it.
    """
    pipeline = teachers.load(pipeline_of(model))
    if type(pipeline.scheduler).__name__ != "LCMScheduler":
        raise UserError(
            f"{model} is no few-step student: its scheduler is {type(pipeline.scheduler).__name__}.",
            "Give a run folder, or the export folder in it.",
        )
    assert pipeline.alphas_cumprod is not None
    clock = DiscreteSchedule(pipeline.alphas_cumprod, 1.0)
    return Student(pipeline, Network(pipeline.net, clock, pipeline.prediction, 1.0).eval())
