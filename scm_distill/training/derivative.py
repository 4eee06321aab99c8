"""Chooses the derivative that a run uses, and checks it on the real network before the first step."""

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from scm_distill import config, ranks
from scm_distill.autodiff import flash_launch
from scm_distill.autodiff.attention import backend
from scm_distill.autodiff.derivatives import Derivative, Difference, Memory, OnePass, TwoPasses, tangent_pass
from scm_distill.autodiff.dual import blocks
from scm_distill.autodiff.forward_ad import Float64, without_tf32
from scm_distill.errors import UserError, one_line
from scm_distill.maths.cond import Cond, rows
from scm_distill.memory import out_of_memory
from scm_distill.models.network import Network
from scm_distill.models.student import Student
from scm_distill.progress import Reporter
from scm_distill.training import compiling
from scm_distill.training.compiling import SAME, SAME_TF32, relative
from scm_distill.training.distributed import gather_tensor, without_exchange

# Median relative difference between JVP and central difference that is still agreement. Measured on the digits teacher
# in float32: 2e-4 with a low-pass of 20 steps, 2e-2 with 5, 0.7 with none.
AGREE = 0.1
# Median relative error of the tangent that bf16 or TF32 may cost. Measured: 0.5 to 2 % where the time stays exact (up
# to 10 % for convolutional UNets), 50 to 100 % where it is rounded.
ROUNDED = 0.2
FLOAT64_PARAMETERS = 500_000_000  # at most, for a copy in float64: 4 GB
DIFFERENCE_STEPS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)  # that `exactness` tries, in ln(tan t)


@torch.no_grad()
@without_tf32()
def exactness(F: Network, x_t: Tensor, t: Tensor, cond: Cond) -> tuple[float, str]:
    """The relative difference of the JVP along the network's own ODE from the best central difference, and its dtype.

    Measured on x_t (B, ...), t (B,) and cond; in "float64" where a copy of the network in it is small and runs, else in
    "float32". Raises NotImplementedError where an operator of the network has no forward derivative.
    """
    x = x_t / F.sigma_d
    if sum(p.numel() for p in F.parameters()) > FLOAT64_PARAMETERS:
        return _smallest_difference(F, x, t, cond), "float32"
    try:
        wide = copy.deepcopy(F).double()
        with Float64():
            wide_cond = {name: v.double() if v.is_floating_point() else v for name, v in cond.items()}
            return _smallest_difference(wide, x.double(), t, wide_cond), "float64"
    except (RuntimeError, TypeError) as error:
        if isinstance(error, NotImplementedError):
            raise
        return _smallest_difference(F, x, t, cond), "float32"


def _smallest_difference(network: Network, x: Tensor, t: Tensor, cond: Cond) -> float:
    v = network(x, t, cond)
    _, jvp = tangent_pass(network, x, t, cond, v)
    differences = []
    for h in DIFFERENCE_STEPS:
        _, numeric = Difference(h)(network, x, t, cond, v)
        differences.append(float((jvp - numeric).norm() / numeric.norm().clamp_min(1e-30)))
    return float(torch.tensor(differences, dtype=torch.float64).min())  # NaN where one is


@dataclass(frozen=True)
class InFloat32:
    """`derivative` of a network without its autocast."""

    derivative: Derivative

    def __call__(self, F: Any, x: Tensor, t: Tensor, cond: Cond, v: Tensor) -> tuple[Tensor, Tensor]:
        """F (B, ...) and cos t sin t dF/dt (B, ...)."""
        return self.derivative(F.with_autocast(None), x, t, cond, v)


@dataclass(frozen=True)
class Trial:
    """A student, as it is wrapped for training, and the samples to try derivatives on.

    x = x_t / sigma_d (B, ...), t (B,) and cond; v (B, ...) is dx/dt, along which F is derived.
    """

    wrapped: nn.Module
    student: Student
    x: Tensor
    t: Tensor
    cond: Cond
    v: Tensor

    def first(self, n: int) -> "Trial":
        """The same student on the first `n` samples; where there are fewer, on some more than once."""
        index = torch.arange(n, device=self.x.device) % len(self.x)
        return replace(self, x=self.x[index], t=self.t[index], cond=rows(self.cond, index), v=self.v[index])

    def __call__(self, derivative: Derivative) -> tuple[Tensor, Tensor]:
        """F (B, ...) and cos t sin t dF/dt (B, ...)."""
        F, cs_dF, _ = self.wrapped(self.x, self.t, self.cond, self.v, derivative)
        return F, cs_dF

    def gradient(self, derivative: Derivative) -> tuple[Tensor, Tensor, list[Tensor]]:
        """F, cos t sin t dF/dt, and the parameters' gradients of a weighted mean of F, with fixed weights.

        A collective where the parameters are shared out, and nowhere else: all processes have the same samples.
        """
        try:
            with without_exchange(self.wrapped):
                F, cs_dF, w_phi = self.wrapped(self.x, self.t, self.cond, self.v, derivative)
                weights = torch.linspace(-1, 1, F[0].numel(), device=F.device).reshape(F.shape[1:])
                ((F * weights).mean() + 0 * w_phi.sum()).backward()
            return F.detach(), cs_dF, [p.grad.clone() for p in self.student.parameters() if p.grad is not None]
        finally:
            self.wrapped.zero_grad()


def choose(trial: Trial, recipe: config.Recipe, memory: Memory, micro: int, h: float, report: Reporter) -> Derivative:
    """The derivative to train with; `report` hears what was measured.

    `memory` is its layout, `micro` the samples at a time, `h` the step of a central difference in ln(tan t).

    Raises UserError where JVP and difference disagree: the exact one then follows the wiggles of the time embedding,
    the difference misses them, and neither can be trusted without a look; where rounding spoils the tangent; and where
    a compiled pass is not the eager one.
    """
    setting, network = recipe.objective.tangent, trial.student.network
    modules = blocks(network.net)
    try:
        with torch.no_grad(), without_tf32():
            (_, exact), (_, numeric) = trial(InFloat32(tangent_pass)), trial(InFloat32(Difference(h)))
    except NotImplementedError as error:
        reason = str(error).splitlines()[0]
        if setting != "difference":
            raise UserError(
                f"This network has no exact derivative: {reason}", "Set objective.tangent=difference in the recipe."
            ) from error
        report.say(f"tangent: central difference, unverified (no JVP: {reason})")
        return Difference(h, modules, memory)
    difference = ranks.largest("the check of the derivative", relative(exact, numeric))
    text = f"JVP and central difference differ by {difference:.2%} (median)"
    if setting == "auto" and not difference <= AGREE:
        raise UserError(
            f"{text}, more than {AGREE:.0%}: the time embedding is too rough to differentiate.",
            "Raise adapt.tolerance or adapt.smooth_time, or choose objective.tangent=jvp or difference yourself.",
        )
    if setting == "difference":
        report.say(f"tangent: central difference as asked; {text}")
        return Difference(h, modules, memory)
    _compile_attention(trial, report)
    if network.autocast is not None or recipe.train.tf32:
        text += _rounding(trial, exact, recipe)
    derivative, note = _cheapest(trial, recipe, modules, memory, micro, report)
    attention = backend(trial.x.device, network.autocast or trial.x.dtype)
    report.say(f"tangent: {derivative}, attention {attention}; {text}{note}")
    return derivative


def _compile_attention(trial: Trial, report: Reporter) -> None:
    """On a GPU: compile, before any is run, the kernels that the attention of this network takes.

    A tangent pass on few samples says which; nothing is launched in it.
    """
    if trial.x.device.type != "cuda":
        return
    with torch.no_grad(), flash_launch.recording() as calls:
        trial.first(2)(tangent_pass)
    if calls:
        number = flash_launch.compile_all(calls, report)
        report.say(f"attention: {number} kernels compiled, for {len(calls)} calls in a pass")


def _rounding(trial: Trial, exact: Tensor, recipe: config.Recipe) -> str:
    """What bf16 or TF32 changes in the `exact` tangent (B, ...), in words. Raises UserError where that is too much."""
    with torch.no_grad():
        rounded = ranks.largest("the check of the rounding", relative(trial(tangent_pass)[1], exact))
    kind = "tf32" if trial.student.network.autocast is None else recipe.train.precision
    if not rounded <= ROUNDED:
        raise UserError(
            f"In {kind} the tangent is wrong by {rounded:.0%} (median); allowed are {ROUNDED:.0%}.",
            "Set train.precision=fp32 and train.tf32=false.",
        )
    return f"; {kind} moves the tangent by {rounded:.2%}"


def _cheapest(
    trial: Trial, recipe: config.Recipe, modules: list[nn.Module], memory: Memory, micro: int, report: Reporter
) -> tuple[Derivative, str]:
    """The first of these that gives what two passes give on a few samples, and a note on those that do not.

    One pass, compiled where that is wanted; one pass; two passes. Raises UserError where a compiled pass that the
    recipe asks for gives something else.
    """
    allowed = max(SAME[trial.student.network.autocast], SAME_TF32 if recipe.train.tf32 else 0.0)
    two = TwoPasses(modules, memory)
    how, note = compiling.wanted(recipe, memory, trial.x.device), ""
    if how != "off":
        few = trial.first(micro)  # a compiled pass is made for one number of samples
        expected, fast = few.gradient(two), OnePass(modules, memory, how)
        with compiling.heard(how, modules, report):
            reason = _wrong(few, fast, expected, allowed)
        if not reason:
            return fast, ""
        if recipe.train.compiles:
            raise UserError(
                f"The compiled pass (train.compile={how}) is not the eager one: {reason}.", "Set train.compile=off."
            )
        note = f"; compiled blocks would not do ({reason}), so nothing is compiled; train.compile=off does not try"
    few, one = trial.first(min(2, micro)), OnePass(modules, memory)
    reason = _wrong(few, one, few.gradient(two), allowed)
    return (one, note) if not reason else (two, f"{note}; one pass would not do ({reason})")


def _wrong(few: Trial, one: OnePass, expected: tuple[Tensor, Tensor, list[Tensor]], allowed: float) -> str:
    """What is wrong with one pass, by what two passes gave; empty where nothing is. The same on all processes.

    A process that fails where parameters are shared out leaves a collective in which the others wait, unless they fail
    alike: those that do not are waited for, for a time, and then all end.
    """
    what, measured, reason = "the trial of one pass", None, ""
    try:
        measured = few.gradient(one)
    except Exception as error:  # whatever an operator, or the compiler, does not like about a pair
        if out_of_memory(error):
            raise
        reason = f"{type(error).__name__}: {one_line(error)}"
    hangs = reason and isinstance(few.wrapped, FSDPModule)
    reasons = ranks.exchange(what, reason, ranks.PATIENCE if hangs else None)
    if not any(reasons) and measured:
        differences = {
            "F": relative(measured[0], expected[0]),
            "the tangent": relative(measured[1], expected[1]),
            "the gradient": _gradient_difference(measured[2], expected[2]),
        }
        wrong = [f"{name} is off by {value:.1e}" for name, value in differences.items() if not value <= allowed]
        reasons = ranks.exchange("the comparison of one pass with two", ", ".join(wrong))
    return next(filter(None, reasons), "")


def _gradient_difference(a: list[Tensor], b: list[Tensor]) -> float:
    """|a - b| / |b| of two gradients, a tensor a parameter; NaN where they are of different parameters.

    Where b is zero, |a|. A collective where the parameters are sharded.
    """
    if len(a) != len(b):
        return float("nan")

    def square(tensors: list[Tensor]) -> float:
        return sum(float(gather_tensor(x.double().square().sum())) for x in tensors)

    difference, size = square([x - y for x, y in zip(a, b, strict=True)]), square(b)
    return math.sqrt(difference / size) if size else math.sqrt(difference)
