"""Data N(m, s^2 I), solved on paper: the posterior mean, the ODE's endpoint, and every native prediction of both."""

from collections.abc import Callable

import torch
from torch import Tensor

from scm_distill.maths.clocks import DiscreteSchedule, edm_noise, edm_to_t, flow_time, flow_to_t
from scm_distill.maths.schedules import Prediction, native
from scm_distill.maths.trigflow import like

M, S = 0.3, 0.7  # mean and standard deviation of the data, unlike any sigma_d under test
LINEAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)

X0 = Callable[[Tensor, Tensor, float], Tensor]


def posterior_mean(x_t: Tensor, t: Tensor, sigma_d: float) -> Tensor:
    """E[x_0 | x_t]: what a diffusion teacher predicts."""
    t = like(t, x_t)
    v = S**2 * t.cos() ** 2 + sigma_d**2 * t.sin() ** 2
    return M + S**2 * t.cos() * (x_t - t.cos() * M) / v


def ode_endpoint(x_t: Tensor, t: Tensor, sigma_d: float) -> Tensor:
    """f(x_t, t): what a perfect consistency model predicts."""
    t = like(t, x_t)
    v = S**2 * t.cos() ** 2 + sigma_d**2 * t.sin() ** 2
    return M + S * (x_t - t.cos() * M) / v.sqrt()


def as_F(x_0: X0, sigma_d: float) -> Callable[..., Tensor]:
    """F(x, t, cond) whose x_0 prediction is `x_0`, by the definition f = cos x_t - sin sigma_d F."""

    def F(x: Tensor, t: Tensor, cond: object = None) -> Tensor:
        x_t = sigma_d * x
        return (like(t, x).cos() * x_t - x_0(x_t, t, sigma_d)) / (like(t, x).sin() * sigma_d)

    return F


def native_time(prediction: Prediction, t: Tensor, sigma_d: float) -> Tensor:
    """What the native network is told about t."""
    match prediction:
        case "flow":
            return flow_time(t, sigma_d)
        case "edm":
            return edm_noise(t, sigma_d)
        case _:
            return DiscreteSchedule(LINEAR, sigma_d).network_time(t)


def native_raw(prediction: Prediction, x_nat: Tensor, time: Tensor, x_0: X0, sigma_d: float) -> Tensor:
    """The raw output of a native network at its own input and time, from alpha and sigma alone."""
    match prediction:
        case "flow":
            t = flow_to_t(time, sigma_d)
            alpha, sigma = 1 - time, time
        case "edm":
            t = edm_to_t(time, sigma_d)
            alpha, sigma = torch.ones_like(t), (4 * time).exp()
        case _:
            t = DiscreteSchedule(LINEAR, sigma_d).time(time)
            tan = sigma_d * t.tan()  # sigma / alpha
            alpha, sigma = 1 / (1 + tan**2).sqrt(), tan / (1 + tan**2).sqrt()
    alpha, sigma, s = like(alpha, x_nat), like(sigma, x_nat), like(t, x_nat).sin()
    if prediction == "edm":  # x_nat is c_in x_edm = x_t / sigma_d already
        x_t = sigma_d * x_nat
        c_skip, c_out = sigma_d**2 / (sigma**2 + sigma_d**2), sigma * sigma_d / (sigma**2 + sigma_d**2).sqrt()
        x_edm = x_nat * (sigma**2 + sigma_d**2).sqrt()
        return (x_0(x_t, t, sigma_d) - c_skip * x_edm) / c_out
    x_t = x_nat * s * sigma_d / sigma  # sigma eps = rho sin(t) sigma_d eps
    D = x_0(x_t, t, sigma_d)
    eps = (x_nat - alpha * D) / sigma
    match prediction:
        case "epsilon":
            return eps
        case "sample":
            return D
        case "v_prediction":
            return alpha * eps - sigma * D
        case _:
            return eps - D


def through_native(prediction: Prediction, x_0: X0, sigma_d: float) -> Callable[..., Tensor]:
    """F(x, t, cond) read from a native network by the package's own conversions."""

    def F(x: Tensor, t: Tensor, cond: object = None) -> Tensor:
        x_t = sigma_d * x
        form = native(prediction, t, sigma_d)
        time = native_time(prediction, t, sigma_d)
        return form.to_F(native_raw(prediction, form.scale(x_t), time, x_0, sigma_d), x_t)

    return F
