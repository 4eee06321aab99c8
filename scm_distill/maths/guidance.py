"""Classifier-free guidance as a teacher's own pipeline computes it.

c, u   conditional and unconditional prediction   (B, ...)
w      guidance scale                             (B,)

Every rule has weights that sum to 1, so a classic one may be applied in any parameterisation at fixed (x_t, t); a
renormalised one only in the native one, and that is where all of them are applied.
"""

from dataclasses import dataclass

from torch import Tensor

from scm_distill.maths.trigflow import like


@dataclass(frozen=True)
class GuidanceRule:
    """u + (w + offset) (c - u); with `renormalize` rescaled to the norm of c along the last dimension.

    Offset 0 is the classic rule, which gives c at w = 1; offset 1 is c + w (c - u), which gives c at w = 0.
    """

    offset: int = 0
    renormalize: bool = False

    def __call__(self, c: Tensor, u: Tensor, w: Tensor) -> Tensor:
        """The guided prediction (B, ...), in the dtype of `c`."""
        guided = u + like(w.to(c) + self.offset, c) * (c - u)
        if self.renormalize:
            guided = guided * (c.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))
        return guided

    def __str__(self) -> str:
        """The rule as a formula, for reports."""
        return ("c + w (c - u)" if self.offset else "u + w (c - u)") + (", renormalised to |c|" * self.renormalize)
