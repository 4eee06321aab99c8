"""Ways to compute F with its reverse graph, and its derivative cos t sin t dF/dt without one.

x     x_t / sigma_d                       (B, ...)        t   time in radians                  (B,)
v     dx/dt, along which F is derived     (B, ...)        cond   conditions, see maths/cond.py

`OnePass` costs as much as 2 + a forward passes, where a is attention's share of one, `TwoPasses` 3 + a; both are exact.
`Difference` costs 3 and is not.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from scm_distill.autodiff import compiled, dual
from scm_distill.autodiff.forward_ad import jvp
from scm_distill.maths.cond import Cond
from scm_distill.maths.trigflow import like

Velocity = Callable[[Tensor, Tensor, Cond], Tensor]
Memory = Literal["fast", "lean"]
Compile = Literal["off", "blocks", "step"]


class Derivative(Protocol):
    """A way to compute F and its derivative: `TwoPasses`, `OnePass` or `Difference`."""

    def __call__(self, F: Velocity, x: Tensor, t: Tensor, cond: Cond, v: Tensor, /) -> tuple[Tensor, Tensor]:
        """F (B, ...) with a reverse graph, and cos t sin t dF/dt (B, ...) along dx/dt = v, detached."""
        ...


def direction(t: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The tangents of x and t, both times cos t sin t: what is singular at the ends of the schedule cancels in them."""
    cs = t.cos() * t.sin()
    return like(cs, v).to(v.dtype) * v, cs


def tangent_pass(F: Velocity, x: Tensor, t: Tensor, cond: Cond, v: Tensor) -> tuple[Tensor, Tensor]:
    """F and cos t sin t dF/dt, neither with a reverse graph."""
    return jvp(lambda x, t: F(x, t, cond), (x, t), direction(t, v))


@contextmanager
def _regions(modules: Sequence[nn.Module], memory: Memory, run: Any = None) -> Iterator[None]:
    """`dual.regions` in a memory layout; `run` is `dual.in_level` or a compiled one."""
    with dual.regions(modules, lean=memory == "lean", run=run or dual.in_level):
        yield


def _checkpointed(modules: Sequence[nn.Module], memory: Memory) -> AbstractContextManager[None]:
    """A context in which, in the lean layout, an ordinary forward keeps no activations of `modules`."""
    return _regions(modules, "lean") if memory == "lean" else nullcontext()


@dataclass(frozen=True)
class TwoPasses:
    """A tangent pass, then an ordinary forward; in the lean layout the backward recomputes `blocks`."""

    blocks: Sequence[nn.Module] = ()
    memory: Memory = "fast"

    def __call__(self, F: Velocity, x: Tensor, t: Tensor, cond: Cond, v: Tensor) -> tuple[Tensor, Tensor]:
        """See `Derivative`."""
        _, cs_dF = tangent_pass(F, x, t, cond, v)
        with _checkpointed(self.blocks, self.memory):
            return F(x, t, cond), cs_dF

    def __str__(self) -> str:
        return f"exact JVP, two passes, {self.memory} memory"


@dataclass(frozen=True)
class OnePass:
    """Both from one pass over pairs of primal and tangent, see `dual.py`.

    In the lean layout the backward recomputes `blocks`. `compile` is what torch.compile is applied to: nothing, every
    block, or the whole pass.
    """

    blocks: Sequence[nn.Module]
    memory: Memory = "fast"
    compile: Compile = "off"

    def __call__(self, F: Velocity, x: Tensor, t: Tensor, cond: Cond, v: Tensor) -> tuple[Tensor, Tensor]:
        """See `Derivative`."""
        dx, cs = direction(t, v)
        if self.compile == "step":
            return compiled.whole()(F, x, t, cond, dx, cs)  # type: ignore[no-any-return]
        with _regions(self.blocks, self.memory, compiled.in_level if self.compile == "blocks" else None):
            return dual.one_pass(lambda x, t: F(x, t, cond), (x, t), (dx, cs))

    def __str__(self) -> str:
        how = "" if self.compile == "off" else f", compiled ({self.compile})"
        return f"exact JVP, one pass, {self.memory} memory{how}"


@dataclass(frozen=True)
class Difference:
    """A central difference and an ordinary forward, for networks without a forward derivative; `h` as below."""

    h: float
    blocks: Sequence[nn.Module] = ()
    memory: Memory = "fast"

    def __call__(self, F: Velocity, x: Tensor, t: Tensor, cond: Cond, v: Tensor) -> tuple[Tensor, Tensor]:
        """See `Derivative`."""
        cs_dF = central_difference(F, x, t, cond, v, h=self.h)
        with _checkpointed(self.blocks, self.memory):
            return F(x, t, cond), cs_dF

    def __str__(self) -> str:
        return f"central difference, step {self.h:g} in ln tan t"


def central_difference(F: Velocity, x: Tensor, t: Tensor, cond: Cond, v: Tensor, *, h: float) -> Tensor:
    """cos(t) sin(t) dF/dt (B, ...) from two calls, without a graph. Needs float32 or wider.

    `h` is the step in ln(tan t), so the step in t is h cos(t) sin(t) and the product with cos(t) sin(t) needs no
    division by it. The flow line is the rotation x(t + d) = cos(d) x + sin(d) v.
    """
    with torch.no_grad():
        step = h * t.cos() * t.sin()
        wide = like(step, x).to(x.dtype)
        ahead = F(wide.cos() * x + wide.sin() * v, t + step, cond)
        behind = F(wide.cos() * x - wide.sin() * v, t - step, cond)
        return (ahead - behind) / (2 * h)
