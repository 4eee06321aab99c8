"""Which weights a network's class starts at zero: gates, tables, last projections; a trained one may still be there."""

from typing import Any

import accelerate
import torch
from torch import Tensor, nn

from scm_distill.autodiff.torch_private import TorchDispatchMode, storage_id

ZEROS = ("zero_", "zeros", "zeros_like", "new_zeros")  # operators, by the names that they have below autograd
FILLS = ("fill_", "full", "full_like", "new_full")
KEEPS = ("copy_", "_to_copy", "detach", "clone", "view", "alias", "empty_like")


class _Zeros(TorchDispatchMode):
    """Follows which tensors hold zeros only, by what is done to them; also on the meta device, where none holds any."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kept: dict[int, Tensor] = {}  # so that no storage is taken for one that is gone
        self.zero: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.kept[storage_id(result)] = result
            zero = self._is_zero(func.overloadpacket.__name__, args)
            (self.zero.add if zero else self.zero.discard)(storage_id(result))
        return result

    def _is_zero(self, operator: str, args: Any) -> bool:
        if operator in ZEROS:
            return True
        if operator in FILLS:
            return bool(args[1:2] and args[1] == 0)
        source = args[1] if operator == "copy_" else args[0] if args else None
        return operator in KEEPS and isinstance(source, Tensor) and storage_id(source) in self.zero


def zero_at_first(net: nn.Module) -> set[str]:
    """The names of the parameters that are zero in a new network of the class and configuration of `net`."""
    kind, config = type(net), getattr(net, "config", None)
    with torch.random.fork_rng(devices=[]), accelerate.init_empty_weights(), _Zeros() as seen:
        new = kind.from_config(config) if hasattr(kind, "from_config") else kind(config)
    return {name for name, p in new.named_parameters(remove_duplicate=False) if storage_id(p) in seen.zero}
