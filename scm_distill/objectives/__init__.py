"""Training objectives, one file each, and what they ask of their surroundings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

Cond = Mapping[str, Tensor]


class Velocity(Protocol):
    """A network in TrigFlow form: dx_t/dt = sigma_d F(x_t / sigma_d, t, cond)."""

    def __call__(self, x: Tensor, t: Tensor, cond: Cond, /) -> Tensor:
        """F (B, ...)."""
        ...


class Student(Protocol):
    """F_theta (B, ...) and w_phi (B,) in one call."""

    def __call__(self, x: Tensor, t: Tensor, cond: Cond, /) -> tuple[Tensor, Tensor]:
        """F_theta and w_phi."""
        ...


class Derivative(Protocol):
    """F_minus and cos(t) sin(t) dF_minus/dt along the ODE, both detached (B, ...)."""

    def __call__(self, F: Velocity, x_t: Tensor, dxdt: Tensor, t: Tensor, cond: Cond, /) -> tuple[Tensor, Tensor]:
        """F_minus and cs_dF."""
        ...


@dataclass(frozen=True)
class Loss:
    """The scalar to descend, and what to watch, per sample (B,) and detached."""

    total: Tensor
    t: Tensor
    tangent_norm: Tensor  # root-mean-square of g before it is normalized
    derivative_norm: Tensor  # root-mean-square of cos(t) sin(t) dF/dt
    teacher_gap: Tensor  # root-mean-square of F_theta - dxdt / sigma_d
