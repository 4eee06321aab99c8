"""Clocks: the map between TrigFlow time t and the time tau that a stock network takes as its argument.

`FlowClock` and `EDMClock` are continuous, `DiscreteSchedule` is that of a table of steps. All are exact, differentiable
and float64.

t       TrigFlow time in radians                                         (B,)
tau     the network's own time: k, where it is the index of a table      (B,)
s       rectified-flow time in [0, 1]: x_nat = (1 - s) x_0 + s eps       (B,)
unit    the tau of one step; there are about 1000 from t_min to t_max
"""

import math
from typing import Literal, Protocol

import torch
from torch import Tensor

from scm_distill.maths.interpolation import MonotoneCubic

S_MIN = 1e-3  # flow time at which most stock calls end


class Clock(Protocol):
    """The map between t and a network's own time."""

    @property
    def t_min(self) -> float:
        """The smallest t the network knows."""
        ...

    @property
    def t_max(self) -> float:
        """The largest t the network knows."""
        ...

    @property
    def unit(self) -> float:
        """The tau of one step, positive."""
        ...

    def network_time(self, t: Tensor) -> Tensor:
        """tau(t) (B,), differentiable."""
        ...

    def time(self, k: Tensor) -> Tensor:
        """t(tau) (B,), the inverse of `network_time`, differentiable."""
        ...

    def snap(self, t: Tensor) -> Tensor:
        """The nearest times (B,) that the network was trained at."""
        ...


def spaced(clock: Clock, t_max: float, steps: int) -> list[float]:
    """At most `steps` decreasing times in radians from t_max to t_min, evenly spaced in the network's own time."""
    ends = clock.network_time(torch.tensor([t_max, clock.t_min], dtype=torch.float64))
    share = torch.linspace(0, 1, steps, dtype=torch.float64)
    times = clock.snap(clock.time(ends[0] + share * (ends[1] - ends[0])))
    return list(dict.fromkeys(times.tolist()))


class FlowClock:
    """The clock of a flow: tau = slope s + offset, or the monotone interpolation of a `table` (s, tau).

    A negative slope is that of a network whose time counts from noise to data. Times below `s_min` are not used: stock
    calls end there.
    """

    def __init__(
        self,
        slope: float,
        offset: float,
        sigma_d: float,
        *,
        s_min: float = S_MIN,
        table: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.slope, self.offset, self.sigma_d, self.s_min = slope, offset, sigma_d, s_min
        self._table = MonotoneCubic(*table) if table else None

    @property
    def t_min(self) -> float:
        """t of s_min."""
        return float(flow_to_t(torch.tensor(self.s_min, dtype=torch.float64), self.sigma_d))

    @property
    def t_max(self) -> float:
        """pi / 2: pure noise, where a flow is not singular."""
        return math.pi / 2

    @property
    def unit(self) -> float:
        """|slope| / 1000."""
        return abs(self.slope) / 1000

    def network_time(self, t: Tensor) -> Tensor:
        """tau(t)."""
        s = flow_time(t, self.sigma_d)
        return self._table(s) if self._table else self.slope * s + self.offset

    def time(self, k: Tensor) -> Tensor:
        """t(tau)."""
        s = self._table.inverse(k) if self._table else (k.double() - self.offset) / self.slope
        return flow_to_t(s, self.sigma_d)

    def snap(self, t: Tensor) -> Tensor:
        """`t`: flows are trained, and sampled by their stock schedulers, at any time."""
        return t


class EDMClock:
    """The clock of EDM networks: tau is ln(sigma) / 4 (`kind` log) or (2 / pi) arctan(sigma) (`kind` arctan).

    sigma = sigma_d tan t; `sigma_min` and `sigma_max` are the noise levels between which the network was trained.
    """

    def __init__(self, kind: Literal["log", "arctan"], sigma_d: float, sigma_min: float, sigma_max: float) -> None:
        self.kind, self.sigma_d, self.sigma_min, self.sigma_max = kind, sigma_d, sigma_min, sigma_max

    @property
    def t_min(self) -> float:
        """t of sigma_min."""
        return math.atan(self.sigma_min / self.sigma_d)

    @property
    def t_max(self) -> float:
        """t of sigma_max."""
        return math.atan(self.sigma_max / self.sigma_d)

    @property
    def unit(self) -> float:
        """A thousandth of the range of tau."""
        low, high = self.network_time(torch.tensor([self.t_min, self.t_max])).tolist()
        return float(high - low) / 1000

    def network_time(self, t: Tensor) -> Tensor:
        """tau(t)."""
        if self.kind == "log":
            return edm_noise(t, self.sigma_d)
        return (self.sigma_d * t.double().tan()).arctan() * 2 / math.pi

    def time(self, k: Tensor) -> Tensor:
        """t(tau)."""
        if self.kind == "log":
            return edm_to_t(k, self.sigma_d)
        return ((k.double() * math.pi / 2).tan() / self.sigma_d).arctan()

    def snap(self, t: Tensor) -> Tensor:
        """`t`: EDM networks are trained at any sigma."""
        return t


def flow_time(t: Tensor, sigma_d: float) -> Tensor:
    """tau = sigma_d sin t / (cos t + sigma_d sin t), the rectified-flow time in [0, 1]."""
    t = t.double()
    return sigma_d * t.sin() / (t.cos() + sigma_d * t.sin())


def flow_to_t(tau: Tensor, sigma_d: float) -> Tensor:
    """t = atan2(tau, sigma_d (1 - tau)): the inverse of `flow_time`."""
    tau = tau.double()
    return torch.atan2(tau, sigma_d * (1 - tau))


def edm_noise(t: Tensor, sigma_d: float) -> Tensor:
    """c_noise = ln(sigma_d tan t) / 4, the time of an EDM network."""
    return (sigma_d * t.double().tan()).log() / 4


def edm_to_t(c_noise: Tensor, sigma_d: float) -> Tensor:
    """t = arctan(e^(4 c_noise) / sigma_d): the inverse of `edm_noise`."""
    return ((4 * c_noise.double()).exp() / sigma_d).arctan()


class DiscreteSchedule:
    """The clock of a discrete variance-preserving schedule, given by its `alphas_cumprod` (K,): tau is the index k.

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

    def network_time(self, t: Tensor) -> Tensor:
        """k(t) in [0, K - 1], fractional, differentiable, float64."""
        return self._index(t)

    def snap(self, t: Tensor) -> Tensor:
        """The time of the nearest index: the network was trained at whole ones only."""
        return self.phi.to(t.device)[self.network_time(t).round().long()]

    def time(self, k: Tensor) -> Tensor:
        """phi(k), the inverse of `network_time`, differentiable, float64."""
        return self._index.inverse(k)


def alphas_cumprod_of(t: Tensor, sigma_d: float) -> Tensor:
    """alpha_bar = cos^2 t / (cos^2 t + sigma_d^2 sin^2 t): the VP schedule entry whose phi is `t`."""
    t = t.double()
    return t.cos().square() / (t.cos().square() + sigma_d**2 * t.sin().square())
