"""Sampling of pixel UNets by stock diffusers schedulers: the baseline, and the reference of the export's self-check."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler, SchedulerMixin
from torch import Tensor

TEACHER_STEPS = 50  # of DDIM, the baseline of every comparison


def seeded_noise(seeds: Sequence[int], shape: Sequence[int], steps: int) -> Tensor:
    """eps (steps, N, ...) ~ N(0, I), N the number of seeds: `steps` draws in turn from a generator of each seed.

    Image i depends on seed i alone; diffusers draws the same from a list of generators.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.stack([torch.cat([torch.randn(1, *shape, generator=g) for g in generators]) for _ in range(steps)])


@torch.no_grad()
def loop(
    net: Callable[..., Any],
    scheduler: Any,
    x: Tensor,
    cond: Mapping[str, Tensor],
    steps: int,
    generator: list[torch.Generator] | None = None,
) -> Tensor:
    """x_0 (N, ...) by the denoising loop of a stock unconditional pipeline, from x (N, ...) at its first time.

    `net` is called as a UNet2DModel, with the conditions `cond` (N, ...) too, which the stock pipelines cannot pass.
    """
    scheduler.set_timesteps(steps)
    for k in scheduler.timesteps:
        x = scheduler.step(net(x, k, **cond, return_dict=False)[0], k, x, generator=generator).prev_sample
    return x


def ddim(
    net: Callable[..., Any], scheduler: SchedulerMixin, eps: Tensor, cond: Mapping[str, Tensor], steps: int
) -> Tensor:
    """x_0 (N, ...) by stock DDIM, deterministic, in `steps` NFE (at most one a time of the schedule) from eps (N, ...).

    `scheduler` is the teacher's own, whose configuration DDIM takes over, the defaults of its class included.
    """
    config: Any = scheduler.config  # what "_use_default_values" names, from_config takes from DDIM's own defaults
    scheduler = DDIMScheduler.from_config({key: v for key, v in config.items() if key != "_use_default_values"})
    return loop(net, scheduler, eps, cond, min(steps, len(scheduler.alphas_cumprod)))
