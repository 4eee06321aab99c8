"""Which derivative a run uses, exact JVP or central difference, and the check of one against the other."""

import copy

import torch
from torch import Tensor

from scm_distill.errors import UserError
from scm_distill.maths.tangent import norm
from scm_distill.maths.trigflow import like
from scm_distill.models.forward_ad import Float64, central_difference, jvp
from scm_distill.models.student import Network
from scm_distill.objectives import Cond, Derivative, Velocity

# Median relative difference between JVP and central difference that is still agreement. Measured on the digits teacher
# in float32: 2e-4 with a low-pass of 20 steps, 2e-2 with 5, 0.7 with none. bf16 rounding alone is worth several per
# cent (tangents.md, section 6).
AGREE = {"fp32": 0.1, "bf16": 0.3}


def exact(sigma_d: float) -> Derivative:
    """F_minus and cs_dF in one pass of forward-mode AD."""

    def derivative(F: Velocity, x_t: Tensor, dxdt: Tensor, t: Tensor, cond: Cond) -> tuple[Tensor, Tensor]:
        cs = t.cos() * t.sin()
        primals = (x_t / sigma_d, t)
        tangents = (like(cs, x_t).to(x_t.dtype) * dxdt / sigma_d, cs)
        return jvp(lambda x, time: F(x, time, cond), primals, tangents)

    return derivative


def difference(sigma_d: float, h: float) -> Derivative:
    """F_minus by one pass, cs_dF by two more; `h` is the step in ln(tan t)."""

    def derivative(F: Velocity, x_t: Tensor, dxdt: Tensor, t: Tensor, cond: Cond) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            F_minus = F(x_t / sigma_d, t, cond)
        return F_minus, central_difference(lambda x, s: F(x, s, cond), x_t, dxdt, t, sigma_d=sigma_d, h=h)

    return derivative


def disagreement(F: Network, x_t: Tensor, dxdt: Tensor, t: Tensor, cond: Cond, h: float) -> float:
    """Median over the batch of |JVP - difference| / |difference|; the difference is taken in float32."""
    _, a = exact(F.sigma_d)(F, x_t, dxdt, t, cond)
    wide = copy.copy(F)  # the same parameters
    wide.autocast = None
    _, b = difference(F.sigma_d, h)(wide, x_t, dxdt, t, cond)
    return float((norm(a - b, "rms") / norm(b, "rms").clamp_min(1e-12)).median())


SMALL = 500_000_000  # parameters: 4 GB in float64
STEPS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)  # of the differences that `exactness` tries


@torch.no_grad()
def exactness(F: Network, x_t: Tensor, t: Tensor, cond: Cond) -> tuple[float, str]:
    """How far the JVP along the network's own ODE is from a central difference of the best step, and in which dtype.

    In float64 where the network runs in it and a copy of it is small; else in float32.
    """

    def measured(network: Network, x: Tensor, given: Cond) -> float:
        dxdt = network.sigma_d * network(x / network.sigma_d, t, given)
        _, a = exact(network.sigma_d)(network, x, dxdt, t, given)
        found = []
        for h in STEPS:
            _, b = difference(network.sigma_d, h)(network, x, dxdt, t, given)
            found.append(float((a - b).norm() / b.norm().clamp_min(1e-30)))
        return min(found)

    if sum(p.numel() for p in F.parameters()) > SMALL:
        return measured(F, x_t, cond), "float32"
    try:
        wide = copy.deepcopy(F).double()
        with Float64():
            given = {name: v.double() if v.is_floating_point() else v for name, v in cond.items()}
            return measured(wide, x_t.double(), given), "float64"
    except (RuntimeError, TypeError) as error:
        if isinstance(error, NotImplementedError):
            raise
        return measured(F, x_t, cond), "float32"


def choose(
    wanted: str, precision: str, F: Network, x_t: Tensor, dxdt: Tensor, t: Tensor, cond: Cond, h: float
) -> tuple[Derivative, str]:
    """The derivative to train with, and what was found on this network.

    Raises UserError where the two disagree: the exact one then follows the wiggles of the time embedding, the
    difference misses them, and neither can be trusted without a look.
    """
    try:
        found = disagreement(F, x_t, dxdt, t, cond, h)
    except NotImplementedError as error:
        reason = str(error).splitlines()[0]
        if wanted != "difference":
            raise UserError(
                f"This network has no exact derivative: {reason}", "Set objective.tangent=difference in the recipe."
            ) from error
        return difference(F.sigma_d, h), f"tangent: central difference, unverified (no JVP: {reason})"
    text = f"JVP and central difference differ by {found:.2%} (median)"
    if wanted == "auto" and not found <= AGREE[precision]:
        raise UserError(
            f"{text}, more than {AGREE[precision]:.0%}: the time embedding is too rough to differentiate.",
            "Raise adapt.tolerance or adapt.smooth_time, or choose objective.tangent=jvp or difference yourself.",
        )
    if wanted == "difference":
        return difference(F.sigma_d, h), f"tangent: central difference as asked; {text}"
    return exact(F.sigma_d), f"tangent: exact JVP; {text}"
