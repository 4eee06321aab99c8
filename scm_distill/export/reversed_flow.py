"""A flow that counts from noise to data, made one that counts as stock schedulers can sample it: -net(x, C - tau).

Stochastic sampling with invert_sigmas is wrong in diffusers (it takes sigma for noise), so Mochi and its like are
turned round in their weights: cos and sin of w (C - tau) are a rotation of cos and sin of w tau, which the first layer
of the time embedding absorbs, and the last layer is negated. Both are found by running the network, and checked by it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from scm_distill.errors import UserError
from scm_distill.maths.cond import Cond
from scm_distill.models import low_pass
from scm_distill.models.network import Network

TIMES = 16


@torch.no_grad()
def reverse(network: Network, folded: nn.Module, x_nat: Tensor, cond: Cond, total: float) -> nn.Module:
    """`folded`, a stock copy of the network's denoiser, turned round in place, so that it gives -net(x, C - tau).

    `x_nat` (1, ...) and `cond` {name: (1, ...)} are any inputs of it; `total` is C, the network's time at t = 0.
    Raises UserError where the result, run on these inputs, is another one.
    """
    names = [name for name, module in network.net.named_modules() if isinstance(module, low_pass.Filtered)]
    call: Any = network.call
    tau = torch.linspace(0.03, 0.97, TIMES, device=x_nat.device) * total
    x = x_nat.expand(TIMES, *x_nat.shape[1:]).contiguous()
    many = {name: value.expand(TIMES, *value.shape[1:]).contiguous() for name, value in cond.items()}
    before = call(folded, x, total - tau, many)
    features = [_inputs(folded, names, lambda time=time: call(folded, x, time, many)) for time in (tau, total - tau)]
    for name in names:
        layer: Any = folded.get_submodule(name)
        e, turned = (f[name].double() for f in features)
        half, weight = e.shape[1] // 2, layer.weight.double()
        new = weight.clone()
        for i in range(half):
            pair = [i, i + half]
            rotation = torch.linalg.lstsq(e[:, pair], turned[:, pair]).solution  # turned = e @ rotation
            new[:, pair] = weight[:, pair] @ rotation.mT
        layer.weight.copy_(new)
    _negate(folded, lambda: call(folded, x, tau, many))
    after = call(folded, x, tau, many)
    if not (after + before).norm() <= 1e-3 * before.norm():
        raise UserError(
            "This network counts from noise to data, and could not be turned round for a stock scheduler.",
            "Its family needs an override of `exported`: see the README on teachers/families.",
        )
    return folded


def _inputs(net: nn.Module, names: list[str], run: Any) -> dict[str, Tensor]:
    """The inputs (TIMES, features) of the layers `names` in one call of `run`."""
    seen: dict[str, Tensor] = {}
    hooks = [
        net.get_submodule(name).register_forward_pre_hook(lambda _, args, n=name: seen.setdefault(n, args[0].clone()))
        for name in names
    ]
    run()
    for hook in hooks:
        hook.remove()
    return {name: value.reshape(TIMES, -1) for name, value in seen.items()}


def _negate(net: nn.Module, run: Any) -> None:
    """Negate the weights of the layer that runs last in `run`."""
    order: list[nn.Module] = []
    layers = [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.Conv3d | nn.Conv1d)]
    hooks = [m.register_forward_hook(lambda module, *_: order.append(module)) for m in layers]
    run()
    for hook in hooks:
        hook.remove()
    last = order[-1]
    for name, parameter in list(last.named_parameters(recurse=False)):  # replaced, since `net` shares its weights
        setattr(last, name, nn.Parameter(-parameter, parameter.requires_grad))
