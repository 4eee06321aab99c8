"""One pass through a network that gives its output with a reverse graph, and the output's tangent without one.

A forward AD level that stays open while a reverse graph is recorded keeps the tangent of every saved activation until
it is closed: twice the memory. So no level stays open. A `Dual` carries primal and tangent side by side; every block of
the network, and every function outside of blocks, runs in a level of its own, which is closed when it returns.

In the `lean` layout a block's level runs without a graph and its backward recomputes the primal: gradient
checkpointing whose first forward is the tangent pass.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad as fwAD

from scm_distill.autodiff.forward_ad import TangentMode
from scm_distill.autodiff.rules import RULES
from scm_distill.autodiff.torch_private import (
    DisableTorchFunctionSubclass,
    make_wrapper_subclass,
    tree_flatten,
    tree_map,
    tree_unflatten,
)


class Dual(Tensor):
    """A tensor with its tangent beside it; `primal` may have a reverse graph, `tangent` has none."""

    primal: Tensor
    tangent: Tensor
    _plain: ClassVar[set[Any]] = {
        getattr(Tensor, name).__get__
        for name in ("shape", "dtype", "device", "ndim", "is_cuda", "layout", "requires_grad", "is_leaf", "grad_fn")
    } | {
        Tensor.size, Tensor.dim, Tensor.numel, Tensor.is_floating_point, Tensor.is_complex, Tensor.__len__,
        Tensor.is_contiguous, Tensor.stride, Tensor.ndimension, Tensor.get_device, Tensor.element_size,
    }  # fmt: skip

    @staticmethod
    def __new__(cls, primal: Tensor, tangent: Tensor) -> "Dual":
        """The pair of `primal` and `tangent`, equal in shape and dtype; the tangent is detached."""
        made: Dual = make_wrapper_subclass(
            cls, primal.shape, strides=primal.stride(), dtype=primal.dtype, device=primal.device
        )
        made.primal, made.tangent = primal, tangent.detach()
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Dual({self.primal!r}, {self.tangent!r})"

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """`func` in a forward AD level of its own."""
        kwargs = kwargs or {}
        if func in cls._plain:
            return func(*tree_map(_primal, args), **tree_map(_primal, kwargs))
        with fwAD.dual_level(), DisableTorchFunctionSubclass():
            inner, named = tree_map(_enter, list(args)), tree_map(_enter, dict(kwargs))
            with TangentMode():
                result = RULES.get(func, func)(*inner, **named)
            if args and isinstance(args[0], Tensor) and result is inner[0]:  # in place: the primal changed by itself
                return _write_back(args[0], inner[0])
            if func is Tensor.__setitem__:
                _write_back(args[0], inner[0])
            return tree_map(_leave, result)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Raises NotImplementedError: reached only by code that goes around torch functions."""
        raise NotImplementedError(f"{func} does not let a pair of primal and tangent through.")


def _primal(x: Any) -> Any:
    return x.primal if isinstance(x, Dual) else x


def _enter(x: Any) -> Any:
    """A `Dual` as a dual tensor of the open level; anything else as it is."""
    return fwAD.make_dual(x.primal, x.tangent) if isinstance(x, Dual) else x


def _leave(x: Any) -> Any:
    """A dual tensor of the open level as a `Dual`; anything else as it is."""
    if not isinstance(x, Tensor) or isinstance(x, nn.Parameter):
        return x
    primal, tangent = fwAD.unpack_dual(x)
    return x if tangent is None else Dual(primal, tangent)


def _write_back(target: Tensor, changed: Tensor) -> Tensor:
    """Give `target`, whose primal was changed in place, the tangent of `changed`. Raises NotImplementedError."""
    tangent = fwAD.unpack_dual(changed).tangent
    if isinstance(target, Dual):
        target.tangent = torch.zeros_like(target.tangent) if tangent is None else tangent.detach()
    elif tangent is not None:
        raise NotImplementedError("A tensor without a tangent was changed in place by one with a tangent.")
    return target


def _params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def blocks(net: nn.Module) -> list[nn.Module]:
    """The repeated parts of a network: the elements of its outermost ModuleLists.

    An element with 90 % of its parameters in such lists of its own (a level of a UNet) is replaced by their elements.
    """
    found: list[nn.Module] = []
    for child in net.children():
        if not isinstance(child, nn.ModuleList):
            found += blocks(child)
            continue
        for element in child:
            inner = blocks(element)
            mostly_lists = sum(map(_params, inner)) >= 0.9 * _params(element)
            found += inner if len(inner) > 1 and mostly_lists else [element]
    return [module for module in found if _params(module)]


Leaves = list[Any]


def flat_level(
    forward: Callable[..., Any], leaves: Leaves, tangents: Leaves, spec: Any, specs: list[Any]
) -> tuple[Leaves, Leaves]:
    """The outputs of `forward` and their tangents (None: zero), both as flat lists.

    `leaves` are the flattened arguments, of the structure `spec`, and `tangents` theirs. The structure of the outputs
    is appended to `specs`.
    """
    with fwAD.dual_level(), TangentMode():
        inner = [x if d is None else fwAD.make_dual(x, d) for x, d in zip(leaves, tangents, strict=True)]
        args, kwargs = tree_unflatten(inner, spec)
        flat, out_spec = tree_flatten(forward(*args, **kwargs))
        specs.append(out_spec)
        pairs = [fwAD.unpack_dual(x) if isinstance(x, Tensor) else (x, None) for x in flat]
        return [p for p, _ in pairs], [None if d is None else d.detach() for _, d in pairs]


def in_level_by(level: Callable[..., Any]) -> Callable[..., tuple[Leaves, Leaves, Any]]:
    """`flat_level`, or a compiled version of it, which returns the structure of the outputs as a third result."""

    def run(forward: Callable[..., Any], leaves: Leaves, tangents: Leaves, spec: Any) -> tuple[Leaves, Leaves, Any]:
        specs: list[Any] = []
        primals, moved = level(forward, leaves, tangents, spec, specs)
        return primals, moved, specs[0]

    return run


in_level = in_level_by(flat_level)


class _Recomputed(torch.autograd.Function):
    """The outputs of a block, computed before, with a backward that recomputes the block, without tangents."""

    @staticmethod
    def forward(
        ctx: Any, recompute: Callable[[list[Tensor]], list[Tensor]], module: nn.Module, outputs: Any, *tensors: Tensor
    ) -> Any:
        ctx.recompute, ctx.module = recompute, module
        ctx.count = len(tensors) - len(list(module.parameters()))
        ctx.needs = [x.requires_grad for x in tensors[: ctx.count]]
        ctx.save_for_backward(*tensors[: ctx.count])
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        with torch.enable_grad():
            inputs = [x.detach().requires_grad_(needs) for x, needs in zip(ctx.saved_tensors, ctx.needs, strict=True)]
            outputs = ctx.recompute([x.view_as(x) for x in inputs])  # leaves may not be changed in place, views may
        pairs = [(y, g) for y, g in zip(outputs, grads, strict=True) if g is not None and y.requires_grad]
        everything = [*inputs, *ctx.module.parameters()]
        moving = [x for x in everything if x.requires_grad]
        gradients = iter(torch.autograd.grad([y for y, _ in pairs], moving, [g for _, g in pairs], allow_unused=True))
        return None, None, None, *(next(gradients) if x.requires_grad else None for x in everything)


def _without_graph(
    module: nn.Module, forward: Callable[..., Any], leaves: Leaves, tangents: Leaves, spec: Any
) -> tuple[Leaves, Leaves, Any]:
    """As `in_level`, but no activations are saved: the backward recomputes the block."""
    with torch.no_grad():
        cut = [x.detach() if isinstance(x, Tensor) else x for x in leaves]
        primals, moved, out_spec = in_level(forward, cut, tangents, spec)
        torch.clear_autocast_cache()  # it would keep a narrow copy of every weight to the end of the pass
    if not torch.is_grad_enabled():
        return primals, moved, out_spec
    in_where = [i for i, x in enumerate(leaves) if isinstance(x, Tensor) and x.is_floating_point()]
    out_where = [i for i, y in enumerate(primals) if isinstance(y, Tensor) and y.is_floating_point()]
    device = next(x.device.type for x in leaves if isinstance(x, Tensor))
    cast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))

    def recompute(inputs: list[Tensor]) -> list[Tensor]:
        full = list(others)
        for i, x in zip(in_where, inputs, strict=True):
            full[i] = x
        args, kwargs = tree_unflatten(full, spec)
        with torch.autocast(cast[0], cast[1], enabled=cast[2]):
            flat = tree_flatten(forward(*args, **kwargs))[0]
        return [flat[i] for i in out_where]

    others = [None if i in set(in_where) else x for i, x in enumerate(leaves)]
    outputs = [primals[i] for i in out_where]
    with_backward: Any = _Recomputed.apply
    outs = with_backward(recompute, module, outputs, *(leaves[i] for i in in_where), *module.parameters())
    for i, y in zip(out_where, outs, strict=True):
        primals[i] = y
    return primals, moved, out_spec


@contextmanager
def regions(modules: Sequence[nn.Module], *, lean: bool, run: Callable[..., Any] = in_level) -> Iterator[None]:
    """A context in which every call of one of `modules` with a `Dual` runs in a single level, by `run`.

    The module's other hooks, such as those in which FSDP2 gathers and frees parameters, see plain tensors. With `lean`
    the backward recomputes the modules, also after calls without a `Dual`.
    """
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(_region(module, lean=lean, run=run))
        yield


@contextmanager
def _region(module: nn.Module, *, lean: bool, run: Callable[..., Any]) -> Iterator[None]:
    stash: list[Leaves] = []
    forward = module.forward

    def before(_: nn.Module, args: Any, kwargs: Any) -> Any:
        leaves, spec = tree_flatten((args, kwargs))
        if not any(isinstance(x, Dual) for x in leaves) and not (lean and torch.is_grad_enabled()):
            return None
        stash.append([x.tangent if isinstance(x, Dual) else None for x in leaves])
        return tree_unflatten([_primal(x) for x in leaves], spec)

    def inside(*args: Any, **kwargs: Any) -> Any:
        if not stash:
            return forward(*args, **kwargs)
        leaves, spec = tree_flatten((args, kwargs))
        if lean:
            primals, tangents, out_spec = _without_graph(module, forward, leaves, stash.pop(), spec)
        else:
            primals, tangents, out_spec = run(forward, leaves, stash.pop(), spec)
        stash.append(tangents)
        return tree_unflatten(primals, out_spec)

    def after(_: nn.Module, __: Any, output: Any) -> Any:
        if not stash:
            return None
        leaves, spec = tree_flatten(output)
        pairs = zip(leaves, stash.pop(), strict=True)
        return tree_unflatten([y if d is None else Dual(y, d) for y, d in pairs], spec)

    handles = [
        module.register_forward_pre_hook(before, prepend=True, with_kwargs=True),
        module.register_forward_hook(after),
    ]
    own = module.__dict__.get("forward")
    module.forward = inside
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        if own is None:
            del module.forward
        else:
            module.forward = own


def one_pass(f: Callable[..., Tensor], primals: Sequence[Tensor], tangents: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """f(*primals) with its reverse graph, and its derivative along `tangents` without one.

    Raises NotImplementedError where an operator of `f` has no forward derivative, or writes a tangent to where none can
    be; RuntimeError where the output does not depend on the inputs.
    """
    result = f(*(Dual(p, d) for p, d in zip(primals, tangents, strict=True)))
    if not isinstance(result, Dual):
        raise RuntimeError("The output carries no tangent: some operator dropped it, or ignores every input.")
    return result.primal, result.tangent
