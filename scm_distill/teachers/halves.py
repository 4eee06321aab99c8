"""Pipelines that evaluate the conditional and the unconditional half at every guidance scale, even where one is unused.

At the scale 1 the scheduler is given the conditional half alone, and that half is read as if it were the whole call.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scm_distill.teachers.convention import at, first_tensor, leaves
from scm_distill.teachers.trace import Call, Step, Trace

SCALE = 1.0  # at which u + w (c - u) is c


@dataclass(frozen=True)
class Halves:
    """Where the halves of a recorded call are: `dims` are the arguments that hold both, with their batch dimension.

    `second` is whether the conditional half is the second one.
    """

    dims: Mapping[str, int]
    second: bool

    def conditional(self, trace: Trace) -> Trace:
        """The record of a call at SCALE with the conditional half of each evaluation alone."""
        steps = [replace(step, calls=[self._half(call) for call in step.calls]) for step in trace.steps]
        return replace(trace, steps=steps, calls=[self._half(call) for call in trace.calls])

    def _half(self, call: Call) -> Call:
        return Call(call.denoiser, self._arguments(call.arguments, ""), _half(call.output, 0, second=self.second))

    def _arguments(self, value: Any, path: str) -> Any:
        if path in self.dims:
            return _half(value, self.dims[path], second=self.second)
        if isinstance(value, Mapping):
            return {key: self._arguments(v, f"{path}.{key}" if path else key) for key, v in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._arguments(v, f"{path}.{i}") for i, v in enumerate(value))
        return value


def _half(value: Any, dim: int, *, second: bool) -> Any:
    """One half of a tensor along `dim`, of a list, or of each entry of a tuple or an output."""
    if isinstance(value, Tensor):
        return value.chunk(2, dim)[int(second)]
    if isinstance(value, list):
        n = len(value) // 2
        return value[n:] if second else value[:n]
    if isinstance(value, tuple):
        return tuple(_half(v, dim, second=second) for v in value)
    if hasattr(value, "items"):
        return type(value)(**{key: _half(v, dim, second=second) for key, v in value.items()})
    return value


def find(one: Trace, two: Trace) -> Halves | None:
    """The halves in the calls at SCALE for one sample and for two; None where a step is anything else than two halves.

    `one` has been evaluated, `two` may come from a stand-in for the denoiser.
    """
    steps = [*one.steps, *two.steps]
    if any(len(s.calls) != 1 or len(next(iter(s.calls[0].arguments.values()))) != 2 * len(s.sample) for s in steps):
        return None
    mine, theirs = one.steps[0].calls[0].arguments, two.steps[0].calls[0].arguments
    dims = {}
    for path, value in leaves(mine):
        other = at(theirs, path)
        if not isinstance(other, Tensor) or other.ndim != value.ndim:
            return None
        doubled = [d for d in range(value.ndim) if other.shape[d] == 2 * value.shape[d]]
        if doubled:
            dims[path] = next((d for d in doubled if value.shape[d] == 2), doubled[0])
    for second in (True, False):
        if all(_is_half(step, second=second) for step in one.steps):
            return Halves(dims, second)
    return None


def _is_half(step: Step, *, second: bool) -> bool:
    """Whether the scheduler is given this half of what the denoiser gave, or a part of it, or its negative."""
    half = first_tensor(_half(step.calls[0].output, 0, second=second)).float()
    given = step.model_output.float()
    if half.numel() != given.numel():
        if half.ndim != given.ndim or any(a < b for a, b in zip(half.shape, given.shape, strict=True)):
            return False
        half = half[tuple(slice(size) for size in given.shape)]
    half = half.reshape(given.shape)
    limit = 1e-5 * float(given.abs().max())
    return any(torch.allclose(sign * half, given, rtol=1e-4, atol=limit) for sign in (1.0, -1.0))
