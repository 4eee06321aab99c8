"""Which weights a network's class starts at zero: gates, tables, last projections; a trained one may still be there."""

from typing import Any

import accelerate
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

aten: Any = torch.ops.aten


class _Zeros(TorchDispatchMode):
    """Follows which tensors hold zeros only, by what is done to them; also on the meta device, where none holds any."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kept: dict[int, Tensor] = {}  # so that no storage is taken for one that is gone
        self.zero: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.kept[_storage(result)] = result
            (self.zero.add if self._is_zero(func.overloadpacket, args) else self.zero.discard)(_storage(result))
        return result

    def _is_zero(self, operator: Any, args: Any) -> bool:
        if operator in (aten.zero_, aten.zeros, aten.zeros_like, aten.new_zeros):
            return True
        if operator in (aten.fill_, aten.full, aten.full_like, aten.new_full):
            return bool(args[1:2] and args[1] == 0)
        copied = operator in (aten.copy_,)
        source = args[1] if copied else args[0] if args else None
        keeps = copied or operator in (aten._to_copy, aten.detach, aten.clone, aten.view, aten.alias, aten.empty_like)
        return keeps and isinstance(source, Tensor) and _storage(source) in self.zero


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata  # type: ignore[no-any-return]


def zero_at_first(net: nn.Module) -> set[str]:
    """The names of the parameters that are zero in a new network of the class and configuration of `net`."""
    kind, config = type(net), getattr(net, "config", None)
    with torch.random.fork_rng(devices=[]), accelerate.init_empty_weights(), _Zeros() as seen:
        new = kind.from_config(config) if hasattr(kind, "from_config") else kind(config)
    return {name for name, p in new.named_parameters(remove_duplicate=False) if _storage(p) in seen.zero}
