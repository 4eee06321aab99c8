"""The TrigFlow form of a native denoiser."""

import math

import pytest
import torch
from conftest import tiny_net

from scm_distill.autodiff.forward_ad import jvp
from scm_distill.maths.clocks import DiscreteSchedule
from scm_distill.models import low_pass
from scm_distill.models.network import Network
from scm_distill.models.student import Student, Weight

BAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)


def test_F_and_its_tangent_in_bf16_stay_close_because_time_is_float32() -> None:
    net = tiny_net()
    x, dx = (torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    t = torch.linspace(0.2, 1.5, 8).double()
    low_pass.prepare(Network(net, DiscreteSchedule(BAR, 1.0), "v_prediction", 1.0), x, t, {})
    low_pass.set_width(net, 20.0)
    found = {}
    for dtype in (None, torch.bfloat16):
        F = Network(net, DiscreteSchedule(BAR, 1.0), "v_prediction", 1.0, dtype)
        found[dtype] = jvp(lambda x, t, F=F: F(x, t, {}), (x, t), (dx, t.cos() * t.sin()))
    for low, full in zip(found[torch.bfloat16], found[None], strict=True):
        assert low.dtype == torch.float32
        assert 1e-4 < (low - full).norm() / full.norm() < 0.05


def test_times_beyond_the_schedule_are_clamped_to_it() -> None:
    F = Network(tiny_net(), DiscreteSchedule(BAR, 1.0), "epsilon", 1.0)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        beyond, at = (F(x, torch.full((2,), t, dtype=torch.float64), {}) for t in (1.5707, F.clock.t_max))
    assert torch.equal(beyond, at)


@pytest.mark.parametrize("adaptive", [True, False])
def test_the_weight_starts_at_zero_and_depends_on_t_only(adaptive: bool) -> None:
    student = Student(Network(tiny_net(), DiscreteSchedule(BAR, 1.0), "epsilon", 1.0), adaptive=adaptive)
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0.1, 0.8, 1.5]).double()
    *_, w = student(x, t, {})
    assert torch.equal(w, torch.zeros(3))
    if adaptive:
        torch.nn.init.normal_(student.weight.linear.weight)
        (*_, w), (*_, again) = student(x, t, {}), student(0 * x, t, {})
        assert torch.equal(w, again)
        assert len(w.unique()) == 3


def test_w_phi_is_linear_in_the_sines_and_cosines_of_a_quarter_of_ln_tan_t() -> None:
    weight = Weight(3)
    a, b, bias = [0.7, -0.2, 0.4], [0.1, 0.5, -0.9], 0.25
    with torch.no_grad():
        weight.linear.weight.copy_(torch.tensor([a + b]))
        weight.linear.bias.fill_(bias)
    times = [0.05, 0.8, 1.2, 1.56]
    expected = []
    for t in times:
        c_noise = math.log(math.tan(t)) / 4
        phases = [0.5 * c_noise, 1.0 * c_noise, 1.5 * c_noise]
        expected.append(bias + sum(s * math.sin(p) + c * math.cos(p) for s, c, p in zip(a, b, phases, strict=True)))
    assert weight(torch.tensor(times).double()).tolist() == pytest.approx(expected, abs=1e-5)


def test_w_phi_has_sixteen_frequencies_from_a_half_to_eight() -> None:
    assert Weight().frequencies.tolist() == [0.5 * i for i in range(1, 17)]
