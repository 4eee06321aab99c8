"""dF/dt: an exact Jacobian-vector product by forward-mode AD, and central differences to check it.

Dual numbers, not torch.func.jvp: they also pass DDP and FSDP2. A TorchFunctionMode replaces, inside the tangent pass
only, the functions whose own forward derivative is missing or wasteful (`rules.py`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad as fwAD
from torch.overrides import TorchFunctionMode

from scm_distill.autodiff.rules import RULES


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
