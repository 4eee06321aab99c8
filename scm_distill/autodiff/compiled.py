"""Blocks and whole passes through torch.compile.

A network has many kinds of block: a UNet of Stable Diffusion 44, by class, parameters and inputs. One compiled function
that serves all of them would look through all their conditions in every call, and stop at torch's limit of 8. So every
kind has a function of its own, compiled when a block of the kind is first called. torch keeps the code on disk
(`inductor_cache` in `torch_private.py`), so that a second run finds it.
"""

import types
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad as fwAD

from scm_distill.autodiff import dual
from scm_distill.autodiff.forward_ad import TangentMode
from scm_distill.autodiff.torch_private import tree_flatten

_PARAMETERS: WeakKeyDictionary[nn.Module, Hashable] = WeakKeyDictionary()


def _parameters(module: nn.Module) -> Hashable:
    """Names, shapes and dtypes of all parameters, and which are trained."""
    if module not in _PARAMETERS:
        named = module.named_parameters()
        _PARAMETERS[module] = tuple((name, p.shape, p.dtype, p.requires_grad) for name, p in named)
    return _PARAMETERS[module]


def _leaf(x: Any) -> Any:
    """What compiled code depends on in an argument."""
    if isinstance(x, Tensor):
        return (x.shape, x.stride(), x.dtype, x.device, x.requires_grad)
    return x if isinstance(x, int | float | str | bool | None) else type(x)


def kind(forward: Callable[..., Any], leaves: Sequence[Any], tangents: Sequence[Any], spec: Any) -> Hashable:
    """Equal for two calls that one compiled function serves.

    `forward` is a module's, `leaves` are its flattened arguments, of the structure `spec`; `tangents` are theirs, of
    which None is zero.
    """
    module = getattr(forward, "__self__", None)
    owner = (type(module), _parameters(module)) if isinstance(module, nn.Module) else type(forward)
    device = next((x.device.type for x in leaves if isinstance(x, Tensor)), "cpu")
    cast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    inputs = tuple(_leaf(x) for x in leaves), tuple(_leaf(d) for d in tangents), repr(spec)
    return owner, inputs, cast, torch.is_grad_enabled()


def _own(function: types.FunctionType) -> Any:
    """A copy of a function with a code object of its own, compiled: torch keeps compiled code by code object."""
    code = function.__code__.replace()
    copied = types.FunctionType(code, function.__globals__, function.__name__, function.__defaults__)
    return torch.compile(copied, fullgraph=True, dynamic=False)


def _call(forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    return forward(*args, **kwargs)


class Kinds:
    """`function`, compiled once for every kind of block."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.by_kind: dict[Hashable, Any] = {}
        self.heard: Callable[[str], None] = lambda _: None  # hears the class of a block that will be compiled

    def of(self, forward: Callable[..., Any], key: Hashable) -> Any:
        """The compiled function of the kind `key`, for a block's `forward`."""
        if key not in self.by_kind:
            self.heard(type(getattr(forward, "__self__", forward)).__name__)
            self.by_kind[key] = _own(self.function)
        return self.by_kind[key]


LEVELS, CALLS = Kinds(dual.flat_level), Kinds(_call)


def in_level(
    forward: Callable[..., Any], leaves: list[Any], tangents: list[Any], spec: Any
) -> tuple[list[Any], list[Any], Any]:
    """As `dual.in_level`, compiled."""
    level = LEVELS.of(forward, kind(forward, leaves, tangents, spec))
    return dual.in_level_by(level)(forward, leaves, tangents, spec)


@contextmanager
def forwards(modules: Sequence[nn.Module]) -> Iterator[None]:
    """A context in which the forward of every one of `modules` is compiled, for passes without a tangent."""
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(_forward(module))
        yield


@contextmanager
def _forward(module: nn.Module) -> Iterator[None]:
    forward, own = module.forward, module.__dict__.get("forward")

    def run(*args: Any, **kwargs: Any) -> Any:
        leaves, spec = tree_flatten((args, kwargs))
        return CALLS.of(forward, kind(forward, leaves, (), spec))(forward, args, kwargs)

    module.forward = run
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def _whole(F: Any, x: Tensor, t: Tensor, cond: Any, dx: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """F and its derivative in one forward AD level, for the compiler, which saves no tangents for the backward.

    `dx` and `dt` are the tangents of x and t, see `direction` in derivatives.py.
    """
    with fwAD.dual_level(), TangentMode():
        primal, tangent = fwAD.unpack_dual(F(fwAD.make_dual(x, dx), fwAD.make_dual(t, dt), cond))
        assert tangent is not None
        return primal, tangent.detach()


@cache
def whole() -> Any:
    """A pass as one graph: F (B, ...) and its derivative from F, x, t, cond and the tangents of x and t."""
    return torch.compile(_whole, fullgraph=True, dynamic=False)
