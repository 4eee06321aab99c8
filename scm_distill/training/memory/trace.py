"""Counts the bytes that a computation allocates, on real tensors or on fake ones, which have all but contents."""

import copy
import weakref
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from scm_distill.autodiff.torch_private import (
    FakeTensor,
    TorchDispatchMode,
    storage_id,
    tree_leaves,
    unset_fake_temporarily,
)
from scm_distill.models.network import Network


class Peak(NamedTuple):
    """The most bytes that were allocated at one time."""

    total: int = 0
    gradients: int = 0  # of parameters, among the total at that time
    bare: int = 0  # the most without gradients, perhaps at another time


class AllocationTracker(TorchDispatchMode):
    """Counts the bytes of all storages that are made within it, until they are freed: `now`, and their `peak`.

    With `fake`, operators on fake tensors run on those, and operators on integers or masks, which stay real, for real.
    """

    def __init__(self, *, fake: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fake, self.now, self.gradients, self.peak = fake, 0, 0, Peak()
        self.seen: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def _add(self, x: Tensor, *, counted: bool) -> None:
        storage = x.untyped_storage()
        key, size = storage_id(x), storage.nbytes() if counted else 0
        if key in self.seen and self.seen[key]() is not None:
            return

        def freed(_: object) -> None:
            self.now -= size
            self.seen.pop(key, None)

        self.seen[key] = weakref.ref(storage, freed)
        self.now += size
        highest = max(self.peak[:2], (self.now, self.gradients))
        self.peak = Peak(*highest, max(self.peak.bare, self.now - self.gradients))

    def add_gradient(self, p: Tensor) -> None:
        """Count the gradient of a parameter as one; for `register_post_accumulate_grad_hook`."""
        assert p.grad is not None
        self.gradients += p.grad.untyped_storage().nbytes()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors, dtype = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)], (kwargs or {}).get("dtype")
        real = tensors or (dtype is not None and not dtype.is_floating_point)  # integers, and what is made of them
        real = self.fake and real and not any(isinstance(x, FakeTensor) for x in tensors)
        for x in tensors:
            self._add(x, counted=False)  # allocated before the trace began
        with unset_fake_temporarily() if real else nullcontext():
            out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                self._add(x, counted=True)
        return out


def fake_copy(network: Network, mode: Any, device: torch.device) -> Network:
    """A copy of `network` on `device` whose floating-point tensors are fake ones of the FakeTensorMode `mode`."""
    clock = network.clock  # its tables are contents; a linear clock takes their place, and as little memory
    ends = SimpleNamespace(t_min=clock.t_min, t_max=clock.t_max, network_time=lambda t: 500 * t)
    memo: dict[int, Any] = {id(clock): ends}
    for x in (*network.parameters(), *network.buffers()):
        if x.is_floating_point() or x.is_meta:
            with mode:
                empty = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=device)
            memo[id(x)] = nn.Parameter(empty, x.requires_grad) if isinstance(x, nn.Parameter) else empty
    return copy.deepcopy(network, memo)
