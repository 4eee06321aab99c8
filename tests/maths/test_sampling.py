"""Samplers on the case solved on paper."""

import itertools
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


def hand(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A network that is no denoiser of anything: every place of its arguments shows in the result."""
    return 0.3 * x**2 + t[:, None].to(x.dtype) - 0.2


X_T = torch.tensor([[0.7, -0.4], [1.1, 0.2]], dtype=torch.float64)
NOISE = [torch.tensor(z, dtype=torch.float64) for z in ([[0.5, -1.0], [0.1, 0.8]], [[-0.3, 0.9], [2.0, -0.6]])]


def f(x: torch.Tensor, t: float, sigma_d: float) -> torch.Tensor:
    """cos t x - sin t sigma_d F(x / sigma_d, t), written out."""
    return math.cos(t) * x - math.sin(t) * sigma_d * (0.3 * (x / sigma_d) ** 2 + t - 0.2)


@pytest.mark.parametrize("sigma_d", [0.5, 1.7])
def test_every_step_after_the_first_has_a_noise_of_its_own(sigma_d: float) -> None:
    one, two, three = 1.5, 1.1, 0.6
    x_0 = f(X_T, one, sigma_d)
    assert torch.allclose(few_step(hand, X_T, (one,), [], sigma_d), x_0)
    x_0 = f(math.cos(two) * x_0 + math.sin(two) * NOISE[0], two, sigma_d)
    assert torch.allclose(few_step(hand, X_T, (one, two), NOISE[:1], sigma_d), x_0)
    x_0 = f(math.cos(three) * x_0 + math.sin(three) * NOISE[1], three, sigma_d)
    assert torch.allclose(few_step(hand, X_T, (one, two, three), NOISE, sigma_d), x_0)


@pytest.mark.parametrize("sigma_d", [0.5, 1.7])
def test_the_steps_of_ddim_and_heun_by_hand(sigma_d: float) -> None:
    times = (1.4, 0.9, 0.3)

    def F(x: torch.Tensor, t: float) -> torch.Tensor:
        return 0.3 * (x / sigma_d) ** 2 + t - 0.2

    ddim, heun = X_T, X_T
    for s, t in itertools.pairwise(times):
        ddim = math.cos(s - t) * ddim - math.sin(s - t) * sigma_d * F(ddim, s)
        predicted = math.cos(s - t) * heun - math.sin(s - t) * sigma_d * F(heun, s)
        heun = heun + (t - s) * sigma_d * (F(heun, s) + F(predicted, t)) / 2
    assert torch.allclose(ode(hand, X_T, times, sigma_d, heun=False), f(ddim, 0.3, sigma_d))
    assert torch.allclose(ode(hand, X_T, times, sigma_d), f(heun, 0.3, sigma_d))
