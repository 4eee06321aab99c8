"""Schedules and native parameterisations against independent formulas."""

import math
from typing import get_args

import pytest
import torch
from analytic import LINEAR, as_F, ode_endpoint, posterior_mean, through_native
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator

from scm_distill.maths.clocks import DiscreteSchedule, alphas_cumprod_of, edm_noise, edm_to_t, flow_time, flow_to_t
from scm_distill.maths.interpolation import MonotoneCubic
from scm_distill.maths.schedules import Prediction, native

SIGMAS = (0.5, 1.0, 1.7)
VP = ("epsilon", "v_prediction", "sample")
TIMES = torch.tensor([0.05, 0.4, 0.8, 1.1, 1.4, 1.5], dtype=torch.float64)


@pytest.mark.parametrize("sigma_d", SIGMAS)
@pytest.mark.parametrize("x_0", [posterior_mean, ode_endpoint])
@pytest.mark.parametrize("prediction", get_args(Prediction))
def test_every_native_prediction_of_one_answer_reads_as_the_same_F(prediction, x_0, sigma_d) -> None:
    x = torch.randn(6, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected, read = as_F(x_0, sigma_d)(x, TIMES), through_native(prediction, x_0, sigma_d)(x, TIMES)
    assert (read - expected).abs().max() < 1e-11


@given(st.sampled_from(get_args(Prediction)), st.floats(0.2, 2.0))
def test_conversions_round_trip(prediction: Prediction, sigma_d: float) -> None:
    x, F = (torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    form = native(prediction, TIMES, sigma_d)
    assert torch.allclose(form.to_F(form.from_F(F, x), x), F, atol=1e-10)


@given(st.floats(1e-3, math.pi / 2 - 1e-3), st.floats(0.2, 2.0))
def test_times_round_trip(time: float, sigma_d: float) -> None:
    t = torch.tensor([time], dtype=torch.float64)
    assert torch.allclose(flow_to_t(flow_time(t, sigma_d), sigma_d), t, atol=1e-12)
    assert torch.allclose(edm_to_t(edm_noise(t, sigma_d), sigma_d), t, atol=1e-9)


def test_the_known_ends_of_common_schedules() -> None:
    """Of the linear and the scaled-linear betas of diffusers, at sigma_d = 1."""
    scaled = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
    for bar, t_min, t_max, index in ((LINEAR, 0.0100, 1.5644, 392.4), (scaled, 0.0292, 1.5025, 557.2)):
        schedule = DiscreteSchedule(bar, 1.0)
        assert schedule.t_min == pytest.approx(t_min, abs=1e-4)
        assert schedule.t_max == pytest.approx(t_max, abs=1e-4)
        assert float(schedule.network_time(torch.tensor([1.1]))) == pytest.approx(index, abs=0.1)


@pytest.mark.parametrize("sigma_d", SIGMAS)
def test_a_schedule_and_its_inverse(sigma_d: float) -> None:
    schedule = DiscreteSchedule(LINEAR, sigma_d)
    k = torch.tensor([0.0, 0.3, 17.5, 499.0, 742.25, 999.0], dtype=torch.float64)
    assert torch.allclose(schedule.network_time(schedule.time(k)), k, atol=1e-7)
    assert torch.allclose(alphas_cumprod_of(schedule.phi, sigma_d), LINEAR, rtol=1e-9)


def test_the_index_has_the_right_derivative_and_clamps_outside() -> None:
    schedule = DiscreteSchedule(LINEAR, 1.0)
    t = torch.tensor([0.02, 0.5, 1.1, 1.55], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(schedule.network_time(t).sum(), t)
    with torch.no_grad():
        numeric = (schedule.network_time(t + 1e-7) - schedule.network_time(t - 1e-7)) / 2e-7
    assert torch.allclose(slope, numeric, rtol=1e-4)
    k = t.detach().new_tensor([3.3, 500.5]).requires_grad_()
    (inverse,) = torch.autograd.grad(schedule.time(k).sum(), k)
    expected = 1 / torch.func.vmap(torch.func.grad(lambda s: _index_of(schedule, s)))(schedule.time(k.detach()))
    assert torch.allclose(inverse, expected, rtol=1e-8)
    outside = torch.tensor([-1.0, 3.0])
    assert schedule.network_time(outside).tolist() == [0.0, 999.0]


def _index_of(schedule: DiscreteSchedule, s: torch.Tensor) -> torch.Tensor:
    return schedule.network_time(s[None])[0]


def test_zero_terminal_snr_is_finite() -> None:
    bar = LINEAR.clone()
    bar[-1] = 0
    schedule = DiscreteSchedule(bar, 1.0)
    assert schedule.t_max == pytest.approx(math.pi / 2)
    assert float(schedule.network_time(torch.tensor([1.57]))) < 999


@given(st.lists(st.floats(0.01, 5.0), min_size=3, max_size=9))
@example([0.1, 5.0, 1.0, 5.0, 0.1])  # the three-point slopes of both ends are negative
def test_the_interpolation_is_scipys_pchip(steps: list[float]) -> None:
    x = torch.arange(len(steps) + 1, dtype=torch.float64) ** 1.3
    y = torch.tensor([0.0, *steps], dtype=torch.float64).cumsum(0)
    at = torch.linspace(0, float(x[-1]), 50, dtype=torch.float64)
    assert torch.allclose(MonotoneCubic(x, y)(at), torch.from_numpy(PchipInterpolator(x, y)(at)), atol=1e-9)


def test_points_that_do_not_increase_are_refused() -> None:
    with pytest.raises(ValueError, match="increasing"):
        MonotoneCubic(torch.tensor([0.0, 1.0, 1.0]), torch.tensor([0.0, 1.0, 2.0]))
