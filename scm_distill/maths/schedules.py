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

Prediction = Literal["epsilon", "v_prediction", "sample", "flow", "edm", "ve_epsilon", "ve_sample"]


@dataclass(frozen=True)
class Native:
    """How a native prediction at time t relates to TrigFlow: x_nat = rho x_t, F = a raw + b x_t; each (B,)."""

    rho: Tensor
    a: Tensor
    b: Tensor

    def scale(self, x_t: Tensor) -> Tensor:
        """x_nat = rho x_t: what the native network is given."""
        return like(self.rho, x_t).to(x_t.dtype) * x_t

    def to_F(self, raw: Tensor, x_t: Tensor) -> Tensor:
        """F = a raw + b x_t."""
        return like(self.a, x_t).to(x_t.dtype) * raw + like(self.b, x_t).to(x_t.dtype) * x_t

    def from_F(self, F: Tensor, x_t: Tensor) -> Tensor:
        """Raw = (F - b x_t) / a."""
        return (F - like(self.b, x_t).to(x_t.dtype) * x_t) / like(self.a, x_t).to(x_t.dtype)


def native(prediction: Prediction, t: Tensor, sigma_d: float) -> Native:
    """Return rho, a and b of a native `prediction` at `t` (B,), in float64.

    epsilon, v_prediction, sample: variance preserving, alpha^2 + sigma^2 = 1. flow: x_nat = (1 - tau) x_0 + tau eps,
    raw = eps - x_0. edm: the preconditioned network F_edm; its input is x_t / sigma_d (rho = 1/sigma_d includes c_in).
    ve_*: x_nat = x_0 + sigma eps. epsilon is singular at t = pi/2, sample at t = 0.
    """
    t = t.double()
    c, s, one = t.cos(), t.sin(), torch.ones_like(t)
    match prediction:
        case "flow":
            rho = 1 / (c + sigma_d * s)
        case "edm":
            rho = one / sigma_d
        case "ve_epsilon" | "ve_sample":
            rho = 1 / c
        case _:
            rho = (c.square() + sigma_d**2 * s.square()).rsqrt()
    match prediction:
        case "epsilon" | "ve_epsilon":
            a, b = 1 / c, -s / (sigma_d * c)
        case "sample" | "ve_sample":
            a, b = -1 / (sigma_d * s), c / (sigma_d * s)
        case "v_prediction":
            a, b = rho, rho.square() * s * c * (sigma_d**2 - 1) / sigma_d
        case "flow":
            a, b = rho, rho * (sigma_d * c - s) / sigma_d
        case "edm":
            a, b = -one, 0 * one
    return Native(rho, a, b)


def flow_time(t: Tensor, sigma_d: float) -> Tensor:
    """tau = sigma_d sin t / (cos t + sigma_d sin t), the rectified-flow time in [0, 1]."""
    t = t.double()
    return sigma_d * t.sin() / (t.cos() + sigma_d * t.sin())


def flow_to_t(tau: Tensor, sigma_d: float) -> Tensor:
    """t = atan2(tau, sigma_d (1 - tau)): `flow_time` undone."""
    tau = tau.double()
    return torch.atan2(tau, sigma_d * (1 - tau))


def edm_noise(t: Tensor, sigma_d: float) -> Tensor:
    """c_noise = ln(sigma_d tan t) / 4, the time that an EDM network is given."""
    return (sigma_d * t.double().tan()).log() / 4


def edm_to_t(c_noise: Tensor, sigma_d: float) -> Tensor:
    """t = arctan(e^(4 c_noise) / sigma_d): `edm_noise` undone."""
    return ((4 * c_noise.double()).exp() / sigma_d).arctan()


class MonotoneCubic:
    """Monotone piecewise cubic interpolation (Fritsch & Carlson 1980, PCHIP slopes), float64, differentiable.

    `x` and `y` (K,) must both increase strictly, K >= 2. Arguments outside [x[0], x[-1]] are clamped, never
    extrapolated. The derivative is continuous.
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x.detach().double().cpu(), y.detach().double().cpu()
        self.copies: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = {}
        h, dy = self.x.diff(), self.y.diff()
        if len(self.x) < 2 or not (h.gt(0).all() and dy.gt(0).all()):
            raise ValueError("MonotoneCubic needs two or more strictly increasing points.")
        slope = dy / h
        if len(h) == 1:
            self.d = slope.repeat(2)
            return
        # Interior: weighted harmonic mean of the two secants. Ends: one-sided three-point formula, kept monotone.
        w1, w2 = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
        inner = (w1 + w2) / (w1 / slope[:-1] + w2 / slope[1:])
        first = ((2 * h[0] + h[1]) * slope[0] - h[0] * slope[1]) / (h[0] + h[1])
        last = ((2 * h[-1] + h[-2]) * slope[-1] - h[-1] * slope[-2]) / (h[-1] + h[-2])
        ends = [end.clamp(min=torch.zeros(()).double(), max=3 * s) for end, s in ((first, slope[0]), (last, slope[-1]))]
        self.d = torch.cat([ends[0][None], inner, ends[1][None]])

    def __call__(self, x: Tensor) -> Tensor:
        """y(x), float64, of the shape and on the device of `x`."""
        nodes, y, d = self._on(x.device)
        x = x.double().clamp(nodes[0], nodes[-1])
        i = torch.searchsorted(nodes, x.detach().contiguous(), right=True).clamp(1, len(nodes) - 1) - 1
        h = nodes[i + 1] - nodes[i]
        u = (x - nodes[i]) / h
        return (
            (1 + 2 * u) * (1 - u).square() * y[i]
            + u * (1 - u).square() * h * d[i]
            + u.square() * (3 - 2 * u) * y[i + 1]
            + u.square() * (u - 1) * h * d[i + 1]
        )

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Nodes, values and slopes, copied to a device once: a copy in every call would make the host wait for it."""
        if device not in self.copies:
            self.copies[device] = (self.x.to(device), self.y.to(device), self.d.to(device))
        return self.copies[device]

    def inverse(self, y: Tensor) -> Tensor:
        """x with y(x) = y, by bisection, then one Newton step that carries the derivative; clamped like the call."""
        y = y.double().clamp(self.y[0].item(), self.y[-1].item())
        low = torch.full_like(y, self.x[0].item()).detach()
        high = torch.full_like(low, self.x[-1].item())
        for _ in range(60):
            middle = (low + high) / 2
            above = self(middle) > y.detach()
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        with torch.enable_grad():
            x = ((low + high) / 2).requires_grad_()
            value = self(x)
            (slope,) = torch.autograd.grad(value.sum(), x)
        return x.detach() + (y - value.detach()) / slope.clamp_min(1e-300)


class DiscreteSchedule:
    """A discrete VP schedule (`alphas_cumprod`, K entries) as a smooth clock between index k and TrigFlow time t.

    phi(k) = atan2(sigma_k, sigma_d alpha_k) is bounded, also at zero-terminal SNR where log-SNR is not.
    """

    def __init__(self, alphas_cumprod: Tensor, sigma_d: float) -> None:
        bar = alphas_cumprod.detach().double().cpu()
        self.phi = torch.atan2((1 - bar).clamp_min(0).sqrt(), sigma_d * bar.clamp_min(0).sqrt())
        self._index = MonotoneCubic(self.phi, torch.arange(len(bar)))

    @property
    def t_min(self) -> float:
        """phi(0), in radians."""
        return self.phi[0].item()

    @property
    def t_max(self) -> float:
        """phi(K - 1), in radians."""
        return self.phi[-1].item()

    @property
    def unit(self) -> float:
        """One index."""
        return 1.0

    def index(self, t: Tensor) -> Tensor:
        """k(t) in [0, K - 1], fractional, differentiable, float64."""
        return self._index(t)

    def snap(self, t: Tensor) -> Tensor:
        """The time of the nearest index: nothing else was trained."""
        return self.phi.to(t.device)[self.index(t).round().long()]

    def time(self, k: Tensor) -> Tensor:
        """phi(k), `index` undone, differentiable, float64."""
        return self._index.inverse(k)


def alphas_cumprod_of(t: Tensor, sigma_d: float) -> Tensor:
    """alpha_bar = cos^2 t / (cos^2 t + sigma_d^2 sin^2 t): the VP schedule entry whose phi is `t`."""
    t = t.double()
    return t.cos().square() / (t.cos().square() + sigma_d**2 * t.sin().square())
