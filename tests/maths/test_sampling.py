"""Samplers on the case solved on paper."""

import math

import pytest
import torch
from analytic import M, S, as_F, ode_endpoint, posterior_mean

from scm_distill.maths.sampling import few_step, ode


def noise(sigma_d: float, n: int = 40000, seed: int = 0) -> torch.Tensor:
    return sigma_d * torch.randn(n, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("sigma_d", [0.5, 1.0, 1.7])
def test_two_steps_of_a_perfect_student_have_the_mean_and_width_of_the_data(sigma_d: float) -> None:
    x_T, z = noise(sigma_d), noise(sigma_d, seed=1)
    x_0 = few_step(as_F(ode_endpoint, sigma_d), x_T, (math.atan(80 / sigma_d), 1.1), [z], sigma_d)
    assert x_0.std() == pytest.approx(S, rel=0.01)
    assert x_0.mean() == pytest.approx(M, abs=0.02)


@pytest.mark.parametrize(("heun", "order"), [(True, 2), (False, 1)])
def test_the_teachers_ode_converges_to_the_endpoint_at_its_order(heun: bool, order: int) -> None:
    x_T, start = noise(0.5, n=64), 1.5
    exact = ode_endpoint(x_T, torch.full((64,), start, dtype=torch.float64), 0.5)

    def error(steps: int) -> float:
        times = torch.linspace(start, 1e-4, steps, dtype=torch.float64).tolist()
        return float((ode(as_F(posterior_mean, 0.5), x_T, times, 0.5, heun=heun) - exact).abs().max())

    assert error(41) / error(81) == pytest.approx(2**order, rel=0.25)


def test_evaluations_are_counted_as_promised() -> None:
    calls = []

    def F(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls.append(float(t[0]))
        return as_F(posterior_mean, 1.0)(x, t)

    few_step(F, noise(1.0, n=2), (1.5, 0.8), [noise(1.0, n=2)], 1.0)
    assert calls == [1.5, 0.8]
    calls.clear()
    ode(F, noise(1.0, n=2), [1.5, 1.0, 0.5], 1.0)
    assert len(calls) == 5
