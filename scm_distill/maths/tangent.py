"""The tangent of continuous-time consistency models (arXiv 2410.11081, section 4.1 and Algorithm 1).

F_minus   sigma-free network output with the gradient stopped                            (B, ...)
cs_dF     cos(t) sin(t) dF_minus/dt, the total derivative along the ODE                  (B, ...)
dxdt      dx_t/dt: sigma_d F_teacher, or the pair velocity in consistency training       (B, ...)
g         tangent                                                                        (B, ...)
"""

from typing import Literal

from torch import Tensor

from scm_distill.maths.trigflow import like

Normalization = Literal["rms", "l2", "clip", "none"]


def warmup(step: int, H: int) -> float:
    """r = min(1, step / H)."""
    return min(1.0, step / H) if H > 0 else 1.0


def tangent(
    F_minus: Tensor, cs_dF: Tensor, x_t: Tensor, dxdt: Tensor, t: Tensor, *, sigma_d: float, r: float
) -> Tensor:
    """g = -cos^2(t) (sigma_d F_minus - dx_t/dt) - r cos(t) sin(t) (x_t + sigma_d dF_minus/dt)."""
    t = like(t, x_t)
    return -t.cos().square() * (sigma_d * F_minus - dxdt) - r * (t.cos() * t.sin() * x_t + sigma_d * cs_dF)


def norm(g: Tensor, kind: Normalization) -> Tensor:
    """||g|| of each sample (B,): root-mean-square over its dimensions, or L2 for kind 'l2'."""
    square = g.flatten(1).square()
    return (square.sum(1) if kind == "l2" else square.mean(1)).sqrt()


def normalize(g: Tensor, c: float, kind: Normalization) -> Tensor:
    """g / (||g|| + c) per sample; 'clip' clamps to [-1, 1] instead; 'none' leaves g.

    The paper writes ||g|| without naming dimensions. 'rms' does not depend on the sample's size (FastGen, sCM-mnist);
    'l2' is what rCM and SANA-Sprint use. Thresholds of gradient clipping do not carry over between them.
    """
    match kind:
        case "rms" | "l2":
            return g / (like(norm(g, kind), g) + c)
        case "clip":
            return g.clamp(-1, 1)
        case "none":
            return g
