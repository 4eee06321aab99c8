"""Sampling by stock diffusers schedulers: the baseline, and the other side of the export's self-check."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler, SchedulerMixin
from torch import Tensor

TEACHER_STEPS = 50  # of DDIM, the baseline of every comparison


def seeded_noise(seeds: Sequence[int], shape: Sequence[int], steps: int) -> Tensor:
    """eps (steps, N, ...) ~ N(0, I): what `steps` draws from torch.Generator().manual_seed(seed) give, image by image.

    Image i depends on seed i alone, not on how many are made; diffusers draws the same from a list of generators.
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
    """The denoising loop of a stock unconditional pipeline, with conditions for those that take none; x_0 (N, ...)."""
    scheduler.set_timesteps(steps)
    for k in scheduler.timesteps:
        x = scheduler.step(net(x, k, **cond, return_dict=False)[0], k, x, generator=generator).prev_sample
    return x


def ddim(
    net: Callable[..., Any], scheduler: SchedulerMixin, eps: Tensor, cond: Mapping[str, Tensor], steps: int
) -> Tensor:
    """A teacher's samples by stock DDIM, deterministic, in at most `steps` evaluations from eps (N, ...) ~ N(0, I)."""
    config: Any = scheduler.config
    scheduler = DDIMScheduler.from_config(config)
    return loop(net, scheduler, eps, cond, min(steps, len(scheduler.alphas_cumprod)))
