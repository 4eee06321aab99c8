"""Keeps the time of a network exact where its products are made in bf16.

x_t    noised samples    (B, ...)    t    time in radians    (B,)
"""

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad as fwAD

from scm_distill.autodiff.forward_ad import TangentMode
from scm_distill.maths.compare import largest
from scm_distill.maths.cond import Cond, conditional, rows
from scm_distill.maths.schedules import native
from scm_distill.models.low_pass import Filtered, OutsideAutocast, filters
from scm_distill.models.network import Network, chunks

ROUNDED = 2e-2  # largest error of a sinusoid that is left alone: bf16 features are off by 4e-3 in any case


def leave_autocast(module: nn.Module) -> None:
    """Make `module` an `OutsideAutocast` one, in place."""
    stock = type(module)
    module.__class__ = type(stock.__name__, (OutsideAutocast, stock), {})


def exact_time(network: Network, x_t: Tensor, t: Tensor, cond: Cond, dtype: torch.dtype) -> float:
    """Keep a prepared network's time exact under autocast to `dtype`; return the largest error left in its sinusoids.

    Where that is above ROUNDED, one of two things is changed, if it helps. Some denoisers cast their time to the dtype
    of their hidden states, which autocast has made narrow: there the first layer that reads the sample returns float32.
    Some multiply it by their frequencies as a matrix product: there what makes the sinusoids runs outside autocast.
    """
    exact = _sinusoids(network, x_t, t, cond, None)

    def worst() -> float:
        narrow = _sinusoids(network, x_t, t, cond, dtype)
        return largest(0.0, *(float((e - narrow[name]).abs().max()) for name, e in exact.items()))

    if (left := worst()) <= ROUNDED:
        return left
    widened = _first_layer(network, x_t[:1], t[:1], rows(cond, slice(1))).register_forward_hook(
        lambda _, __, output: output.float()
    )
    if (left := worst()) <= ROUNDED:
        return left
    widened.remove()
    for module in _makers(network, x_t[:1], t[:1], rows(cond, slice(1))):
        leave_autocast(module)
    return worst()


@torch.no_grad()
def _sinusoids(network: Network, x_t: Tensor, t: Tensor, cond: Cond, autocast: torch.dtype | None) -> dict[str, Tensor]:
    """What the filtered layers read, float32, by their names."""
    layers = {n: m for n, m in network.net.named_modules() if isinstance(m, Filtered)}
    seen: dict[str, Tensor] = {}
    hooks = [m.register_forward_pre_hook(lambda _, a, n=n: seen.setdefault(n, a[0].float())) for n, m in layers.items()]
    parts = []
    for part in chunks(len(x_t), network.chunk):
        seen.clear()
        network.with_autocast(autocast)(x_t[part] / network.sigma_d, t[part], rows(cond, part))
        parts.append(dict(seen))
    for hook in hooks:
        hook.remove()
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: torch.cat([part[name] for part in parts if name in part]) for name in names}


@torch.no_grad()
def _makers(network: Network, x_t: Tensor, t: Tensor, cond: Cond) -> list[nn.Module]:
    """The modules whose output is what a filtered layer reads."""
    made: list[tuple[weakref.ref[Tensor], nn.Module]] = []
    found: list[nn.Module] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            made.append((weakref.ref(output), module))

    def look(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        found.extend(module for output, module in made if output() is args[0] and module not in found)

    layers = filters(network.net)
    hooks = [m.register_forward_hook(note) for m in network.net.modules() if not isinstance(m, Filtered)]
    hooks += [m.register_forward_pre_hook(look) for m in layers]
    network.with_autocast(None)(x_t / network.sigma_d, t, cond)
    for hook in hooks:
        hook.remove()
    return found


def _first_layer(network: Network, x_t: Tensor, t: Tensor, cond: Cond) -> nn.Module:
    """The first Linear or Conv of the denoiser whose input depends on the sample."""
    found: list[nn.Module] = []

    def record(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if args and fwAD.unpack_dual(args[0]).tangent is not None:
            found.append(module)

    layers = [m for m in network.net.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    hooks = [m.register_forward_pre_hook(record) for m in layers]
    form, tau = native(network.prediction, t, network.sigma_d), network.clock.network_time(t).float()
    try:
        with torch.no_grad(), fwAD.dual_level(), TangentMode():
            x = form.scale(x_t)
            network.call(network.net, fwAD.make_dual(x, torch.ones_like(x)), tau, conditional(cond))
    finally:
        for hook in hooks:
            hook.remove()
    return found[0]
