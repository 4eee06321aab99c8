"""Native parameterisations and schedules, read as TrigFlow and written back, exact for any sigma_d.

A native model sees x_nat = alpha x_0 + sigma eps at its own time. With t = atan2(sigma, sigma_d alpha) its input is
x_nat = rho x_t, and its raw output and F are affine in each other: F = a raw + b x_t.

alpha, sigma   native marginal x_nat = alpha x_0 + sigma eps, eps ~ N(0, I)
rho            x_nat / x_t                                                         (B,)
k              index of a discrete schedule, 0 is nearly data; fractions allowed   (B,)
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scm_distill.maths.trigflow import like

Prediction = Literal["epsilon", "v_prediction", "sample", "flow", "edm"]


@dataclass(frozen=True)
class Parameterization:
    """A native prediction at times t in terms of TrigFlow: x_nat = rho x_t, F = a raw + b x_t; each (B,)."""

    rho: Tensor
    a: Tensor
    b: Tensor

    def scale(self, x_t: Tensor) -> Tensor:
        """x_nat = rho x_t, the input of the native network."""
        return like(self.rho, x_t).to(x_t.dtype) * x_t

    def to_F(self, raw: Tensor, x_t: Tensor) -> Tensor:
        """F = a raw + b x_t."""
        return like(self.a, x_t).to(x_t.dtype) * raw + like(self.b, x_t).to(x_t.dtype) * x_t

    def from_F(self, F: Tensor, x_t: Tensor) -> Tensor:
        """The native prediction, raw = (F - b x_t) / a."""
        return (F - like(self.b, x_t).to(x_t.dtype) * x_t) / like(self.a, x_t).to(x_t.dtype)


def native(prediction: Prediction, t: Tensor, sigma_d: float) -> Parameterization:
    """Return rho, a and b of a native `prediction` at `t` (B,), in float64.

    epsilon, v_prediction, sample: variance preserving, alpha^2 + sigma^2 = 1. flow: x_nat = (1 - tau) x_0 + tau eps,
    raw = eps - x_0. edm: the preconditioned network F_edm; its input is x_t / sigma_d (rho = 1/sigma_d includes c_in).
    epsilon is singular at t = pi/2, sample at t = 0.
    """
    t = t.double()
    c, s, one = t.cos(), t.sin(), torch.ones_like(t)
    match prediction:
        case "flow":
            rho = 1 / (c + sigma_d * s)
        case "edm":
            rho = one / sigma_d
        case _:
            rho = (c.square() + sigma_d**2 * s.square()).rsqrt()
    match prediction:
        case "epsilon":
            a, b = 1 / c, -s / (sigma_d * c)
        case "sample":
            a, b = -1 / (sigma_d * s), c / (sigma_d * s)
        case "v_prediction":
            a, b = rho, rho.square() * s * c * (sigma_d**2 - 1) / sigma_d
        case "flow":
            a, b = rho, rho * (sigma_d * c - s) / sigma_d
        case "edm":
            a, b = -one, 0 * one
    return Parameterization(rho, a, b)
