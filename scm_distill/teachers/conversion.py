"""Pipelines whose denoiser predicts x_0, and which turn it into the velocity of a flow before their scheduler has it.

raw   the denoiser's output, x_0                      (B, ...)
x     its input, (1 - s) x_0 + s z                    (B, ...)
tau   its own time, by which s is slope tau + offset  (B,)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scm_distill.maths.trigflow import like

TIMES = ((1.0, 0.0), (1e-3, 0.0), (-1.0, 1.0), (-1e-3, 1.0))  # slope and offset of s over tau
AGREE = 1e-4  # relative


@dataclass(frozen=True)
class Conversion:
    """v = (x - raw) / max(s, floor): exact where s is above the floor, and as the pipeline has it below."""

    slope: float
    offset: float
    floor: float

    def __call__(self, raw: Tensor, x: Tensor, tau: Tensor) -> Tensor:
        """The velocity (B, ...), in the dtype of `raw`."""
        s = self.slope * tau + self.offset
        s = torch.where(s > self.floor, s, self.floor).expand(len(raw))
        return (x - raw) / like(s, raw).to(raw.dtype)


def learn(raw: Sequence[Tensor], x: Sequence[Tensor], tau: Sequence[float], v: Sequence[Tensor]) -> Conversion | None:
    """The conversion that makes `v` of `raw` and `x`, each (1, ...), at the times `tau`; None if there is none."""
    inverse = []
    for out, sample, velocity in zip(raw, x, v, strict=True):
        direction, target = (sample - out).flatten().double(), velocity.flatten().double()
        ratio = float(direction @ target / direction.square().sum())
        if not (ratio * direction - target).norm() <= AGREE * target.norm() or ratio <= 0:
            return None
        inverse.append(1 / ratio)
    floor = min(inverse)
    flat = sum(value < floor * (1 + AGREE) for value in inverse) > 1  # one alone is s itself
    for slope, offset in TIMES:
        found = Conversion(slope, offset, floor if flat else 0.0)
        ours = [max(slope * time + offset, found.floor) for time in tau]
        if all(abs(a - b) <= AGREE * b for a, b in zip(ours, inverse, strict=True)):
            return found
    return None
