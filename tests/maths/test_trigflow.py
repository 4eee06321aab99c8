"""TrigFlow's invariants."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from scm_distill.maths.trigflow import ddim_step, denoise, diffuse, pair_velocity, sample_t

times = st.floats(0.0, math.pi / 2)


def batch(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_at_time_zero_the_consistency_function_is_the_identity() -> None:
    x, F = batch(2, 3, 5, 7), batch(2, 3, 5, 7, seed=1)
    assert torch.equal(denoise(x, F, torch.zeros(2, dtype=torch.float64), 0.7), x)


@given(times, st.floats(0.2, 2.0))
def test_denoise_undoes_diffuse_when_F_is_the_pair_velocity(time: float, sigma_d: float) -> None:
    x_0, z, t = batch(2, 3, 5, 7), batch(2, 3, 5, 7, seed=1), torch.tensor([time, time / 2], dtype=torch.float64)
    x_t, F = diffuse(x_0, z, t), pair_velocity(x_0, z, t) / sigma_d
    assert torch.allclose(denoise(x_t, F, t, sigma_d), x_0, atol=1e-12)


def test_pair_velocity_is_the_derivative_of_diffuse() -> None:
    x_0, z, t = batch(2, 3, 5, 7), batch(2, 3, 5, 7, seed=1), torch.tensor([0.4, 1.3], dtype=torch.float64)
    numeric = (diffuse(x_0, z, t + 1e-6) - diffuse(x_0, z, t - 1e-6)) / 2e-6
    assert torch.allclose(pair_velocity(x_0, z, t), numeric, atol=1e-8)


@given(times, times)
def test_moving_along_one_pair_lands_on_its_x_t(s: float, t: float) -> None:
    x_0, z = batch(2, 3), batch(2, 3, seed=1)
    a, b = (torch.full((2,), time, dtype=torch.float64) for time in (s, t))
    F = pair_velocity(x_0, z, a) / 0.5
    assert torch.allclose(ddim_step(diffuse(x_0, z, a), F, a, b, 0.5), diffuse(x_0, z, b), atol=1e-12)


def test_x_t_keeps_the_standard_deviation_sigma_d() -> None:
    x_0, z = 0.6 * batch(20000), 0.6 * batch(20000, seed=1)
    for time in (0.1, 0.8, 1.5):
        assert abs(diffuse(x_0, z, torch.full((20000,), time)).std() - 0.6) < 0.01


def test_the_proposal_is_log_normal_in_sigma_d_tan_t() -> None:
    t = sample_t(batch(40000), P_mean=-0.8, P_std=1.4, sigma_d=0.5)
    tau = (0.5 * t.tan()).log()
    for share in (0.1, 0.25, 0.5, 0.75, 0.9):
        expected = -0.8 + 1.4 * 2**0.5 * torch.erfinv(torch.tensor(2 * share - 1, dtype=torch.float64))
        assert abs(tau.quantile(share) - expected) < 0.03
