"""Noise of a batch, sample by sample: the draws that a stock pipeline makes for each of the samples alone."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class PerSample(TorchFunctionMode):
    """Within it, sample i of a batch gets the normal draws that torch.manual_seed(seeds[i]) gives to it alone.

    `generators` are for the pipeline's call, on the CPU. Many schedulers draw their later noise without a generator,
    for the whole batch, from the global one of the device, which torch.manual_seed sets too: in place of such a draw
    each sample draws from its own generator on that device. A leading dimension of k times the batch is k copies of the
    batch, as classifier-free guidance has them. All other draws come from the global generator.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__()
        self.seeds = seeds
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._of_device = {"cpu": self.generators}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called for every torch function; replaces randn and randn_like where they have no generator."""
        kwargs = dict(kwargs or {})
        if func not in (torch.randn, torch.randn_like) or kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        if func is torch.randn_like:
            like: Tensor = args[0] if args else kwargs["input"]
            shape, device, dtype = like.shape, kwargs.get("device") or like.device, kwargs.get("dtype") or like.dtype
        else:
            size = kwargs["size"] if "size" in kwargs else args if isinstance(args[0], int) else args[0]
            shape, device, dtype = torch.Size(size), kwargs.get("device") or "cpu", kwargs.get("dtype")
        n = len(self.seeds)
        if not shape or shape[0] % n:
            return func(*args, **kwargs)
        own = [
            torch.randn((shape[0] // n, *shape[1:]), generator=g, device=device, dtype=dtype)
            for g in self._on(torch.device(device))
        ]
        return torch.stack(own, 1).reshape(shape)

    def _on(self, device: torch.device) -> list[torch.Generator]:
        key = str(device)
        if key not in self._of_device:
            self._of_device[key] = [torch.Generator(device).manual_seed(seed) for seed in self.seeds]
        return self._of_device[key]
