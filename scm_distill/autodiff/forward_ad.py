"""Exact Jacobian-vector products by forward-mode AD.

Dual numbers, not torch.func.jvp, since they also pass DDP and FSDP2. During a tangent pass, and only then, a
TorchFunctionMode replaces the functions whose own forward derivative is missing or slow (`rules.py`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad as fwAD
from torch.overrides import TorchFunctionMode

from scm_distill.autodiff.rules import RULES


class TangentMode(TorchFunctionMode):
    """A context in which every torch function that has a rule in `RULES` is computed by that rule."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return RULES.get(func, func)(*args, **(kwargs or {}))


def jvp(f: Callable[..., Tensor], primals: Sequence[Tensor], tangents: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """f(*primals) and its derivative along `tangents`, exact, detached, without a reverse graph.

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
    """A context in which float32, where a network names it, means float64.

    For checks by differences of a network that was cast to float64: casts to float32 inside of it would drown them.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.float:
            return args[0].double()

        def wide(x: Any) -> Any:
            return torch.float64 if x is torch.float32 else x

        return func(*map(wide, args), **{name: wide(value) for name, value in (kwargs or {}).items()})


@contextmanager
def without_tf32() -> Iterator[None]:
    """Within it float32 products and convolutions are computed without TF32, which cuDNN takes by default."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
