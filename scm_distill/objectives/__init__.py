"""Training objectives, one file each, and the protocols of the networks and the result that they share."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from scm_distill.maths.cond import Cond


class Velocity(Protocol):
    """A network in TrigFlow form: dx_t/dt = sigma_d F(x_t / sigma_d, t, cond)."""

    def __call__(self, x: Tensor, t: Tensor, cond: Cond, /) -> Tensor:
        """F (B, ...)."""
        ...


class Student(Protocol):
    """The network that is trained, with its adaptive weight."""

    def __call__(self, x: Tensor, t: Tensor, cond: Cond, v: Tensor, /) -> tuple[Tensor, Tensor, Tensor]:
        """F_theta (B, ...), cos(t) sin(t) dF_theta/dt along dx/dt = v (B, ...), detached, and w_phi (B,)."""
        ...


@dataclass(frozen=True)
class Loss:
    """The loss, a scalar with a graph, and what is logged beside it, per sample (B,) and detached."""

    total: Tensor
    t: Tensor
    tangent_norm: Tensor  # root-mean-square of g before it is normalized
    derivative_norm: Tensor  # root-mean-square of cos(t) sin(t) dF/dt
    teacher_gap: Tensor  # root-mean-square of F_theta - dxdt / sigma_d
