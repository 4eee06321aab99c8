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
    """How the noise, times and flips of a step are drawn, for the whole global batch, and shared out."""

    seed: int
    shape: tuple[int, ...]
    batch: int  # global
    micro: int
    rank: int
    world: int
    P_mean: float
    P_std: float
    sigma_d: float
    t_min: float
    t_max: float
    flip: bool

    def step(self, purpose: str, step: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """z (b, ...), t (b,) float64, flip (b,) and chance (b, 3) of this process's micro-batches, in order.

        `chance` is uniform in [0, 1): what decides the guidance scale, whether the condition is dropped, and whether
        those of the whole step are (the same in every row).
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
