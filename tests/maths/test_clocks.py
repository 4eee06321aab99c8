"""Clocks undo themselves, know their own derivative, and space their times as a sampler wants them."""

import itertools
import math

import pytest
import torch
from analytic import LINEAR

from scm_distill.maths.clocks import Clock, DiscreteSchedule, EDMClock, FlowClock, flow_time, spaced

SIGMAS = (0.5, 1.0, 1.7)
SLOPES = ((1000.0, 0.0), (1.0, 0.0), (-1.0, 1.0), (-1000.0, 1000.0), (870.3, 12.5))
TABLE = (
    torch.tensor([0.1, 0.3, 0.45, 0.8, 1.0], dtype=torch.float64),
    torch.tensor([40.0, 410.0, 500.0, 930.0, 1000.0], dtype=torch.float64),
)


def flows(sigma_d: float) -> dict[str, FlowClock]:
    known = {f"{slope:g} s + {offset:g}": FlowClock(slope, offset, sigma_d) for slope, offset in SLOPES}
    return {**known, "table": FlowClock(1000.0, 0.0, sigma_d, s_min=0.1, table=TABLE)}


def clocks(sigma_d: float) -> dict[str, Clock]:
    return {
        **flows(sigma_d),
        "log": EDMClock("log", sigma_d, 0.002, 80.0),
        "arctan": EDMClock("arctan", sigma_d, 0.3, 500.0),
        "discrete": DiscreteSchedule(LINEAR, sigma_d),
    }


NAMES = list(clocks(1.0))
every_clock = pytest.mark.parametrize(("name", "sigma_d"), [(n, s) for n in NAMES for s in SIGMAS])


def inside(clock: Clock, n: int = 41) -> torch.Tensor:
    """Times between the ends, off every grid."""
    share = torch.linspace(0.0137, 0.9863, n, dtype=torch.float64)
    return clock.t_min + share * (clock.t_max - clock.t_min)


@every_clock
def test_index_and_time_undo_each_other(name: str, sigma_d: float) -> None:
    clock = clocks(sigma_d)[name]
    t = inside(clock)
    tau = clock.network_time(t)
    assert tau.dtype == clock.time(tau).dtype == torch.float64
    assert (clock.time(tau) - t).abs().max() < 1e-12
    assert (clock.network_time(clock.time(tau)) - tau).abs().max() < 1e-12 * 1000 * clock.unit


@every_clock
def test_the_index_knows_its_derivative(name: str, sigma_d: float) -> None:
    clock = clocks(sigma_d)[name]
    t = inside(clock).requires_grad_()
    (slope,) = torch.autograd.grad(clock.network_time(t).sum(), t)
    with torch.no_grad():
        numeric = (clock.network_time(t + 1e-6) - clock.network_time(t - 1e-6)) / 2e-6
    assert (slope - numeric).abs().max() < 1e-5 * slope.abs().max()
    assert slope.abs().min() > 0


@every_clock
def test_the_time_knows_its_derivative(name: str, sigma_d: float) -> None:
    clock = clocks(sigma_d)[name]
    t = inside(clock).requires_grad_()
    tau = clock.network_time(t)
    (back,) = torch.autograd.grad(clock.time(tau).sum(), t)
    assert torch.allclose(back, torch.ones_like(back), rtol=1e-8)


@every_clock
@pytest.mark.parametrize("steps", [2, 7, 50])
def test_spaced_times_fall_from_top_to_bottom(name: str, sigma_d: float, steps: int) -> None:
    clock = clocks(sigma_d)[name]
    times = spaced(clock, clock.t_max, steps)
    assert len(times) == steps
    assert all(a > b for a, b in itertools.pairwise(times))
    assert (times[0], times[-1]) == pytest.approx((clock.t_max, clock.t_min), abs=1e-7)
    gaps = clock.network_time(torch.tensor(times, dtype=torch.float64)).diff()
    assert (gaps - gaps.mean()).abs().max() <= (1.0 if name == "discrete" else 1e-9 * 1000 * clock.unit)


@pytest.mark.parametrize("sigma_d", SIGMAS)
def test_spaced_times_of_a_discrete_schedule_lie_on_its_grid(sigma_d: float) -> None:
    clock = DiscreteSchedule(LINEAR, sigma_d)
    grid = set(clock.phi.tolist())
    assert set(spaced(clock, clock.t_max, 50)) <= grid
    between = float(clock.time(torch.tensor(700.4, dtype=torch.float64)))
    assert spaced(clock, between, 9)[0] == float(clock.phi[700])


def test_more_steps_than_a_schedule_has_are_as_many_as_it_has() -> None:
    clock = DiscreteSchedule(LINEAR[::100], 1.0)
    assert spaced(clock, clock.t_max, 64) == clock.phi.flip(0).tolist()


@pytest.mark.parametrize("sigma_d", SIGMAS)
@pytest.mark.parametrize(("slope", "offset"), SLOPES)
def test_a_flows_network_time_is_affine_in_s(slope: float, offset: float, sigma_d: float) -> None:
    clock = FlowClock(slope, offset, sigma_d)
    t = inside(clock)
    s = sigma_d * t.sin() / (t.cos() + sigma_d * t.sin())
    assert torch.allclose(clock.network_time(t), slope * s + offset, atol=1e-12 * abs(slope))
    assert clock.unit == abs(slope) / 1000
    assert clock.t_max == math.pi / 2
    assert clock.t_min == pytest.approx(math.atan2(0.001, sigma_d * 0.999))
    top = float(clock.network_time(torch.tensor(math.pi / 2, dtype=torch.float64)))
    assert top == pytest.approx(slope + offset, abs=1e-12 * abs(slope))


@pytest.mark.parametrize("sigma_d", SIGMAS)
def test_t_min_of_a_flow_is_float64(sigma_d: float) -> None:
    assert FlowClock(1000.0, 0.0, sigma_d).t_min == pytest.approx(math.atan2(0.001, sigma_d * 0.999), rel=1e-12)


def test_a_table_passes_through_its_entries_and_ends_where_it_does() -> None:
    clock = FlowClock(1000.0, 0.0, 1.7, s_min=0.1, table=TABLE)
    s, tau = TABLE
    assert torch.allclose(clock.network_time(clock.time(tau)), tau, atol=1e-9)
    assert torch.allclose(flow_time(clock.time(tau), 1.7), s, atol=1e-12)
    assert float(clock.network_time(torch.tensor(clock.t_min))) == pytest.approx(40.0, abs=1e-3)
    assert float(clock.network_time(torch.tensor(1e-3))) == 40.0


@pytest.mark.parametrize("sigma_d", SIGMAS)
@pytest.mark.parametrize(
    ("kind", "tau"), [("log", lambda s: math.log(s) / 4), ("arctan", lambda s: 2 / math.pi * math.atan(s))]
)
def test_an_edm_clock_is_its_formula(kind, tau, sigma_d: float) -> None:
    clock = EDMClock(kind, sigma_d, 0.01, 80.0)
    assert (math.tan(clock.t_min) * sigma_d, math.tan(clock.t_max) * sigma_d) == pytest.approx((0.01, 80.0))
    for sigma in (0.01, 0.5, 7.0, 80.0):
        t = torch.tensor(math.atan(sigma / sigma_d), dtype=torch.float64)
        assert float(clock.network_time(t)) == pytest.approx(tau(sigma), abs=1e-12)
    assert clock.unit == pytest.approx((tau(80.0) - tau(0.01)) / 1000, rel=1e-4)


@pytest.mark.parametrize("name", [*flows(1.0), "log", "arctan"])
def test_continuous_clocks_do_not_snap(name: str) -> None:
    clock = clocks(0.5)[name]
    t = inside(clock)
    assert clock.snap(t) is t


def test_a_discrete_clock_counts_indices() -> None:
    clock = DiscreteSchedule(LINEAR, 0.5)
    assert clock.unit == 1.0
    assert (clock.t_min, clock.t_max) == (float(clock.phi[0]), float(clock.phi[-1]))
    assert torch.equal(clock.snap(clock.time(torch.tensor([3.4, 3.6, 998.9]))), clock.phi[[3, 4, 999]])


def test_a_clock_off_by_a_part_in_a_million_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    time = FlowClock.time
    monkeypatch.setattr(FlowClock, "time", lambda self, k: time(self, k * (1 + 1e-6)))
    with pytest.raises(AssertionError):
        test_index_and_time_undo_each_other("1000 s + 0", 1.0)
