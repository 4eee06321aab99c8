"""Which derivative a run uses, and what is measured on the real network before the first step is taken with it."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from scm_distill import config
from scm_distill.autodiff.attention import backend
from scm_distill.autodiff.derivatives import Cond, Derivative, Difference, Memory, OnePass, TwoPasses, tangent_pass
from scm_distill.autodiff.dual import blocks
from scm_distill.autodiff.forward_ad import Float64
from scm_distill.errors import UserError, one_line
from scm_distill.maths.tangent import norm
from scm_distill.models.network import Network
from scm_distill.models.student import Student
from scm_distill.progress import Reporter
from scm_distill.training.distributed import any_rank, whole

# Median relative difference between JVP and central difference that is still agreement. Measured on the digits teacher
# in float32: 2e-4 with a low-pass of 20 steps, 2e-2 with 5, 0.7 with none.
AGREE = 0.1
# Median relative error of the tangent that bf16 or TF32 may cost. Measured: 0.5 to 2 % where the time stays exact (up
# to 10 % for convolutional UNets), 50 to 100 % where it is rounded.
ROUNDED = 0.2
# Relative differences of F, its derivative and its gradient between one pass and two, by dtype of the products.
SAME = {None: 1e-3, torch.bfloat16: 5e-2}
SMALL = 500_000_000  # parameters: 4 GB in float64
STEPS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)  # of the differences that `exactness` tries


@torch.no_grad()
def exactness(F: Network, x_t: Tensor, t: Tensor, cond: Cond) -> tuple[float, str]:
    """How far the JVP along the network's own ODE is from a central difference of the best step, and in which dtype.

    In float64 where the network runs in it and a copy of it is small; else in float32.
    """

    def measured(network: Network, x: Tensor, given: Cond) -> float:
        v = network(x, t, given)
        _, a = tangent_pass(network, x, t, given, v)
        found = []
        for h in STEPS:
            _, b = Difference(h)(network, x, t, given, v)
            found.append(float((a - b).norm() / b.norm().clamp_min(1e-30)))
        return min(found)

    x = x_t / F.sigma_d
    if sum(p.numel() for p in F.parameters()) > SMALL:
        return measured(F, x, cond), "float32"
    try:
        wide = copy.deepcopy(F).double()
        with Float64():
            given = {name: v.double() if v.is_floating_point() else v for name, v in cond.items()}
            return measured(wide, x.double(), given), "float64"
    except (RuntimeError, TypeError) as error:
        if isinstance(error, NotImplementedError):
            raise
        return measured(F, x, cond), "float32"


def relative(a: Tensor, b: Tensor) -> float:
    """Median over the batch of |a - b| / |b|."""
    return float((norm(a - b, "rms") / norm(b, "rms").clamp_min(1e-12)).median())


@contextmanager
def strict(network: Network) -> Iterator[None]:
    """Float32 products, whatever the recipe says."""
    before = network.autocast, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    network.autocast = None
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        network.autocast, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@dataclass(frozen=True)
class Trial:
    """A student, as it is wrapped for training, on a few samples: x, v (B, ...), t (B,), cond."""

    wrapped: nn.Module
    student: Student
    x: Tensor
    t: Tensor
    cond: Cond
    v: Tensor

    def first(self, n: int) -> "Trial":
        """The same on the first `n` samples."""
        cond = {name: value[:n] for name, value in self.cond.items()}
        return replace(self, x=self.x[:n], t=self.t[:n], cond=cond, v=self.v[:n])

    def __call__(self, how: Derivative) -> tuple[Tensor, Tensor]:
        """F and cos t sin t dF/dt by `how`."""
        self.student.derivative = how
        F, cs_dF, _ = self.wrapped(self.x, self.t, self.cond, self.v)
        return F, cs_dF

    def gradient(self, how: Derivative) -> tuple[Tensor, Tensor, list[Tensor]]:
        """F, its derivative, and the gradient of a sum over F with fixed weights."""
        self.student.derivative = how
        try:
            F, cs_dF, w_phi = self.wrapped(self.x, self.t, self.cond, self.v)
            weights = torch.linspace(-1, 1, F[0].numel(), device=F.device).reshape(F.shape[1:])
            ((F * weights).mean() + 0 * w_phi.sum()).backward()  # w_phi takes part, or DDP waits for its gradient
            return F.detach(), cs_dF, [p.grad.clone() for p in self.student.parameters() if p.grad is not None]
        finally:
            self.wrapped.zero_grad()


def choose(trial: Trial, recipe: config.Recipe, memory: Memory, micro: int, h: float, report: Reporter) -> Derivative:
    """The derivative to train with, after saying what was found on this network.

    Raises UserError where JVP and difference disagree: the exact one then follows the wiggles of the time embedding,
    the difference misses them, and neither can be trusted without a look; where rounding spoils the tangent; and where
    a compiled pass is not the eager one.
    """
    wanted, network = recipe.objective.tangent, trial.student.network
    modules = blocks(network.net)
    try:
        with torch.no_grad(), strict(network):
            (_, exact), (_, numeric) = trial(tangent_pass), trial(Difference(h))
    except NotImplementedError as error:
        reason = str(error).splitlines()[0]
        if wanted != "difference":
            raise UserError(
                f"This network has no exact derivative: {reason}", "Set objective.tangent=difference in the recipe."
            ) from error
        report.say(f"tangent: central difference, unverified (no JVP: {reason})")
        return Difference(h, modules, memory)
    found = relative(exact, numeric)
    text = f"JVP and central difference differ by {found:.2%} (median)"
    if wanted == "auto" and not found <= AGREE:
        raise UserError(
            f"{text}, more than {AGREE:.0%}: the time embedding is too rough to differentiate.",
            "Raise adapt.tolerance or adapt.smooth_time, or choose objective.tangent=jvp or difference yourself.",
        )
    if wanted == "difference":
        report.say(f"tangent: central difference as asked; {text}")
        return Difference(h, modules, memory)
    if network.autocast is not None or recipe.train.tf32:
        with torch.no_grad():
            rounded = relative(trial(tangent_pass)[1], exact)
        kind = "tf32" if network.autocast is None else recipe.train.precision
        text += f"; {kind} moves the tangent by {rounded:.2%}"
        if not rounded <= ROUNDED:
            raise UserError(
                f"In {kind} the tangent is wrong by {rounded:.0%} (median); allowed are {ROUNDED:.0%}.",
                "Set train.precision=fp32 and train.tf32=false.",
            )
    derivative, note = _cheapest(trial, recipe, modules, memory, micro)
    report.say(f"tangent: {derivative}, attention {backend(trial.x)}; {text}{note}")
    return derivative


def _cheapest(
    trial: Trial, recipe: config.Recipe, modules: list[nn.Module], memory: Memory, micro: int
) -> tuple[Derivative, str]:
    """One pass if it gives what two passes give on a few samples, else two."""
    settings = recipe.train
    few = (
        trial.first(micro) if settings.compile != "off" else trial.first(2)
    )  # a compiled pass is made for one number of samples
    one, two = OnePass(modules, memory, settings.compile), TwoPasses(modules, memory)
    allowed = SAME[trial.student.network.autocast]
    expected = few.gradient(two)
    try:
        found = few.gradient(one)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever an operator, or the compiler, does not like about a pair
        reason = f"{type(error).__name__}: {one_line(error)}"
    else:
        off = {
            "F": relative(found[0], expected[0]),
            "the tangent": relative(found[1], expected[1]),
            "the gradient": _relative_difference(found[2], expected[2]),
        }
        wrong = [f"{name} is off by {value:.1e}" for name, value in off.items() if not value <= allowed]
        if not any_rank(bool(wrong), few.x.device):
            return one, ""
        wrong = wrong or ["another process found it off"]
        reason = ", ".join(wrong)
    if settings.compile != "off":
        raise UserError(
            f"The compiled pass (train.compile={settings.compile}) is not the eager one: {reason}.",
            "Set train.compile=off.",
        )
    return two, f"; one pass would not do ({reason})"


def _relative_difference(a: list[Tensor], b: list[Tensor]) -> float:
    """The relative difference of two gradients."""
    if len(a) != len(b):
        return float("nan")
    square, whole_square = (
        sum(float(whole(x.double().square().sum())) for x in parts)
        for parts in ([x - y for x, y in zip(a, b, strict=True)], b)
    )
    return math.sqrt(square / whole_square) if whole_square else math.sqrt(square)
