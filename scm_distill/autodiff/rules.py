"""Forward derivatives of single functions: exact, and without a product by a tangent that is zero.

PyTorch's forward AD gives every operand a tangent. One that does not move gets zeros, which are then multiplied: a
third product in Linear, Conv and matmul, and twenty times the time of a LayerNorm or of a product with plain numbers.
A rule takes the arguments of the function that it replaces, dual or not. The reverse graph of its primal is the
function's own; its tangent has none. Functions without a rule, and calls that a rule does not cover, are PyTorch's.

x, dx   a primal and its tangent; None is a tangent of zero
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad as fwAD

from scm_distill.autodiff.attention import scaled_dot_product_attention
from scm_distill.autodiff.torch_private import (
    gelu_backward,
    native_group_norm,
    native_group_norm_backward,
    native_layer_norm,
    native_layer_norm_backward,
    silu_backward,
    softmax_backward,
)

functional = torch.nn.functional
Function = Callable[..., Any]


def split(x: Any) -> tuple[Any, Tensor | None]:
    """The primal and the tangent of a dual tensor; for anything else the value itself and None."""
    if not isinstance(x, Tensor) or isinstance(x, nn.Parameter):  # unpacking a weight would hide from autocast's cache
        return x, None
    primal, tangent = fwAD.unpack_dual(x)
    return (x, None) if tangent is None else (primal, tangent.detach())


def plain(x: Any) -> Any:
    """`x`, detached if it is a tensor."""
    return x.detach() if isinstance(x, Tensor) else x


def dual(y: Tensor, dy: Tensor) -> Tensor:
    """The dual tensor of `y`, with its reverse graph, and the tangent `dy`, made of its shape and dtype."""
    with torch.no_grad():
        dy = dy.to(y.dtype).expand_as(y)
    made: Tensor = fwAD.make_dual(y, dy)
    return made


def _linear_in_input(function: Function) -> Function:
    """Linear and Conv: y = W x + b, dy = W dx: two products where forward AD spends three."""

    def rule(input: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        (x, dx), (w, dw), (b, db) = split(input), split(weight), split(bias)
        if dx is None or dw is not None or db is not None:  # nothing to save, or a weight that does move
            return function(input, weight, bias, *args, **kwargs)  # type: ignore[no-any-return]
        y = function(x, w, b, *args, **kwargs)
        with torch.no_grad():
            dy = function(dx, w, None, *args, **kwargs)  # w, not a copy of it: autocast has narrowed it already
        return dual(y, dy)

    return rule


def _product(function: Function, *, pointwise: bool) -> Function:
    """Products of two, mul (`pointwise`) as well as matmul: d(a b) = da b + a db."""

    def rule(*args: Any, **kwargs: Any) -> Any:
        pairs = [split(x) for x in args]
        if len(pairs) != 2 or kwargs or all(d is None for _, d in pairs):
            return function(*args, **kwargs)
        (a_, da), (b_, db) = pairs
        y = function(a_, b_)
        with torch.no_grad():
            parts = [function(da, plain(b_))] if da is not None else []
            if pointwise and parts and db is not None and a_.dtype == b_.dtype:
                dy = torch.addcmul(parts[0], plain(a_), db)
            else:
                parts += [function(plain(a_), db)] if db is not None else []
                dy = sum(parts[1:], parts[0])
        return dual(y, dy)

    return rule


def _sum(function: Function, sign: int) -> Function:
    """a + alpha b (`sign` 1) and a - alpha b (`sign` -1)."""

    def rule(*args: Any, **kwargs: Any) -> Any:
        pairs = [split(x) for x in args]
        if len(pairs) != 2 or kwargs.keys() - {"alpha"} or all(d is None for _, d in pairs):
            return function(*args, **kwargs)
        (a_, da), (b_, db) = pairs
        y = function(a_, b_, **kwargs)
        with torch.no_grad():
            dy: Any = da if db is None else sign * kwargs.get("alpha", 1) * db
            if da is not None and db is not None:
                dy = function(da, db, **kwargs)
            elif dy.stride() != y.stride():  # a tangent lies as its primal does: else torch fills zeros, then copies
                dy = torch.empty_like(y).copy_(dy)
        return dual(y, dy)

    return rule


def _quotient(function: Function) -> Function:
    """d(a / b) = (da - (a / b) db) / b."""

    def rule(*args: Any, **kwargs: Any) -> Any:
        pairs = [split(x) for x in args]
        if len(pairs) != 2 or kwargs or all(d is None for _, d in pairs):
            return function(*args, **kwargs)
        (a_, da), (b_, db) = pairs
        y = function(a_, b_)
        with torch.no_grad():
            parts = [] if da is None else [da / plain(b_)]
            if db is not None:
                parts.append(-plain(y) * db / plain(b_))
            dy = sum(parts[1:], parts[0])
        return dual(y, dy)

    return rule


def _einsum(equation: str, *operands: Any) -> Any:
    """One einsum for each operand that moves."""
    tensors = operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    pairs = [split(x) for x in tensors]
    if all(d is None for _, d in pairs):
        return torch.einsum(equation, *tensors)
    y = torch.einsum(equation, *(x for x, _ in pairs))
    with torch.no_grad():
        still = [plain(x) for x, _ in pairs]
        parts = [
            torch.einsum(equation, *still[:i], d, *still[i + 1 :]) for i, (_, d) in enumerate(pairs) if d is not None
        ]
        dy = sum(parts[1:], parts[0])
    return dual(y, dy)


def _added_product(product: Function, function: Function) -> Function:
    """addmm and baddbmm: beta c + alpha a b, with `product` for a b."""

    def rule(*args: Tensor, beta: float = 1, alpha: float = 1, **kwargs: Any) -> Tensor:
        pairs = [split(x) for x in args]
        if len(pairs) != 3 or kwargs or all(d is None for _, d in pairs):
            return function(*args, beta=beta, alpha=alpha, **kwargs)  # type: ignore[no-any-return]
        (c_, dc), (a_, da), (b_, db) = pairs
        y: Tensor = function(c_, a_, b_, beta=beta, alpha=alpha)
        with torch.no_grad():
            parts = [beta * dc] if dc is not None else []
            parts += [alpha * product(da, plain(b_))] if da is not None else []
            parts += [alpha * product(plain(a_), db)] if db is not None else []
            dy = sum(parts[1:], parts[0])
        return dual(y, dy)

    return rule


# The Jacobian of a normalization without weight, of a softmax and of a pointwise function is symmetric: its product
# with a tangent is its product with a gradient, for which PyTorch has one fused kernel.


def _widened(x: Tensor, *weights: Tensor | None) -> Any:
    """The arguments as PyTorch's normalizations take them: autocast of a GPU makes narrow ones float32."""
    device = x.device.type
    if device == "cpu" or not torch.is_autocast_enabled(device):
        return x, *weights
    return tuple(v if v is None or v.dtype == torch.float64 else v.float() for v in (x, *weights))


def _statistics(x: Tensor, *statistics: Tensor) -> Any:
    """Those of a normalization of `x`, as its backward takes them: on a CPU of the dtype of x."""
    return (v.detach().to(x.dtype) if x.device.type == "cpu" else v.detach() for v in statistics)


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """y = w x^ + b, x^ = (x - mean) / std: dy = w (dx - mean(dx) - x^ mean(x^ dx)) / std."""
    (x, dx), (w, dw), (b, db) = split(input), split(weight), split(bias)
    if dx is None or dw is not None or db is not None:
        return functional.layer_norm(input, normalized_shape, weight, bias, eps)
    shape, (x, w, b) = list(normalized_shape), _widened(x, w, b)
    y, mean, rstd = native_layer_norm(x, shape, w, b, eps)
    with torch.no_grad(), torch.autocast(y.device.type, enabled=False):
        x, dx, (mean, rstd) = plain(x), dx.to(y.dtype), _statistics(x, mean, rstd)
        dy = native_layer_norm_backward(dx, x, shape, mean, rstd, None, None, [True, False, False])[0]
        dy = dy if w is None else dy * w
    return dual(y, dy)


def _group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """As `_layer_norm`. PyTorch's own forward derivative fails on an input that is not contiguous, as of attention."""
    (x, dx), (w, dw), (b, db) = split(input), split(weight), split(bias)
    if dx is None or dw is not None or db is not None:
        return functional.group_norm(input, num_groups, weight, bias, eps)
    x, w, b = _widened(x.contiguous(), w, b)
    size = (len(x), x.shape[1], x[0, 0].numel())
    y, mean, rstd = native_group_norm(x, w, b, *size, num_groups, eps)
    with torch.no_grad(), torch.autocast(y.device.type, enabled=False):
        x, dx, (mean, rstd) = plain(x), dx.to(y.dtype).contiguous(), _statistics(x, mean, rstd)
        dy = native_group_norm_backward(dx, x, mean, rstd, None, *size, num_groups, [True, False, False])[0]
        dy = dy if w is None else dy * w.reshape(-1, *[1] * (x.ndim - 2))
    return dual(y, dy)


def _rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """y = w x^, x^ = x / rms: dy = w (dx - x^ mean(x^ dx)) / rms."""
    (x, dx), (w, dw) = split(input), split(weight)
    if dx is None or dw is not None:
        return functional.rms_norm(input, list(normalized_shape), weight, eps)
    y = functional.rms_norm(x, list(normalized_shape), w, eps)
    with torch.no_grad(), torch.autocast(y.device.type, enabled=False):
        wide = torch.promote_types(y.dtype, torch.float32)
        x, dx = plain(x).to(wide), dx.to(wide)
        dims = tuple(range(-len(normalized_shape), 0))
        smallest = torch.finfo(wide).eps if eps is None else eps
        scale = (x.square().mean(dims, keepdim=True) + smallest).rsqrt()
        hat = x * scale
        dy = scale * (dx - hat * (hat * dx).mean(dims, keepdim=True))
        dy = dy if w is None else dy * w
    return dual(y, dy)


def _silu(input: Tensor, inplace: bool = False) -> Tensor:  # noqa: FBT001, FBT002 - torch's signature
    x, dx = split(input)
    if dx is None or inplace:
        return functional.silu(input, inplace=inplace)
    y = functional.silu(x)
    with torch.no_grad():
        dy = silu_backward(dx, plain(x))
    return dual(y, dy)


def _gelu(input: Tensor, approximate: str = "none") -> Tensor:
    x, dx = split(input)
    if dx is None:
        return functional.gelu(input, approximate=approximate)
    y = functional.gelu(x, approximate=approximate)
    with torch.no_grad():
        dy = gelu_backward(dx, plain(x), approximate=approximate)
    return dual(y, dy)


def _softmax(function: Function) -> Function:
    """dP = P (dS - sum(P dS))."""

    def rule(input: Tensor, dim: int | None = None, *args: Any, **kwargs: Any) -> Tensor:
        x, dx = split(input)
        if dx is None or dim is None:
            return function(input, dim, *args, **kwargs)  # type: ignore[no-any-return]
        y: Tensor = function(x, dim, *args, **kwargs)
        with torch.no_grad(), torch.autocast(y.device.type, enabled=False):
            dy = softmax_backward(dx.to(y.dtype), plain(y), dim, y.dtype)
        return dual(y, dy)

    return rule


def _rules() -> dict[Function, Function]:
    T, F = torch.Tensor, functional
    rules: dict[Function, Function] = {
        F.scaled_dot_product_attention: scaled_dot_product_attention,
        F.layer_norm: _layer_norm,
        F.group_norm: _group_norm,
        F.rms_norm: _rms_norm,
        F.silu: _silu,
        F.gelu: _gelu,
        torch.einsum: _einsum,
    }
    transposed = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
    rules |= {f: _linear_in_input(f) for f in (F.linear, torch.conv1d, torch.conv2d, torch.conv3d, *transposed)}
    products = (torch.matmul, T.matmul, torch.bmm, T.bmm, torch.mm, T.mm)
    rules |= {f: _product(f, pointwise=False) for f in products}
    rules |= {f: _product(f, pointwise=True) for f in (torch.mul, T.mul, torch.multiply, T.multiply)}
    rules |= {f: _sum(f, 1) for f in (torch.add, T.add)} | {f: _sum(f, -1) for f in (torch.sub, T.sub)}
    rules |= {f: _quotient(f) for f in (torch.div, T.div)}
    rules |= {f: _softmax(f) for f in (F.softmax, torch.softmax, T.softmax)}
    return (
        rules
        | {torch.addmm: _added_product(torch.mm, torch.addmm)}
        | {torch.baddbmm: _added_product(torch.bmm, torch.baddbmm)}
    )


RULES = _rules()
