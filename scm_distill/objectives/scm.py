"""Algorithm 1 of Lu & Song 2024 (arXiv 2410.11081), one step: consistency distillation (sCD) and training (sCT).

x_0, z    data and noise, both of standard deviation sigma_d            (B, ...)
t         time in radians                                               (B,)
F_minus   the student itself with the gradient stopped, no EMA          (B, ...)
cs_dF     cos(t) sin(t) dF_minus/dt along dx_t/dt                       (B, ...)
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scm_distill.maths.cond import Cond
from scm_distill.maths.tangent import Normalization, norm, normalize, tangent, warmup
from scm_distill.maths.trigflow import diffuse, pair_velocity
from scm_distill.objectives import Loss, Student, Velocity


@dataclass(frozen=True)
class Objective:
    """The loss of one batch; the fields are settings of the recipe's `objective` section."""

    sigma_d: float
    c: float
    normalization: Normalization
    warmup_steps: int  # H
    velocity: Literal["teacher", "data"]

    def __call__(
        self,
        student: Student,
        F_teacher: Velocity,
        x_0: Tensor,
        z: Tensor,
        t: Tensor,
        cond: Cond,
        step: int,
    ) -> Loss:
        """L = e^{w_phi(t)} / D * || F_theta - F_minus - g ||^2 - w_phi(t), averaged over the batch.

        D is the number of dimensions of a sample. `step` counts optimizer steps, for the warm-up r of the tangent.
        """
        sigma_d = self.sigma_d

        x_t = diffuse(x_0, z, t.to(x_0.dtype))

        with torch.no_grad():
            if self.velocity == "teacher":
                dxdt = sigma_d * F_teacher(x_t / sigma_d, t, cond)
            else:
                dxdt = pair_velocity(x_0, z, t.to(x_0.dtype))

        F_theta, cs_dF, w_phi = student(x_t / sigma_d, t, cond, dxdt / sigma_d)
        F_minus = F_theta.detach()

        r = warmup(step, self.warmup_steps)
        raw = tangent(F_minus, cs_dF, x_t, dxdt, t.to(x_t.dtype), sigma_d=sigma_d, r=r)
        g = normalize(raw, self.c, self.normalization)

        error = (F_theta - F_minus - g).square().flatten(1).mean(1)
        loss = (w_phi.exp() * error - w_phi).mean()

        gap = norm(F_minus - dxdt / sigma_d, "rms")
        return Loss(loss, t, norm(raw, "rms"), norm(cs_dF, "rms"), gap)
