"""Networks that hold the tensors of another one, so that no second copy of its weights takes memory."""

import copy
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def shared_copy(module: Module, *, but: Collection[Tensor] = ()) -> Module:
    """A copy of `module` whose parameters and buffers are the module's own, except those in `but`, which are copied.

    What is then written into a shared tensor changes both; a tensor that is replaced changes the copy alone.
    """
    copied = {id(x) for x in but}
    memo: dict[int, Any] = {id(x): x for x in (*module.parameters(), *module.buffers()) if id(x) not in copied}
    return copy.deepcopy(module, memo)


@torch.no_grad()
def filled(make: Callable[[], Any], tensors: Mapping[str, Tensor], *, absent_are_zero: bool = False) -> Any:
    """The network that `make` returns, its parameters and saved buffers being `tensors`, a state dict, none copied.

    `make` runs without memory for parameters. Raises RuntimeError where a name or a shape differs, as
    `load_state_dict` does; with `absent_are_zero` a parameter that `tensors` lacks is zero instead.
    """
    with torch.random.fork_rng(), init_empty_weights(include_buffers=False):
        net = make()
    like = next(iter(tensors.values()))
    absent = {name: p for name, p in net.state_dict().items() if absent_are_zero and name not in tensors}
    zeros = {name: torch.zeros(p.shape, dtype=like.dtype, device=like.device) for name, p in absent.items()}
    net.load_state_dict({**tensors, **zeros}, assign=True)
    return net.to(like.device).eval()
