"""Every random draw of a run as a function of (seed, purpose, step): resuming needs no generator state."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scm_distill.maths.trigflow import sample_t


def generator(seed: int, purpose: str, step: int = 0) -> torch.Generator:
    """A CPU generator of its own for this purpose and step; the device then does not change the draws."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


@dataclass(frozen=True)
class Draws:
    """Draws the noise, times and flips of a step for the whole global batch, and deals them to the processes.

    Sample j of the batch belongs to process j mod `world`, so that their number does not change the draws.
    """

    seed: int
    shape: tuple[int, ...]  # of one sample
    batch: int  # samples of an optimizer step, summed over processes
    micro: int  # samples at a time
    rank: int
    world: int  # processes
    P_mean: float  # of ln(sigma_d tan t)
    P_std: float
    sigma_d: float
    t_min: float  # radians; times outside of t_min to t_max are clamped
    t_max: float
    flip: bool  # whether images are mirrored at random

    def step(self, purpose: str, step: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """z (b, ...), t (b,) float64, flip (b,) bool and chance (b, 3) of this process's micro-batches, in order.

        z ~ N(0, sigma_d^2); ln(sigma_d tan t) ~ N(P_mean, P_std^2), clamped; flip is true for half of the samples, or
        for none. `chance` is uniform in [0, 1): column 0 decides the guidance scale, 1 whether the sample's condition
        is dropped, 2 (the same in every row) whether those of the whole step are.
        """
        g = generator(self.seed, purpose, step)
        z = self.sigma_d * torch.randn(self.batch, *self.shape, generator=g)
        t = sample_t(torch.randn(self.batch, generator=g, dtype=torch.float64), self.P_mean, self.P_std, self.sigma_d)
        flip = (torch.rand(self.batch, generator=g) < 0.5) & self.flip
        chance = torch.rand(self.batch, 3, generator=generator(self.seed, f"{purpose} chance", step))
        chance[:, 2] = chance[0, 2].clone()
        drawn = (z, t.clamp(self.t_min, self.t_max), flip, chance)
        z_parts, t_parts, flips, chances = (x[self.rank :: self.world].split(self.micro) for x in drawn)
        yield from zip(z_parts, t_parts, flips, chances, strict=True)
