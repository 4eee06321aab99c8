"""The stock scheduler of a two-step student, and the times that it can express.

flow   FlowMatchEulerDiscreteScheduler, stochastic, its last sigma carried by shift_terminal; diffusers >= 0.34
vp     LCMScheduler on the student's own alphas_cumprod; its two times lie on a coarse grid of indices
edm    first-order SDE DPM-Solver from sigma_max to sigma_mid, where sigma_min is; exact up to (sigma_mid / sigma_max)^2
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    CosineDPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
)
from torch import Tensor

from scm_distill.maths.clocks import Clock, EDMClock, flow_time, flow_to_t

SIGMA_STEP = 0.004  # of a flow's sigma_mid: pipelines that cast 1000 s to bf16 keep multiples of 4 exactly
MOST_STEPS = 8  # of a re-clocked student; its two-step times are the same for any even number


@dataclass(frozen=True)
class Grid:
    """Two times that a stock scheduler can express; `original` is LCMScheduler's original_inference_steps."""

    t_max: float
    t_mid: float
    original: int = 0


def flow_grid(
    t_mids: Sequence[float], clock: Clock, sigma_d: float, *, whole: bool, own_sigmas: tuple[float, float] = (1.0, 0.5)
) -> list[Grid]:
    """The multiples of SIGMA_STEP nearest to these times; with `whole`, times whose tau is an integer instead.

    `own_sigmas` are what the pipeline gives a scheduler for two steps. shift_terminal stretches 1 - sigma, so that the
    second is the student's; a first one below 1 moves with it, and so does t_max.
    """
    first, second = own_sigmas

    def top(time: float) -> float:
        if whole or first >= 1:
            return clock.t_max
        middle = float(flow_time(torch.tensor(time, dtype=torch.float64), sigma_d))
        sigma = 1 - (1 - first) * (1 - middle) / (1 - second)
        return float(flow_to_t(torch.tensor(sigma, dtype=torch.float64), sigma_d))

    found: dict[float, Grid] = {}
    for t in t_mids:
        if whole:
            tau = clock.network_time(torch.tensor(t, dtype=torch.float64)).round()
            time = float(clock.time(tau))
        else:
            s = round(float(flow_time(torch.tensor(t), sigma_d)) / SIGMA_STEP) * SIGMA_STEP
            s = min(max(s, SIGMA_STEP), 1 - SIGMA_STEP)  # 0 and 1 are no middle
            time = float(flow_to_t(torch.tensor(s, dtype=torch.float64), sigma_d))
        found.setdefault(time, Grid(top(time), time))
    return list(found.values())


def discrete_grid(phi: Tensor, t_mids: Sequence[float]) -> list[Grid]:
    """What an LCMScheduler offers on this schedule (K,) nearest to these times, t_max as high as it goes.

    It has t_mid between about .49 and .67 of K only.
    """
    scheduler = LCMScheduler(num_train_timesteps=len(phi))
    found: dict[tuple[int, int], int] = {}
    for original in range(2, min(50, len(phi)) + 1):
        scheduler.set_timesteps(2, original_inference_steps=original)
        top, middle = (int(k) for k in scheduler.timesteps)
        found.setdefault((top, middle), original)
    grids = [Grid(float(phi[top]), float(phi[middle]), original) for (top, middle), original in found.items()]
    highest = max(grid.t_max for grid in grids)
    near = [min(grids, key=lambda g, t=t: abs(g.t_mid - t) + 4 * (highest - g.t_max)) for t in t_mids]  # type: ignore[misc]
    return list(dict.fromkeys(near))


def discrete(alphas_cumprod: Tensor, prediction: str, original: int) -> LCMScheduler:
    """A consistency model's sampler on a table of alphas_cumprod (K,)."""
    bar = alphas_cumprod.double()
    betas = 1 - bar / torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])
    return LCMScheduler(
        num_train_timesteps=len(bar),
        trained_betas=betas.tolist(),
        prediction_type=prediction,
        original_inference_steps=original,
        timestep_scaling=1e10,  # c_skip = 0, c_out = 1 to float32 from index 1 on: a consistency model without a skip
        clip_sample=False,
        steps_offset=1,  # LCM does not use it, but Stable Diffusion's pipelines want it
        rescale_betas_zero_snr=False,
    )


def flow(teacher: Any, grid: Grid, sigma_d: float, *, in_call: bool) -> FlowMatchEulerDiscreteScheduler:
    """For a rectified flow; with `in_call` the stock call brings the sigmas."""
    s = float(flow_time(torch.tensor(grid.t_mid, dtype=torch.float64), sigma_d))
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=teacher.config.get("num_train_timesteps", 1000),
        shift=1.0,
        use_dynamic_shifting=False,
        shift_terminal=None if in_call else round(s, 12),
        stochastic_sampling=True,
    )


def edm(teacher: Any, grid: Grid, clock: EDMClock) -> Any:
    """For an EDM-preconditioned network."""
    settings: dict[str, float | int | str] = {
        "sigma_min": clock.sigma_d * math.tan(grid.t_mid),
        "sigma_max": clock.sigma_max,
        "sigma_data": clock.sigma_d,
        "prediction_type": teacher.config.get("prediction_type", "epsilon"),
        "solver_order": 1,
        "sigma_schedule": "exponential",
        "final_sigmas_type": "zero",
    }
    if clock.kind == "arctan":
        return CosineDPMSolverMultistepScheduler(**settings)
    return EDMDPMSolverMultistepScheduler(**settings, algorithm_type="sde-dpmsolver++")
