"""The times that a stock scheduler can express, asked of the stock schedulers themselves."""

import math

import pytest
import torch
from analytic import LINEAR
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, LCMScheduler

from scm_distill.export import schedulers
from scm_distill.export.schedulers import Grid
from scm_distill.maths.clocks import DiscreteSchedule, EDMClock, FlowClock, flow_time, flow_to_t

SIGMAS = (0.5, 1.0, 1.7)
T_MIDS = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
SCALED = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).alphas_cumprod.double()
ZERO_SNR = DDIMScheduler(beta_schedule="scaled_linear", rescale_betas_zero_snr=True).alphas_cumprod.double()


def s_of(grid: Grid, sigma_d: float) -> float:
    return float(flow_time(torch.tensor(grid.t_mid, dtype=torch.float64), sigma_d))


def at(s: float, sigma_d: float = 1.0) -> Grid:
    return Grid(math.pi / 2, float(flow_to_t(torch.tensor(s, dtype=torch.float64), sigma_d)))


@pytest.mark.parametrize("sigma_d", SIGMAS)
def test_a_flows_times_survive_bfloat16(sigma_d: float) -> None:
    many = torch.linspace(0.02, 1.55, 200).tolist()
    for grid in schedulers.flow_grid(many, FlowClock(1000.0, 0.0, sigma_d), sigma_d, whole=False):
        tau = 1000 * s_of(grid, sigma_d)
        assert tau == pytest.approx(4 * round(tau / 4), abs=1e-9)
        assert float(torch.tensor(tau).bfloat16()) == pytest.approx(tau, abs=1e-9)
        assert grid.t_max == math.pi / 2


def test_a_finer_step_would_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedulers, "SIGMA_STEP", 0.001)
    with pytest.raises(AssertionError):
        test_a_flows_times_survive_bfloat16(1.0)


@pytest.mark.parametrize("sigma_d", SIGMAS)
def test_a_flows_times_are_the_nearest(sigma_d: float) -> None:
    grids = schedulers.flow_grid(T_MIDS, FlowClock(1000.0, 0.0, sigma_d), sigma_d, whole=False)
    assert len(grids) == len(T_MIDS)
    for t, grid in zip(T_MIDS, grids, strict=True):
        wanted = float(flow_time(torch.tensor(t, dtype=torch.float64), sigma_d))
        assert abs(s_of(grid, sigma_d) - wanted) <= schedulers.SIGMA_STEP / 2 + 1e-7


@pytest.mark.parametrize("whole", [False, True])
def test_times_that_fall_together_are_one(whole: bool) -> None:
    grids = schedulers.flow_grid((0.7, 0.7001, 0.9, 0.6999), FlowClock(1000.0, 0.0, 1.0), 1.0, whole=whole)
    assert [round(grid.t_mid, 2) for grid in grids] == [0.7, 0.9]


@pytest.mark.parametrize("clock", [FlowClock(1000.0, 0.0, 0.5), FlowClock(-1000.0, 1000.0, 0.5)])
def test_whole_times_are_integers_of_the_networks_own(clock: FlowClock) -> None:
    for t, grid in zip(T_MIDS, schedulers.flow_grid(T_MIDS, clock, 0.5, whole=True), strict=True):
        wanted, tau = clock.network_time(torch.tensor([t, grid.t_mid], dtype=torch.float64)).tolist()
        assert tau == pytest.approx(round(tau), abs=1e-9)
        assert abs(tau - wanted) <= 0.5


@pytest.mark.parametrize("t", [0.0012, 1.57])
def test_no_time_is_rounded_onto_an_end(t: float) -> None:
    (grid,) = schedulers.flow_grid([t], FlowClock(1000.0, 0.0, 1.0), 1.0, whole=False)
    assert 0 < s_of(grid, 1.0) < 1


@pytest.mark.parametrize(
    "bar", [LINEAR, SCALED, ZERO_SNR, LINEAR[::20]], ids=["linear", "scaled", "zero snr", "50 steps"]
)
def test_discrete_times_are_what_the_stock_scheduler_gives(bar: torch.Tensor) -> None:
    phi = DiscreteSchedule(bar, 1.0).phi
    grids = schedulers.discrete_grid(phi, T_MIDS)
    assert 0 < len(grids) == len(set(grids)) <= len(T_MIDS)
    for grid in grids:
        scheduler = LCMScheduler(num_train_timesteps=len(phi), original_inference_steps=grid.original)
        scheduler.set_timesteps(2)
        assert [float(phi[k]) for k in scheduler.timesteps] == [grid.t_max, grid.t_mid]


@pytest.mark.parametrize("bar", [LINEAR, SCALED, ZERO_SNR])
def test_no_other_discrete_pair_is_both_nearer_and_higher(bar: torch.Tensor) -> None:
    phi, scheduler = DiscreteSchedule(bar, 1.0).phi, LCMScheduler(num_train_timesteps=len(bar))
    pairs = []
    for original in range(2, 51):
        scheduler.set_timesteps(2, original_inference_steps=original)
        pairs.append([float(phi[k]) for k in scheduler.timesteps])
    for t in T_MIDS:
        (grid,) = schedulers.discrete_grid(phi, [t])
        away = abs(grid.t_mid - t)
        assert not [p for p in pairs if p[0] > grid.t_max and abs(p[1] - t) < away]
        assert grid.t_max > 0.995 * max(p[0] for p in pairs)


def test_a_low_start_is_not_bought_with_a_near_middle() -> None:
    """Of LCM's pairs on 50 indices, the one nearest to 0.9 starts far below the top."""
    phi = DiscreteSchedule(LINEAR[::20], 1.0).phi
    (grid,) = schedulers.discrete_grid(phi, [0.9])
    assert grid.t_max > 0.98 * float(phi[-1])


@pytest.mark.parametrize("s", [0.004, 0.4, 0.664, 0.996])
@pytest.mark.parametrize("sigma_d", SIGMAS)
def test_a_flows_two_steps(s: float, sigma_d: float) -> None:
    teacher = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    scheduler = schedulers.flow(teacher, at(s, sigma_d), sigma_d, in_call=False)
    scheduler.set_timesteps(2)
    assert scheduler.sigmas.tolist() == pytest.approx([1.0, s, 0.0], abs=1e-6)
    assert scheduler.timesteps.bfloat16().tolist() == pytest.approx([1000.0, 1000 * s])


@pytest.mark.parametrize("s", [0.004, 0.4, 0.996])
def test_a_flows_two_steps_where_the_call_brings_evenly_spaced_sigmas(s: float) -> None:
    scheduler = schedulers.flow(FlowMatchEulerDiscreteScheduler(), at(s), 1.0, in_call=False)
    scheduler.set_timesteps(sigmas=[1.0, 0.5], mu=1.15)
    assert scheduler.sigmas.tolist() == pytest.approx([1.0, s, 0.0], abs=1e-6)


def test_a_flows_two_steps_in_the_call() -> None:
    scheduler = schedulers.flow(FlowMatchEulerDiscreteScheduler(shift=3.0), at(0.4), 1.0, in_call=True)
    scheduler.set_timesteps(timesteps=[1000, 400], sigmas=[1.0, 0.4])
    assert scheduler.sigmas.tolist() == pytest.approx([1.0, 0.4, 0.0])
    assert scheduler.timesteps.tolist() == [1000, 400]


def test_a_flows_second_step_is_fresh_noise_and_its_own_count_of_times() -> None:
    teacher = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1)
    scheduler = schedulers.flow(teacher, at(0.4), 1.0, in_call=False)
    scheduler.set_timesteps(sigmas=[1.0, 0.5])
    assert scheduler.timesteps.tolist() == pytest.approx([1.0, 0.4])
    x, v, g = torch.ones(1, 4), torch.full((1, 4), 0.25), torch.Generator().manual_seed(0)
    moved = scheduler.step(v, scheduler.timesteps[0], x, generator=g).prev_sample
    noise = torch.randn(1, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(moved, 0.6 * (x - v) + 0.4 * noise, atol=1e-6)


@pytest.mark.parametrize(("kind", "low", "high"), [("log", 0.002, 80.0), ("arctan", 0.3, 500.0)])
@pytest.mark.parametrize("sigma_d", SIGMAS)
@pytest.mark.parametrize("t_mid", [0.6, 1.3])
def test_an_edm_students_two_steps(kind, low: float, high: float, sigma_d: float, t_mid: float) -> None:
    pytest.importorskip("torchsde")
    clock = EDMClock(kind, sigma_d, low, high)
    teacher = DDIMScheduler(prediction_type="v_prediction")
    scheduler = schedulers.edm(teacher, Grid(clock.t_max, t_mid), clock)
    scheduler.set_timesteps(2)
    assert scheduler.sigmas.tolist() == pytest.approx([high, sigma_d * math.tan(t_mid), 0.0], rel=1e-5)
    times = clock.network_time(torch.tensor([clock.t_max, t_mid])).tolist()
    assert scheduler.timesteps.tolist() == pytest.approx(times, rel=1e-4, abs=1e-6)
    assert scheduler.config.prediction_type == "v_prediction"


@pytest.mark.parametrize("bar", [LINEAR, SCALED, ZERO_SNR], ids=["linear", "scaled", "zero snr"])
def test_a_discrete_schedule_is_reproduced(bar: torch.Tensor) -> None:
    scheduler = schedulers.discrete(bar, "epsilon", 9)
    assert (scheduler.alphas_cumprod.double() - bar).abs().max() < 1e-6
    assert scheduler.config.prediction_type == "epsilon"
    scheduler.set_timesteps(2)
    (top, middle), expected = scheduler.timesteps.tolist(), LCMScheduler()
    expected.set_timesteps(2, original_inference_steps=9)
    assert [top, middle] == expected.timesteps.tolist()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_discrete_step_is_a_consistency_models(prediction: str) -> None:
    """No skip, and fresh noise: x = alpha x_0 + sigma z."""
    scheduler = schedulers.discrete(SCALED, prediction, 9)
    scheduler.set_timesteps(2)
    k, after = scheduler.timesteps
    x, raw = (torch.randn(1, 4, generator=torch.Generator().manual_seed(i), dtype=torch.float64) for i in (1, 2))
    step = scheduler.step(raw, k, x, generator=torch.Generator().manual_seed(0))
    a, s = SCALED[k].sqrt(), (1 - SCALED[k]).sqrt()
    x_0 = {"epsilon": (x - s * raw) / a, "v_prediction": a * x - s * raw, "sample": raw}[prediction]
    z = torch.randn(1, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(step.denoised, x_0, rtol=1e-5, atol=1e-5)
    assert torch.allclose(step.prev_sample, SCALED[after].sqrt() * x_0 + (1 - SCALED[after]).sqrt() * z, atol=1e-5)


def test_a_discrete_step_has_no_skip_at_any_index_but_the_first() -> None:
    scheduler = schedulers.discrete(SCALED, "epsilon", 9)
    for k in (1, 2, 20):
        c_skip, c_out = scheduler.get_scalings_for_boundary_condition_discrete(torch.tensor(k))
        assert (float(c_skip), float(c_out)) == pytest.approx((0.0, 1.0), abs=1e-12)


def test_sigmas_that_start_below_one_are_stretched_with_t_mid() -> None:
    (grid,) = schedulers.flow_grid([1.1], FlowClock(1000.0, 0.0, 1.0), 1.0, whole=False, own_sigmas=(0.999, 0.4995))
    scheduler = schedulers.flow(FlowMatchEulerDiscreteScheduler(), grid, 1.0, in_call=False)
    scheduler.set_timesteps(sigmas=[0.999, 0.4995])
    assert float(scheduler.sigmas[0]) < 1
    for sigma, t in zip(scheduler.sigmas[:2], (grid.t_max, grid.t_mid), strict=True):
        torch.testing.assert_close(float(flow_time(torch.tensor(t), 1.0)), float(sigma), rtol=0, atol=1e-6)
