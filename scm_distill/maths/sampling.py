"""Samplers: the student's few steps, and the deterministic ODE of the teacher.

x_T       starting noise at times[0], ~ N(0, sigma_d^2 I)     (B, ...)
times     decreasing TrigFlow times, in radians
network   F(x / sigma_d, t) with t (B,)
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scm_distill.maths.trigflow import ddim_step, denoise, diffuse

Network = Callable[[Tensor, Tensor], Tensor]


def few_step(network: Network, x_T: Tensor, times: Sequence[float], noise: Sequence[Tensor], sigma_d: float) -> Tensor:
    """x_0 = f(x, t); x = cos(t') x_0 + sin(t') z; x_0 = f(x, t'); ... (arXiv 2410.11081, section 5).

    `noise` holds one z ~ N(0, sigma_d^2 I) for each time after the first. Two times are two network evaluations.
    """
    x_0 = x_T
    for i, time in enumerate(times):
        t = torch.full((len(x_T),), time, dtype=torch.float64, device=x_T.device)
        x = x_T if i == 0 else diffuse(x_0, noise[i - 1], t.to(x_T.dtype))
        x_0 = denoise(x, network(x / sigma_d, t), t.to(x_T.dtype), sigma_d)
    return x_0


def ode(network: Network, x_T: Tensor, times: Sequence[float], sigma_d: float, *, heun: bool = True) -> Tensor:
    """Follow dx/dt = sigma_d F from times[0] to times[-1], then denoise there: the teacher's endpoint x_0.

    Each step is a rotation (DDIM in TrigFlow); with `heun` that only predicts, and the step is the trapezoidal rule, so
    N times cost 2 N - 1 evaluations instead of N.
    """
    t = [torch.full((len(x_T),), time, dtype=torch.float64, device=x_T.device) for time in times]
    x, F = x_T, network(x_T / sigma_d, t[0])
    for i in range(1, len(t)):
        predicted = ddim_step(x, F, t[i - 1].to(x.dtype), t[i].to(x.dtype), sigma_d)
        F_next = network(predicted / sigma_d, t[i])
        if heun:
            x = x + (times[i] - times[i - 1]) / 2 * sigma_d * (F + F_next)
            F_next = network(x / sigma_d, t[i])
        else:
            x = predicted
        F = F_next
    return denoise(x, F, t[-1].to(x.dtype), sigma_d)
