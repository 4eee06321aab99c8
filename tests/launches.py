"""Counts the operators that write a tensor: what the host launches on a GPU, one by one, without a GPU.

An operator counts once however many tensors it writes: a fused AdamW or a foreach is one. Views, allocations and
questions (`is_same_size`) do not count, nor what writes no element. Attention's tangent and its backward count as the
one kernel each that they are on a GPU, whatever stands in for them here. A graph that torch.compile made counts as the
kernels that were generated for it and the operators that it calls beside them.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch._inductor.output_code import CompiledFxGraph
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scm_distill.autodiff import attention

# Views and allocations that their schemas do not show as such.
SILENT = {
    "aten::_unsafe_view", "aten::_reshape_alias", "aten::empty", "aten::empty_like", "aten::empty_strided",
    "aten::new_empty", "aten::new_empty_strided", "aten::_efficientzerotensor", "aten::_local_scalar_dense",
    "aten::_pin_memory", "aten::lift_fresh",
}  # fmt: skip

# A call of an operator or of a library, not of a generated kernel, in the code of a compiled graph.
CALLED = re.compile(r"(?:extern_kernels\.\w+|torch\.ops\.(?!aten\.set_)[\w.]+)\(")


@cache
def may_write(operator: Any) -> bool:
    """Whether an operator (an OpOverload) computes into a tensor: by its schema, of which `SILENT` are exceptions."""
    schema = operator._schema
    if schema.name in SILENT:
        return False
    if schema.is_mutable:
        return True
    returned = [r for r in schema.returns if "Tensor" in str(r.type)]
    return any(r.alias_info is None for r in returned)


def writes(operator: Any, args: Any, result: Any) -> bool:
    """Whether this call computes at least one element of a tensor."""
    if not may_write(operator):
        return False
    tensors = [x for x in tree_leaves(result if operator._schema.returns else args) if isinstance(x, torch.Tensor)]
    return any(x.numel() for x in tensors)


class Launches(TorchDispatchMode):
    """A context that counts by operator, in `by_name`."""

    def __init__(self) -> None:
        super().__init__()
        self.by_name: Counter[str] = Counter()
        self._paused = False

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """True: what is compiled stays so inside of this context."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self._paused and writes(func, args, result):
            self.by_name[str(func).removeprefix("aten.")] += 1
        return result

    @contextmanager
    def as_one(self, name: str, count: int = 1) -> Iterator[None]:
        """A context in which all that is launched counts as `count` kernels."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before
        if not self._paused:
            self.by_name[name] += count


@contextmanager
def _as_kernels(counter: Launches) -> Iterator[None]:
    """A context in which attention with its tangent, and its backward, in chunks here, count as one kernel each."""
    plain, backward = attention.with_tangent, attention.Chunked.backward

    def counted(f: Callable[..., Any], name: str) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with counter.as_one(name):
                return f(*args, **kwargs)

        return run

    attention.with_tangent = counted(plain, "attention with its tangent")
    attention.Chunked.backward = staticmethod(counted(backward, "attention's backward"))
    try:
        yield
    finally:
        attention.with_tangent, attention.Chunked.backward = plain, staticmethod(backward)


@contextmanager
def _with_graphs(counter: Launches) -> Iterator[None]:
    """A context in which every call of a compiled graph counts."""
    plain = CompiledFxGraph.__call__

    def counted(self: Any, inputs: Any) -> Any:
        beside = len(CALLED.findall(self.source_code))
        with counter.as_one("generated kernels", self.metrics_deltas.generated_kernel_count):
            result = plain(self, inputs)
        counter.by_name["operators of compiled graphs"] += beside
        return result

    CompiledFxGraph.__call__ = counted  # type: ignore[method-assign]
    try:
        yield
    finally:
        CompiledFxGraph.__call__ = plain  # type: ignore[method-assign]


def launches(f: Callable[[], object], *, kernels: bool = True) -> Counter[str]:
    """The operators of a call that write a tensor, by name. Without `kernels` attention is counted as it is here."""
    with Launches() as counter, _as_kernels(counter) if kernels else nullcontext(), _with_graphs(counter):
        f()
    return counter.by_name
