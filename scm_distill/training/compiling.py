"""When the blocks of a network are compiled, what is said of it, and the teacher's compiled forward.

A step launches some thousand small kernels, and below some batch the GPU waits for the host that launches them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scm_distill import config, ranks
from scm_distill.autodiff import compiled
from scm_distill.autodiff.derivatives import Compile, Memory, Velocity
from scm_distill.autodiff.dual import blocks
from scm_distill.autodiff.torch_private import inductor_cache, tree_leaves
from scm_distill.errors import UserError, one_line
from scm_distill.maths.cond import Cond
from scm_distill.maths.tangent import norm
from scm_distill.memory import out_of_memory
from scm_distill.models.network import Network
from scm_distill.progress import Reporter

# Relative differences of F, its derivative and its gradient between one pass and two, by dtype of the products.
SAME = {None: 1e-3, torch.bfloat16: 5e-2}
SAME_TF32 = 1e-2  # where TF32 rounds the factors of float32 products, to 3 bits more than bf16
LONG = 1000  # steps, above which minutes of compiling pay


def wanted(recipe: config.Recipe, memory: Memory, device: torch.device) -> Compile:
    """What is compiled: train.compile, where `auto` is blocks in long runs on a GPU in the fast layout, else off."""
    setting = recipe.train.compile
    if setting != "auto":
        return setting
    pays = device.type == "cuda" and recipe.train.steps > LONG and memory == "fast"
    return "blocks" if pays else "off"


@contextmanager
def heard(how: Compile, modules: list[nn.Module], report: Reporter) -> Iterator[None]:
    """A context for the first pass and backward of what is compiled: the `modules`, or the step; `report` hears it.

    Blocks that are compiled later, for other sizes of their inputs, are named too. One graph has no parts to hear of:
    hooks in it would be traced.
    """
    what = f"{len(modules)} blocks" if how == "blocks" else "the step as one graph"
    report.say(
        f"compiling {what}, which takes minutes the first time; the code stays in {inductor_cache()}; "
        "train.compile=off switches this off"
    )
    if how != "blocks":
        report.begin("compile the step", 1)
        try:
            yield
            report.advance(1)
        finally:
            report.end()
        return
    total, done = 2 * len(modules), 0
    compiled.LEVELS.heard = compiled.CALLS.heard = lambda _: None

    def passed(*_: Any) -> None:
        nonlocal done
        done = min(done + 1, total)
        report.advance(done)

    def forward(_: nn.Module, __: Any, output: Any) -> None:
        passed()
        with_gradient = [y for y in tree_leaves(output) if isinstance(y, Tensor) and y.requires_grad]
        if with_gradient:
            with_gradient[0].register_hook(passed)  # its block's backward comes next

    hooks = [module.register_forward_hook(forward) for module in modules]
    report.begin("compile blocks, forward and backward", total)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        report.end()
        compiled.LEVELS.heard = compiled.CALLS.heard = lambda name: report.say(
            f"compiling a {name} for other sizes of its inputs; train.compile=off switches this off"
        )


def relative(a: Tensor, b: Tensor) -> float:
    """The median over the batch (B, ...) of |a - b| / |b|."""
    return float((norm(a - b, "rms") / norm(b, "rms").clamp_min(1e-12)).median())


@dataclass(frozen=True)
class CompiledTeacher:
    """F of a frozen network whose blocks are compiled; without a gradient."""

    network: Network

    @torch.no_grad()
    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """F (B, ...)."""
        with compiled.forwards(blocks(self.network.net)):
            return self.network(x, t, cond)  # type: ignore[no-any-return]


def teacher(network: Network, recipe: config.Recipe, x: Tensor, t: Tensor, cond: Cond, report: Reporter) -> Velocity:
    """F of the frozen `network`, its blocks compiled where that gives what it gives on x (B, ...), t (B,) and cond.

    Raises UserError where it does not, and the recipe asks for compilation.
    """
    if "teacher" in recipe.train.offload:  # its hooks move parameters while a block runs
        return network
    fast = CompiledTeacher(network)
    report.say("compiling the teacher's blocks, forward")
    wrong = ""
    try:
        with torch.no_grad():
            off = relative(fast(x, t, cond), network(x, t, cond))
    except Exception as error:  # whatever the compiler does not like
        if out_of_memory(error):
            raise
        wrong = f"{type(error).__name__}: {one_line(error)}"
    else:
        wrong = "" if off <= SAME[network.autocast] else f"F is off by {off:.1e}"
    wrong = next(filter(None, ranks.exchange("the trial of the compiled teacher", wrong)), "")
    if wrong and recipe.train.compiles:
        raise UserError(f"The compiled teacher is not the eager one: {wrong}.", "Set train.compile=off.")
    if wrong:
        report.say(f"teacher: compiled blocks would not do ({wrong}), so it is not compiled")
    return network if wrong else fast
