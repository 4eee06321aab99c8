"""dF/dt: an exact Jacobian-vector product by forward-mode AD, and central differences to check it.

Dual numbers, not torch.func.jvp: they also pass DDP and FSDP2. A TorchFunctionMode replaces, inside the tangent pass
only, the few functions whose own forward derivative is missing (fused attention, GroupNorm on a non-contiguous input)
or wasteful (Linear and Conv multiply by the zero tangent of a weight: a third product).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad as fwAD
from torch.overrides import TorchFunctionMode

from scm_distill.models.attention import scaled_dot_product_attention

functional = torch.nn.functional


def _linear_in_input(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Linear and Conv: y = W x + b, dy = W dx: two products where forward AD spends three."""

    def rule(input: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        (x, dx), (w, dw) = fwAD.unpack_dual(input), fwAD.unpack_dual(weight)
        if dx is None or dw is not None:  # nothing to save, or a weight that does move: PyTorch's own rule
            return function(input, weight, bias, *args, **kwargs)
        db = None if bias is None else fwAD.unpack_dual(bias).tangent
        if db is not None:
            return function(input, weight, bias, *args, **kwargs)
        y = function(x, w, bias, *args, **kwargs)
        dual: Tensor = fwAD.make_dual(y, function(dx, w, None, *args, **kwargs))
        return dual

    return rule


def _group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """y = w x^ + b with x^ = (x - mean) / std of each group: dy = w (dx - mean(dx) - x^ mean(x^ dx)) / std.

    PyTorch's own forward derivative views its input and fails on one that is not contiguous (what attention returns).
    """
    x, dx = fwAD.unpack_dual(input)
    y = functional.group_norm(x, num_groups, weight, bias, eps)
    if dx is None:
        return y
    wide = torch.promote_types(x.dtype, torch.float32)
    groups, d_groups = (v.to(wide).reshape(len(x), num_groups, -1) for v in (x, dx))
    centred = groups - groups.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + eps).rsqrt()
    hat = centred * scale
    dy = scale * (d_groups - d_groups.mean(-1, keepdim=True) - hat * (hat * d_groups).mean(-1, keepdim=True))
    dy = dy.reshape(x.shape)
    if weight is not None:
        dy = dy * weight.to(wide).reshape(-1, *[1] * (x.ndim - 2))
    dual: Tensor = fwAD.make_dual(y, dy.to(y.dtype))
    return dual


RULES: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.scaled_dot_product_attention: scaled_dot_product_attention,
    functional.group_norm: _group_norm,
    **{f: _linear_in_input(f) for f in (functional.linear, torch.conv1d, torch.conv2d, torch.conv3d)},
}


class TangentMode(TorchFunctionMode):
    """Run every torch function through its rule in `RULES`, if it has one."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return RULES.get(func, func)(*args, **(kwargs or {}))


def jvp(f: Callable[..., Tensor], primals: Sequence[Tensor], tangents: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return f(*primals) and its derivative along `tangents`, exact, detached, without a reverse graph.

    `primals` and `tangents` agree in number, shape and dtype. Raises NotImplementedError where an operator of `f` has
    no forward derivative, RuntimeError where the output does not depend on the inputs.
    """
    with torch.no_grad(), fwAD.dual_level(), TangentMode():
        duals = [fwAD.make_dual(p.detach(), d.detach()) for p, d in zip(primals, tangents, strict=True)]
        primal, tangent = fwAD.unpack_dual(f(*duals))
        if tangent is None:
            raise RuntimeError("The output carries no tangent: some operator dropped it, or ignores every input.")
        return primal.detach(), tangent.detach()


class Float64(TorchFunctionMode):
    """Every float32 that a network asks for by name becomes float64: for checks, whose differences would drown else."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.float:
            return args[0].double()

        def wide(x: Any) -> Any:
            return torch.float64 if x is torch.float32 else x

        return func(*map(wide, args), **{name: wide(value) for name, value in (kwargs or {}).items()})


def central_difference(
    f: Callable[[Tensor, Tensor], Tensor],
    x_t: Tensor,
    dxdt: Tensor,
    t: Tensor,
    *,
    sigma_d: float,
    h: float,
) -> Tensor:
    """cos(t) sin(t) dF/dt by a central difference of f(x / sigma_d, t) along the flow, (B, ...).

    `h` is the step in ln(tan t), so the step in t is h cos(t) sin(t) and the product with cos(t) sin(t) needs no
    division by it. The flow line is the rotation x(t + d) = cos(d) x_t + sin(d) dx_t/dt. Needs float32 or wider.
    """
    with torch.no_grad():
        step = h * t.cos() * t.sin()
        wide = step.reshape(-1, *[1] * (x_t.ndim - 1)).to(x_t.dtype)
        ahead = f((wide.cos() * x_t + wide.sin() * dxdt) / sigma_d, t + step)
        behind = f((wide.cos() * x_t - wide.sin() * dxdt) / sigma_d, t - step)
        return (ahead - behind) / (2 * h)
