"""The comparison of a student with its teacher: what is sampled from which noise, and when the student is worse."""

import math
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_net
from torch import Tensor, nn

from scm_distill.artifacts.run_records import Endpoints
from scm_distill.maths.clocks import DiscreteSchedule, FlowClock
from scm_distill.models import low_pass
from scm_distill.models.network import Network
from scm_distill.training.endpoint import Comparison, sample

NAN = float("nan")
SIGMA_D, T_MAX, T_MID = 0.5, 1.5, 0.9
EPS = torch.randn(2, 16, 1, 2, 2, generator=torch.Generator().manual_seed(0))


class Still(nn.Module):
    """F = `value` everywhere: dx/dt is sigma_d times that."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value, self.net, self.sigma_d, self.clock = value, nn.Identity(), SIGMA_D, FlowClock(1000, 0, SIGMA_D)

    def forward(self, x: Tensor, t: Tensor, cond: object) -> Tensor:
        return torch.full_like(x, self.value)


@pytest.mark.parametrize(
    ("one_step", "two_steps", "worse"),
    [
        (0.9, 1.9, False),
        (1.0, 2.0, False),  # as good as the teacher
        (1.1, 1.9, True),  # worse in one step only
        (0.9, 2.1, True),  # worse in two steps only
        (1.1, 2.1, True),
        (NAN, 1.9, True),
        (0.9, NAN, True),
        (NAN, NAN, True),
    ],
)
def test_worse_in_one_step_or_in_two_is_worse(one_step: float, two_steps: float, worse: bool) -> None:
    comparison = SimpleNamespace(teacher=Endpoints(rmse=0.0, one_step=1.0, two_steps=2.0))
    assert Comparison.worse(comparison, Endpoints(rmse=9.0, one_step=one_step, two_steps=two_steps)) is worse


def test_two_steps_start_from_the_first_noise_and_go_on_with_the_second() -> None:
    network: Network = Still(0.0)  # f(x, t) = cos(t) x
    first, second = SIGMA_D * EPS[0], SIGMA_D * EPS[1]
    one = math.cos(T_MAX) * first
    assert torch.allclose(sample(network, EPS, {}, (T_MAX,)), one)
    two = math.cos(T_MID) * (math.cos(T_MID) * one + math.sin(T_MID) * second)
    assert torch.allclose(sample(network, EPS, {}, (T_MAX, T_MID)), two)


def test_every_further_step_has_the_next_noise() -> None:
    eps, times = torch.cat([EPS, -2 * EPS[:1]]), (T_MAX, T_MID, 0.4)
    x_0 = sample(Still(0.0), eps, {}, times[:2])
    three = math.cos(0.4) * (math.cos(0.4) * x_0 + math.sin(0.4) * SIGMA_D * eps[2])
    assert torch.allclose(sample(Still(0.0), eps, {}, times), three)


def test_the_endpoints_and_the_undistilled_teacher_are_without_the_low_pass() -> None:
    schedule = DiscreteSchedule(torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0), 1.0)
    teacher = Network(tiny_net(), schedule, "v_prediction", 1.0).requires_grad_(False)
    eps = torch.randn(2, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    low_pass.prepare(teacher, eps[0], torch.tensor([0.2, 0.8, 1.4]).double(), {})
    plain = Comparison(teacher, eps, {}, (1.5, T_MID), 3)
    low_pass.set_width(teacher.net, 50)
    smooth = Comparison(teacher, eps, {}, (1.5, T_MID), 3)
    assert torch.equal(smooth.endpoint, plain.endpoint)
    assert smooth.teacher == plain.teacher
    assert smooth.measure(teacher)[0] != plain.teacher
    assert [layer.width for layer in low_pass.filters(teacher.net)] == [50.0]


def test_figures_are_measured_from_the_endpoints_of_the_first_noise() -> None:
    comparison = Comparison(Still(0.0), EPS, {}, (T_MAX, T_MID), 4)  # dx/dt = 0: the endpoint is the noise itself
    assert torch.allclose(comparison.endpoint, SIGMA_D * EPS[0], atol=1e-6)
    figures, (one, two) = comparison.measure(Still(0.2))
    x_1 = math.cos(T_MAX) * SIGMA_D * EPS[0] - math.sin(T_MAX) * SIGMA_D * 0.2
    x_2 = (
        math.cos(T_MID) * (math.cos(T_MID) * x_1 + math.sin(T_MID) * SIGMA_D * EPS[1]) - math.sin(T_MID) * SIGMA_D * 0.2
    )
    assert torch.allclose(one, x_1, atol=1e-6)
    assert torch.allclose(two, x_2, atol=1e-6)
    rmse = (x_1 - SIGMA_D * EPS[0]).square().mean().sqrt() / SIGMA_D
    assert figures.rmse == pytest.approx(float(rmse), rel=1e-5)
    assert figures.one_step > figures.two_steps > 0  # one step ends near a constant, two steps have noise again
    assert comparison.teacher.rmse == pytest.approx(1 - math.cos(T_MAX), rel=0.2)


def test_samples_that_are_not_finite_have_no_distance() -> None:
    comparison = Comparison(Still(0.0), EPS, {}, (T_MAX, T_MID), 2)
    figures, _ = comparison.measure(Still(math.inf))
    assert all(math.isnan(value) for value in (figures.one_step, figures.two_steps))
    assert comparison.worse(figures)
