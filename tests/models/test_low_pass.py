"""Low-pass, fold and re-clock on a real denoiser."""

import math

import pytest
import torch
from conftest import tiny_net, wide
from diffusers.models.embeddings import Timesteps

from scm_distill.maths.clocks import DiscreteSchedule
from scm_distill.models import low_pass, reclock
from scm_distill.models.network import Network

BAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)


class TimeOnly:
    """Calls a network with its time alone."""

    batchable = True

    def __call__(self, net, x_nat, tau, cond):
        return net(tau)


def network(sigma_d: float = 1.0, width: float = 0.0) -> Network:
    F = Network(tiny_net(), DiscreteSchedule(BAR, sigma_d), "v_prediction", sigma_d).requires_grad_(False)
    assert low_pass.prepare(F, *noised(), {}) == ["time_embedding.linear_1"]
    low_pass.set_width(F.net, width)
    return F


def noised(n: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.linspace(0.1, 1.5, n).double()


@pytest.mark.parametrize(("flip", "shift", "channels"), [(True, 0, 8), (False, 1, 8), (True, 0, 9)])
def test_the_low_pass_is_a_gaussian_average_over_the_step(flip: bool, shift: int, channels: int) -> None:
    proj = Timesteps(channels, flip, shift)
    layer = torch.nn.Linear(channels, channels, bias=False)
    torch.nn.init.eye_(layer.weight)
    net = torch.nn.Sequential(proj, layer)
    F = Network(net, DiscreteSchedule(BAR, 1.0), "v_prediction", 1.0, call=TimeOnly())
    assert low_pass.prepare(F, *noised(), {}) == ["1"]
    low_pass.set_width(net, 3.0)
    k = torch.tensor([100.0, 411.0])
    offsets = torch.linspace(-24, 24, 4001)
    weight = (-(offsets**2) / (2 * 3.0**2)).exp()
    averaged = torch.stack([(weight[:, None] * proj(at + offsets)).sum(0) / weight.sum() for at in k])
    assert torch.allclose(net(k), averaged, atol=1e-3)


def test_layers_that_read_no_sinusoids_of_time_are_left_alone() -> None:
    F = network()
    assert [name for name, module in F.net.named_modules() if isinstance(module, low_pass.Filtered)] == [
        "time_embedding.linear_1"
    ]


def test_width_zero_is_the_original_network() -> None:
    x, t = noised()
    plain, prepared = tiny_net(), network()
    k = prepared.clock.network_time(t).float()
    with torch.no_grad():
        assert torch.equal(prepared(x, t, {}), plain(x, k, return_dict=False)[0])


def test_folding_gives_a_stock_network_that_computes_the_same() -> None:
    x, _ = noised()
    smooth = network(width=20.0)
    k = torch.tensor([0.0, 10.0, 300.0, 640.5, 999.0])
    folded = low_pass.fold(smooth.net)
    assert folded.state_dict().keys() == tiny_net().state_dict().keys()
    with torch.no_grad():
        expected = smooth.net(x, k, return_dict=False)[0]
        assert torch.allclose(folded(x, k, return_dict=False)[0], expected, atol=1e-6)
        assert not torch.allclose(expected, tiny_net()(x, k, return_dict=False)[0], atol=1e-3)


def test_changing_the_width_replaces_no_parameter_and_no_buffer() -> None:
    F = network(width=20.0)
    layer = low_pass.filters(F.net)[0]
    before = [id(x) for x in (*F.parameters(), *F.buffers())]
    low_pass.set_width(F.net, 3.0)
    assert torch.equal(layer.low_pass, (-(layer.frequencies * 3.0).square() / 2).exp().float())
    with low_pass.original(F.net):
        assert torch.equal(layer.low_pass, torch.ones_like(layer.low_pass))
    assert torch.equal(layer.low_pass, layer.factors)
    assert not any("low_pass" in name for name, _ in F.net.named_buffers())  # offloading would put an old one back
    assert [id(x) for x in (*F.parameters(), *F.buffers())] == before


def test_the_width_found_is_the_widest_within_the_tolerance() -> None:
    x, t = noised()
    F = network()
    width = low_pass.widest(F, x, t, {}, 0.02)
    assert low_pass.change(F, x, t, {}, width) <= 0.02 < low_pass.change(F, x, t, {}, 1.06 * width)
    assert [layer.width for layer in low_pass.filters(F.net)] == [0.0]


@pytest.mark.parametrize(
    ("t_mid", "sigma_d"),
    [(1.1, 0.5), *wide((0.4, 0.5), (0.4, 1.0), (1.1, 1.0))],
)
def test_reclocking_is_exact_at_the_two_sampling_times(t_mid: float, sigma_d: float) -> None:
    F = network(sigma_d, width=20.0)
    t_max = min(math.atan(80 / sigma_d), F.clock.t_max)
    new, error = reclock.reclock(F, reclock.clock(F.clock.t_min, t_mid, t_max))
    x, _ = noised(2)
    t = torch.tensor([t_mid, t_max], dtype=torch.float64)
    assert torch.allclose(new.clock.network_time(t), torch.tensor([499.0, 999.0]).double(), atol=1e-3)
    with torch.no_grad():
        assert torch.allclose(new(x, t, {}), F(x, t, {}), atol=1e-5)
    assert error < 0.2  # away from them, for an MLP of 8 random channels; 0.002 on the digits teacher
    assert new.net.state_dict().keys() == tiny_net().state_dict().keys()


def test_the_clock_is_monotone_even_for_extreme_middles() -> None:
    for t_mid in (0.05, 0.8, 1.5):
        t = reclock.clock(0.01, t_mid, 1.558)
        assert (t.diff() > 0).all()
        assert (t[0], t[499], t[999]) == pytest.approx((0.01, t_mid, 1.558))
