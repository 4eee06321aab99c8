"""Makes a stock network distillable, and gives back a stock network.

A stock checkpoint embeds the integer step k by sinusoids of up to 1 rad per step, so the exact dF/dt is mostly the
derivative of that embedding between the integers it was trained on. Three cures, all undone or folded on save:

1. low-pass: a Gaussian of standard deviation W steps over k multiplies channel i by exp(-(w_i W)^2 / 2);
2. output: the network predicts v, which is F at sigma_d = 1 (`training/prefit.py` fits it);
3. clock: the student's own map k -> t, so that t_mid and t_max fall on the stock scheduler's grid.

k   index of the schedule    W   width of the low-pass in steps    w_i   angular frequency of channel i
"""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from scm_distill.maths.schedules import DiscreteSchedule, MonotoneCubic, alphas_cumprod_of
from scm_distill.models.student import Network

CLOCK_STEPS = 1000  # of a re-clocked student, whatever its teacher had: 8 divides it, as the stock grid wants
WIDEST = 200.0  # native steps; a wider low-pass leaves little of a 1000-step clock


class SmoothTime(nn.Module):
    """A sinusoidal time projection followed by the low-pass; float32 whatever runs around it."""

    def __init__(self, proj: nn.Module) -> None:
        super().__init__()
        self.proj = proj
        self.width = 0.0
        half, module = _channels(proj) // 2, _any(proj)
        exponent = -math.log(10000) * torch.arange(half, dtype=torch.float64) / (half - module.downscale_freq_shift)
        self.frequencies = module.scale * exponent.exp()  # (half,), one sine and one cosine each

    @property
    def factors(self) -> Tensor:
        """exp(-(w_i W)^2 / 2) for every channel, float32."""
        factors = (-(self.frequencies * self.width).square() / 2).exp().float().repeat(2)
        return nn.functional.pad(factors, (0, _channels(self.proj) % 2))

    def forward(self, k: Tensor) -> Tensor:
        """The embedding (B, channels)."""
        embedding: Tensor = self.proj(k)
        return embedding if self.width == 0 else embedding * self.factors.to(embedding.device)


class Float32(nn.Module):
    """A module that autocast leaves alone: time is never bf16 (a bf16 time makes the tangent 58 % wrong)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """inner(x) outside autocast."""
        with torch.autocast(x.device.type, enabled=False):
            return self.inner(x)  # type: ignore[no-any-return]


def prepare(net: nn.Module) -> None:
    """Put `SmoothTime` (width 0) and `Float32` around the time path of `net`, in place."""
    module = _any(net)
    module.time_proj = SmoothTime(module.time_proj)
    module.time_embedding = Float32(module.time_embedding)


def set_width(net: nn.Module, width: float) -> None:
    """Set the low-pass of a prepared `net` to `width` native steps; 0 is the original network."""
    _any(net).time_proj.width = float(width)


@contextmanager
def original(net: nn.Module) -> Iterator[None]:
    """The low-pass of a prepared `net` off, for as long as this lasts."""
    smooth = _any(net).time_proj
    width, smooth.width = smooth.width, 0.0
    try:
        yield
    finally:
        smooth.width = width


def fold(net: nn.Module) -> nn.Module:
    """A copy of a prepared `net` with its low-pass in the first time-embedding layer: a stock network again."""
    module = copy.deepcopy(_any(net))
    factors = module.time_proj.factors
    module.time_proj, module.time_embedding = module.time_proj.proj, module.time_embedding.inner
    with torch.no_grad():
        weight = module.time_embedding.linear_1.weight
        weight.mul_(factors.to(weight))
    return module  # type: ignore[no-any-return]


@torch.no_grad()
def change(network: Network, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], width: float) -> float:
    """Relative root-mean-square change of F when the low-pass goes from off to `width`; the width is put back."""
    with original(network.net):
        plain = network(x_t / network.sigma_d, t, cond)
        set_width(network.net, width)
        moved = network(x_t / network.sigma_d, t, cond)
    return float(((moved - plain).square().mean() / plain.square().mean()).sqrt())


def widest(network: Network, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], tolerance: float) -> float:
    """The largest low-pass, to 5 %, that changes F by less than `tolerance`; 0 if none does.

    `x_t` (B, ...) and `t` (B,) are noised data at times of the network's own grid, where it was trained.
    """
    low, high = 0.05, WIDEST
    if change(network, x_t, t, cond, low) > tolerance:
        return 0.0
    while high / low > 1.05:
        width = math.sqrt(low * high)
        low, high = (width, high) if change(network, x_t, t, cond, width) <= tolerance else (low, width)
    return round(low, 2)


def clock(t_min: float, t_mid: float, t_max: float) -> Tensor:
    """t(k), (1000,), float64: monotone through t_min at 0, t_mid at 499 and t_max at 999."""
    nodes = torch.tensor([0.0, CLOCK_STEPS // 2 - 1, CLOCK_STEPS - 1])
    return MonotoneCubic(nodes, torch.tensor([t_min, t_mid, t_max], dtype=torch.float64))(torch.arange(CLOCK_STEPS))


def reclock(network: Network, t: Tensor) -> tuple[Network, float]:
    """A stock network that runs by the clock `t` (K,), and the relative error of its new time embedding.

    Only the time-embedding MLP moves: MLP_new(sinusoid(k)) is regressed onto MLP_old(smooth sinusoid(k_old(t_k))) for
    all k, then its last layer is corrected so that the two sampling times, K/2 - 1 and K - 1, are exact.
    """
    old = _any(network.net)
    net: Any = fold(network.net)
    k = torch.arange(len(t), device=net.device)
    with torch.no_grad():
        target = old.time_embedding(old.time_proj(network.clock.index(t).float().to(net.device))).double()
        features = net.time_proj(k).double()
    weight = torch.ones(len(t), 1, dtype=torch.float64, device=net.device)
    weight[[len(t) // 2 - 1, -1]] = 10.0
    mlp = copy.deepcopy(net.time_embedding).double().requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        mlp.parameters(),
        max_iter=1000,
        max_eval=1500,
        history_size=50,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )
    scale = (target - target.mean(0)).square().mean()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = (weight * (mlp(features) - target).square()).mean() / scale
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        _pass_through(mlp, features[[len(t) // 2 - 1, -1]], target[[len(t) // 2 - 1, -1]])
        error = float(((mlp(features) - target).square().mean() / scale).sqrt())
    net.time_embedding.load_state_dict(mlp.float().state_dict())
    bar = alphas_cumprod_of(t, network.sigma_d)
    return Network(net, DiscreteSchedule(bar, network.sigma_d), network.prediction, network.sigma_d), error


def _pass_through(mlp: Any, features: Tensor, target: Tensor) -> None:
    """Move the last layer of `mlp` the least that makes mlp(features) = target for these few rows."""
    hidden = mlp.act(mlp.linear_1(features))
    ones = torch.cat([hidden, torch.ones_like(hidden[:, :1])], 1)
    step = torch.linalg.lstsq(ones, target - mlp.linear_2(hidden), driver="gelsd").solution  # minimum norm
    mlp.linear_2.weight += step[:-1].mT
    mlp.linear_2.bias += step[-1]


def _channels(proj: nn.Module) -> int:
    return int(_any(proj).num_channels)


def _any(module: nn.Module) -> Any:
    """The module without the static type, whose attributes are the architecture's own."""
    return module
