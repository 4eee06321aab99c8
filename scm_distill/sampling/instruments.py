"""Counts the calls of denoisers, checks their outputs, compiles them, and compares samples."""

import functools
import gc
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from scm_distill.autodiff.torch_private import DisableTorchFunction
from scm_distill.data.pictures import to_array
from scm_distill.errors import UserError


@contextmanager
def counted(nets: Sequence[nn.Module]) -> Iterator[list[int]]:
    """Within it, the list that is yielded grows by the batch size of every call of these networks.

    With classifier-free guidance that is twice the number of samples.
    """
    rows: list[int] = []

    def count(first: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            rows.append(len(args[0] if args else kwargs[first]))

        return hook

    handles = [
        net.register_forward_pre_hook(count(next(iter(inspect.signature(net.forward).parameters))), with_kwargs=True)
        for net in nets
    ]
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def finite(nets: Sequence[nn.Module], dtype: torch.dtype) -> Iterator[None]:
    """Within it, raise UserError when one of these networks returns what is not finite: decoded, it would be black.

    `dtype` is that of their weights, for the message.
    """

    def hook(_: nn.Module, __: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple | list) else next(iter(output.values()))
        for x in first if isinstance(first, list) else [first]:
            if not x.isfinite().all():
                raise UserError(
                    f"The denoiser's output is not finite in {str(dtype).removeprefix('torch.')}.",
                    "Give --dtype fp32 or bf16; if that changes nothing, train again with a lower optimizer.lr.",
                    code=1,
                )

    handles = [net.register_forward_hook(hook) for net in nets]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def compiled(net: nn.Module) -> None:
    """Compile the forward of `net` by torch.compile, in place; its hooks, and modes that change draws, stay outside."""
    forward = net.forward
    fast = torch.compile(forward)

    @functools.wraps(forward)
    def call(*args: Any, **kwargs: Any) -> Any:
        with DisableTorchFunction():
            return fast(*args, **kwargs)

    net.forward = call


def free() -> None:
    """Return memory that torch caches to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def mean_difference(one: Any, other: Any) -> float:
    """Mean absolute difference of two samples, in standard deviations of the first; inf where their shapes differ."""
    a, b = _array(one), _array(other)
    return float(np.abs(a - b).mean() / max(a.std(), 1e-12)) if a.shape == b.shape else float("inf")


def _array(sample: Any) -> Any:
    if isinstance(sample, list):
        return np.stack([_array(frame) for frame in sample])
    return to_array(sample).astype(np.float64)
