"""A low-pass on the time embedding of a stock network, which gives the network a smooth derivative in time.

A stock checkpoint embeds its time by sinusoids of up to 1 rad per step, so the exact dF/dt is mostly the derivative of
that embedding between the times it was trained on. Averaging the embedding over tau with a Gaussian of standard
deviation W steps multiplies channel i by exp(-(w_i W)^2 / 2). `prepare` finds the layers that read the sinusoids,
`set_width` sets W, `fold` multiplies the factors into the weights, which gives a stock network again.

tau   the network's own time (maths/clocks.py)    W   width of the low-pass in steps (`Clock.unit` of tau each)
w_i   angular frequency of channel i, radians per step
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad as fwAD

from scm_distill.autodiff.forward_ad import TangentMode
from scm_distill.maths.cond import Cond, conditional, rows
from scm_distill.maths.schedules import native
from scm_distill.models.network import Network, chunks
from scm_distill.models.sharing import shared_copy

FEW = 8  # samples that are enough to find the layers
FLOOR = 1e-4  # of the factors of sinusoids to which something is added that must not be lost; float32 holds 1 / FLOOR
WIDEST = 200.0  # steps; a wider low-pass leaves little of a clock of 1000


class Filtered(nn.Linear):
    """The first layer of a time embedding with the low-pass on its input, computed in float32 also under autocast.

    A stock Linear is made one by setting its class, so parameters and their names stay the same. In bf16 the sinusoids
    would make the tangent 58 % wrong.
    """

    frequencies: Tensor  # (in_features,), radians per step
    width: float  # steps
    low_pass: Tensor  # `factors` on the device of the last input; no buffer: offloading keeps copies of those
    floor = 0.0  # of the factors

    def tune(self, width: float) -> None:
        """Set the width in steps."""
        self.width = float(width)
        self.low_pass = self.factors.to(
            getattr(self, "low_pass", self.weight).device
        )  # an offloaded weight is not there

    @property
    def factors(self) -> Tensor:
        """exp(-(w_i W)^2 / 2) for every channel, float32, at least `floor`."""
        return (-(self.frequencies * self.width).square() / 2).exp().float().clamp_min(self.floor)

    @torch.no_grad()
    def fold(self) -> None:
        """Multiply the low-pass into the weight."""
        self.weight.mul_(self.factors.to(self.weight))

    def forward(self, input: Tensor) -> Tensor:
        """The layer, outside autocast."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        with torch.autocast(input.device.type, enabled=False):
            x = input.to(dtype)
            if self.width != 0:
                if self.low_pass.device != x.device:  # the layer was moved
                    self.low_pass = self.low_pass.to(x.device)
                x = x * self.low_pass.to(dtype)
            bias = None if self.bias is None else self.bias.to(dtype)
            return nn.functional.linear(x, self.weight.to(dtype), bias).to(self.weight.dtype)


class Beside(Filtered):
    """A layer whose output is added to the sinusoids before a `Filtered` one reads the sum, as that of LCM's guidance.

    It is divided by the factors that the sum is multiplied by, so that the low-pass is on the sinusoids alone.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The layer, outside autocast, over the factors."""
        with torch.autocast(input.device.type, enabled=False):
            wide = torch.promote_types(self.weight.dtype, torch.float32)
            bias = None if self.bias is None else self.bias.to(wide)
            y = nn.functional.linear(input.to(wide), self.weight.to(wide), bias)
            if self.width != 0:
                if self.low_pass.device != y.device:
                    self.low_pass = self.low_pass.to(y.device)
                y = y / self.low_pass.to(wide)
            return y.to(self.weight.dtype)

    @torch.no_grad()
    def fold(self) -> None:
        """Divide the weight, and the bias, by the factors."""
        self.weight.div_(self.factors.to(self.weight)[:, None])
        if self.bias is not None:
            self.bias.div_(self.factors.to(self.bias))


class OutsideAutocast(nn.Module):
    """What makes sinusoids of the time, computed in the dtype of its input also under autocast.

    A stock module is made one by setting its class (`exact_time.py`), so parameters and their names stay the same.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The stock module's own, outside autocast."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x, *args, **kwargs)


def filters(net: nn.Module) -> list[Filtered]:
    """The layers of `net` that `prepare` found, and those beside them."""
    return [module for module in net.modules() if isinstance(module, Filtered)]


def prepare(network: Network, x_t: Tensor, t: Tensor, cond: Cond) -> list[str]:
    """Make every layer of the denoiser whose input is sinusoids of tau a `Filtered` one, of width 0; their names.

    Such inputs are recognised by their derivative: e = cos(w tau) and e = sin(w tau) have (de/dtau)^2 = w^2 (1 - e^2).
    Where a trained layer's output is added to them (`time_cond_proj_dim` of diffusers), that becomes a `Beside` one.
    `x_t` (B, ...), `t` (B,) and `cond` are a few samples at different times.
    """
    x_t, t, cond = x_t[:FEW], t[:FEW], rows(cond, slice(FEW))
    linears = {n: m for n, m in network.net.named_modules() if isinstance(m, nn.Linear)}
    slices = chunks(len(x_t), network.chunk)
    parts = [_inputs(network, linears, x_t[part], t[part], rows(cond, part)) for part in slices]
    filtered = []
    for name in dict.fromkeys(name for part in parts for name in part):
        inputs = [part[name] for part in parts if name in part]  # an expert sees some of the times only
        kept = [pair for pair in inputs if pair is not None]
        if len(kept) < len(inputs):
            continue
        e, de = (torch.cat(values) for values in zip(*kept, strict=True))
        away = 1 - e.square()
        square = (away * de.square()).sum(0) / away.square().sum(0).clamp_min(1e-12)
        off = (de.square() - square * away).abs().amax(0)
        half = e.shape[1] // 2
        paired = half >= 2 and (e.square().sum(1) - half).abs().max() < 1e-3 * half  # cos^2 + sin^2 = 1
        if paired and (off <= 0.02 * square * away.amax(0) + 1e-12).all():
            layer, added = linears[name], linears.get(_beside(name))
            told = added is not None and bool((added.weight != 0).any())
            for part, kind in ((layer, Filtered), (added, Beside)) if told else ((layer, Filtered),):
                _make(part, kind, square.sqrt().cpu(), FLOOR if told else 0.0)
            filtered.append(name)
    return filtered


def _make(layer: Any, kind: type[Filtered], frequencies: Tensor, floor: float) -> None:
    """Make the Linear `layer` one of `kind`, of width 0."""
    layer.__class__, layer.frequencies = kind, frequencies
    if floor:
        layer.floor = floor
    layer.tune(0.0)


def _beside(name: str) -> str:
    """The name of the layer whose output diffusers adds to the sinusoids that the layer `name` reads, where it has one.

    See TimestepEmbedding in diffusers: linear_1(sinusoids + cond_proj(condition)).
    """
    return f"{name.removesuffix('linear_1')}cond_proj" if name.endswith("linear_1") else ""


def _inputs(
    network: Network, linears: dict[str, nn.Linear], x_t: Tensor, t: Tensor, cond: Cond
) -> dict[str, tuple[Tensor, Tensor] | None]:
    """The inputs (n, C) of the layers that depend on tau, and their derivative, float64; None where it is no sinusoids.

    What cannot be pairs of cosine and sine is not kept: the tokens of one video are gigabytes in a single layer.
    """
    inputs: dict[str, tuple[Tensor, Tensor] | None] = {}
    added: dict[str, Tensor] = {}

    def add(name: str, output: Tensor) -> None:
        added[name] = fwAD.unpack_dual(output).primal

    def record(name: str, input: Tensor) -> None:
        e, de = fwAD.unpack_dual(input)
        if de is not None:
            if (beside := added.get(_beside(name))) is not None and beside.shape == e.shape:
                e = e - beside
            half = e.shape[-1] // 2  # the sum of squares of as many pairs; less closely than `prepare` looks
            near = (torch.linalg.vector_norm(e, dim=-1).square() - half).abs().max() < 2e-3 * half
            inputs[name] = (e.double().flatten(0, -2), de.double().flatten(0, -2)) if near else None

    hooks = [
        m.register_forward_pre_hook(
            lambda _, args, kwargs, n=n: record(n, [*args, *kwargs.values()][0]), with_kwargs=True
        )
        for n, m in linears.items()
    ]
    hooks += [
        linears[n].register_forward_hook(lambda _, __, output, n=n: add(n, output))
        for n in map(_beside, linears)
        if n in linears
    ]
    tau = network.clock.network_time(t).float()
    form = native(network.prediction, t, network.sigma_d)
    try:
        with torch.no_grad(), fwAD.dual_level(), TangentMode():
            dual = fwAD.make_dual(tau, torch.full_like(tau, network.clock.unit))
            network.call(network.net, form.scale(x_t), dual, conditional(cond))
    finally:
        for hook in hooks:
            hook.remove()
    return inputs


def set_width(net: nn.Module, width: float) -> None:
    """Set the low-pass of a prepared `net` to `width` steps; width 0 is the stock network."""
    for module in filters(net):
        module.tune(width)


@contextmanager
def original(net: nn.Module) -> Iterator[None]:
    """A context in which the low-pass of a prepared `net` is off."""
    widths = [(module, module.width) for module in filters(net)]
    set_width(net, 0.0)
    try:
        yield
    finally:
        for module, width in widths:
            module.tune(width)


def fold(net: nn.Module) -> nn.Module:
    """A stock network: a prepared `net` with the low-pass multiplied into its weights; it shares all others with it."""
    copied = shared_copy(net, but=[p for module in filters(net) for p in module.parameters()])
    for module in filters(copied):
        module.fold()
    return unprepared(copied)


def unprepared(net: nn.Module) -> nn.Module:
    """A prepared `net` itself, made a stock network again: without its low-pass, its weights as they are."""
    for module in filters(net):
        del module.frequencies, module.width, module.low_pass
        vars(module).pop("floor", None)
        module.__class__ = nn.Linear  # type: ignore[assignment]
    for other in net.modules():
        if isinstance(other, OutsideAutocast):
            other.__class__ = type(other).__bases__[1]
    return net


@torch.no_grad()
def change(network: Network, x_t: Tensor, t: Tensor, cond: Cond, width: float) -> float:
    """The relative root-mean-square difference of F between width 0 and `width`; the network's own width stays."""
    with original(network.net):
        plain = network(x_t / network.sigma_d, t, cond)
        set_width(network.net, width)
        filtered = network(x_t / network.sigma_d, t, cond)
    return float(((filtered - plain).square().mean() / plain.square().mean()).sqrt())


def widest(network: Network, x_t: Tensor, t: Tensor, cond: Cond, tolerance: float) -> float:
    """The largest width, to 5 %, whose `change` of F is at most `tolerance`; 0 if there is none.

    `x_t` (B, ...) and `t` (B,) are noised data at times at which the network was trained.
    """
    low, high = 0.05, WIDEST
    if not change(network, x_t, t, cond, low) <= tolerance:
        return 0.0
    while high / low > 1.05:
        width = math.sqrt(low * high)
        low, high = (width, high) if change(network, x_t, t, cond, width) <= tolerance else (low, width)
    return round(low, 2)
