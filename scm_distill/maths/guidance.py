"""Classifier-free guidance as a teacher's own pipeline computes it.

c, u   conditional and unconditional prediction   (B, ...)
w      guidance scale                             (B,)

Every rule has weights that sum to 1, so a classic one may be applied in any parameterisation at fixed (x_t, t); a
renormalised or rescaled one only in the native one, and that is where all of them are applied.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scm_distill.maths.trigflow import like


@dataclass(frozen=True)
class GuidanceRule:
    """u + (w + offset) (c - u); with `renormalize` rescaled to the norm of c along the last dimension.

    Offset 0 is the classic rule, which gives c at w = 1; offset 1 is c + w (c - u), which gives c at w = 0. `rescale`
    is the share in which the result takes the standard deviation that c has over a sample (Lin et al. 2023,
    arXiv 2305.08891, section 3.4). At scales up to `off` the pipeline does not guide, and the rule gives c.
    """

    offset: int = 0
    renormalize: bool = False
    rescale: float = 0.0
    off: float = -math.inf

    def __call__(self, c: Tensor, u: Tensor, w: Tensor) -> Tensor:
        """The guided prediction (B, ...), in the dtype of `c`."""
        if self.off > -math.inf:
            w = torch.where(w <= self.off, 1.0 - self.offset, w)
        guided = u + like(w.to(c) + self.offset, c) * (c - u)
        if self.renormalize:
            guided = guided * (c.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))
        if self.rescale:
            guided = guided * (1 + self.rescale * (deviation(c) / deviation(guided) - 1))
        return guided

    def turned_off(self, w: float) -> bool:
        """Whether scale `w` leaves the conditional prediction as it is."""
        return w <= self.off or w == 1 - self.offset

    @property
    def says_off(self) -> str:
        """At which scales guidance is off, in words."""
        neutral = 1 - self.offset
        return f"off up to {neutral}" if self.off > 0 else f"off at {neutral}"

    def __str__(self) -> str:
        """The rule as a formula, for reports."""
        rescaled = f", rescaled by {self.rescale:g} to std(c)" if self.rescale else ""
        return (
            ("c + w (c - u)" if self.offset else "u + w (c - u)")
            + ", renormalised to |c|" * self.renormalize
            + rescaled
        )


def deviation(x: Tensor) -> Tensor:
    """The standard deviation of each sample of x (B, ...), in a shape that broadcasts with x."""
    return x.std(dim=tuple(range(1, x.ndim)), keepdim=True)
