"""Algorithm 1 against the case solved on paper, against its hand-computed gradient, and with bugs planted in it."""

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import analytic
import pytest
import torch
from analytic import LINEAR, as_F, ode_endpoint, posterior_mean, through_native

from scm_distill.autodiff import derivatives, rules
from scm_distill.maths import clocks, schedules, tangent, trigflow
from scm_distill.maths.schedules import Parameterization, Prediction
from scm_distill.objectives import Loss, scm

B = 64


def residual(student: Callable[..., torch.Tensor], teacher: Callable[..., torch.Tensor], sigma_d: float) -> float:
    """rms of g, of the whole objective with both solutions plugged in, relative to its first term at r = 1."""
    g = torch.Generator().manual_seed(0)
    x_0 = analytic.M + analytic.S * torch.randn(B, 3, 5, generator=g, dtype=torch.float64)
    z = sigma_d * torch.randn(B, 3, 5, generator=g, dtype=torch.float64)
    t = trigflow.sample_t(torch.randn(B, generator=g, dtype=torch.float64), -0.3, 1.4, sigma_d).clamp(0.02, 1.55)
    objective = scm.Objective(sigma_d, 0.1, "rms", 10, "teacher")

    def pair(x: torch.Tensor, s: torch.Tensor, c: object, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return *derivatives.tangent_pass(student, x, s, c, v), torch.zeros(B)

    loss = objective(pair, teacher, x_0, z, t, {}, 10)
    x_t = trigflow.diffuse(x_0, z, t)
    first = t.cos()[:, None, None] ** 2 * sigma_d * (student(x_t / sigma_d, t) - teacher(x_t / sigma_d, t))
    return float((loss.tangent_norm.square().mean() / first.square().mean()).sqrt())


@pytest.mark.parametrize("sigma_d", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("prediction", get_args(Prediction))
def test_the_solution_has_no_tangent(prediction: Prediction, sigma_d: float) -> None:
    student = through_native(prediction, ode_endpoint, sigma_d)
    teacher = through_native(prediction, posterior_mean, sigma_d)
    assert residual(student, teacher, sigma_d) < 1e-9


Change = Callable[..., torch.Tensor]


def objective_call(
    x: Change = lambda x_t, sigma_d: x_t / sigma_d,
    v: Change = lambda dxdt, sigma_d: dxdt / sigma_d,
    time: Change = lambda t: t,
    dxdt: Change = lambda F, x_0, z, t, sigma_d: sigma_d * F,
    difference: Change = lambda F_theta, F_minus, g: F_theta - F_minus - g,
    loss: Change = lambda error, w_phi, D: (w_phi.exp() * error - w_phi).mean(),
) -> Callable[..., Loss]:
    """`Objective.__call__` written out for velocity "teacher"; each argument is one place of it, to be made wrong."""

    def call(self, student, F_teacher, x_0, z, t, cond, step) -> Loss:
        x_t = trigflow.diffuse(x_0, z, t)
        with torch.no_grad():
            velocity = dxdt(F_teacher(x_t / self.sigma_d, time(t), cond), x_0, z, t, self.sigma_d)
        F_theta, cs_dF, w_phi = student(x(x_t, self.sigma_d), t, cond, v(velocity, self.sigma_d))
        F_minus = F_theta.detach()
        r = scm.warmup(step, self.warmup_steps)
        raw = scm.tangent(F_minus, cs_dF, x_t, velocity, t, sigma_d=self.sigma_d, r=r)
        g = scm.normalize(raw, self.c, self.normalization)
        error = difference(F_theta, F_minus, g).square().flatten(1).mean(1)
        rms = (tangent.norm(n, "rms") for n in (raw, cs_dF, F_minus - velocity / self.sigma_d))
        return Loss(loss(error, w_phi, g[0].numel()), t, *rms)

    return call


def test_the_objective_is_the_one_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the bugs that are planted in the copy would say nothing about the original."""
    expected, solved = gradients(), residual(as_F(ode_endpoint, 0.5), as_F(posterior_mean, 0.5), 0.5)
    monkeypatch.setattr(scm.Objective, "__call__", objective_call())
    for copied, original in zip(gradients()[0], expected[0], strict=True):
        assert torch.equal(copied, original)
    assert residual(as_F(ode_endpoint, 0.5), as_F(posterior_mean, 0.5), 0.5) == solved


def tangent_of(
    r_sign: float = 1, x: float = 1, dF: Change = lambda s: s, F: Change = lambda s: s, power: int = 2
) -> Change:
    """`tangent` written out; with the defaults it is right."""

    def wrong(F_minus, cs_dF, x_t, dxdt, t, *, sigma_d: float, r: float) -> torch.Tensor:
        t = trigflow.like(t, x_t)
        first = -(t.cos() ** power) * (F(sigma_d) * F_minus - dxdt)
        return first - r_sign * r * (x * t.cos() * t.sin() * x_t + dF(sigma_d) * cs_dF)

    return wrong


def direction_of(v_by: Change, t_by: Change) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """`direction` with these factors in place of cos t sin t."""
    return lambda t, v: (trigflow.like(v_by(t), v) * v, t_by(t))


def cs(t: torch.Tensor) -> torch.Tensor:
    return t.cos() * t.sin()


# The place of each function that is replaced, and the wrong one.
TANGENT, WARMUP, NORMALIZE = (scm, "tangent"), (scm, "warmup"), (scm, "normalize")
DIRECTION, CALL = (derivatives, "direction"), (scm.Objective, "__call__")
BUGS = {
    "sign of the r-term flipped": (TANGENT, tangent_of(r_sign=-1)),
    "r stuck at 0": (WARMUP, lambda step, H: 0.0),
    "r = 0.9": (WARMUP, lambda step, H: 0.9 * min(1.0, step / H)),
    "x_t dropped": (TANGENT, tangent_of(x=0)),
    "sigma_d missing before dF/dt": (TANGENT, tangent_of(dF=lambda sigma_d: 1.0)),
    "cos instead of cos squared": (TANGENT, tangent_of(power=1)),
    "sigma_d missing before F": (TANGENT, tangent_of(F=lambda sigma_d: 1.0)),
    "cos t sin t missing from the tangents": (DIRECTION, direction_of(torch.ones_like, torch.ones_like)),
    "cos t sin t twice": (DIRECTION, direction_of(lambda t: cs(t).square(), lambda t: cs(t).square())),
    "only cos t": (DIRECTION, direction_of(torch.cos, torch.cos)),
    "time tangent 0": (DIRECTION, direction_of(cs, torch.zeros_like)),
    "x tangent 0": (DIRECTION, direction_of(torch.zeros_like, cs)),
    "x tangent not divided by sigma_d": (CALL, objective_call(v=lambda dxdt, sigma_d: dxdt)),
    "teacher velocity without sigma_d": (CALL, objective_call(dxdt=lambda F, x_0, z, t, sigma_d: F)),
    "sign of the teacher velocity": (CALL, objective_call(dxdt=lambda F, x_0, z, t, sigma_d: -sigma_d * F)),
    "teacher at another time": (CALL, objective_call(time=lambda t: 0.9 * t)),
    "teacher in t / (pi / 2)": (CALL, objective_call(time=lambda t: t / 1.5708)),
    "student input not divided by sigma_d": (CALL, objective_call(x=lambda x_t, sigma_d: x_t)),
    "velocity of the pair": (
        CALL,
        objective_call(dxdt=lambda F, x_0, z, t, sigma_d: trigflow.pair_velocity(x_0, z, t)),
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_oracle_sees_planted_bugs(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, wrong = BUGS[bug]
    monkeypatch.setattr(*place, wrong)
    assert residual(as_F(ode_endpoint, 0.5), as_F(posterior_mean, 0.5), 0.5) > 1e-2


def test_the_written_out_tangent_and_direction_are_right_where_nothing_is_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(*TANGENT, tangent_of())
    monkeypatch.setattr(*DIRECTION, direction_of(cs, cs))
    assert residual(as_F(ode_endpoint, 0.5), as_F(posterior_mean, 0.5), 0.5) < 1e-9


def linear_index(t: torch.Tensor, sigma_d: float) -> torch.Tensor:
    return clocks.DiscreteSchedule(LINEAR, sigma_d).network_time(t)


def without_skip(prediction: Prediction, t: torch.Tensor, sigma_d: float) -> Parameterization:
    form = schedules.native(prediction, t, sigma_d)
    return replace(form, b=0 * form.b)


def epsilon_as_v(prediction: Prediction, t: torch.Tensor, sigma_d: float) -> Parameterization:
    rho = schedules.native(prediction, t, sigma_d).rho
    return Parameterization(rho, rho, 0 * rho)


# The native network goes by the true schedule; only the reading of it is wrong.
READING_BUGS = {
    "sigma_d forgotten in the time map": (analytic, "native_time", lambda _, t, sigma_d: linear_index(t, 1.0)),
    "epsilon without its skip": (analytic, "native", without_skip),
    "epsilon read as v": (analytic, "native", epsilon_as_v),
    "input not scaled": (Parameterization, "scale", lambda self, x_t: x_t),
    "nearest index": (analytic, "native_time", lambda _, t, sigma_d: linear_index(t, sigma_d).detach().round()),
}


@pytest.mark.parametrize("bug", READING_BUGS)
def test_the_oracle_sees_bugs_in_the_reading(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*READING_BUGS[bug])
    wrong = residual(through_native("epsilon", ode_endpoint, 0.5), through_native("epsilon", posterior_mean, 0.5), 0.5)
    assert wrong > 1e-2


class Toy(torch.nn.Module):
    """F_theta = tanh(a x + b t), and w_phi = p t + q."""

    def __init__(self) -> None:
        super().__init__()
        self.ab = torch.nn.Parameter(torch.tensor([0.8, -0.4], dtype=torch.float64))
        self.pq = torch.nn.Parameter(torch.tensor([0.3, -0.2], dtype=torch.float64))

    def F(self, x: torch.Tensor, t: torch.Tensor, cond: object = None) -> torch.Tensor:
        return (self.ab[0] * x + self.ab[1] * t[:, None, None]).tanh()

    def forward(self, x: torch.Tensor, t: torch.Tensor, cond: object, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return *derivatives.OnePass([])(self.F, x, t, cond, v), self.pq[0] * t + self.pq[1]


def gradients(velocity: str = "teacher", normalization: str = "rms") -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Gradients by autograd of the objective, and by hand: -2 e^w / D g . dF/dtheta and e^w |g|^2 / D - 1."""
    toy, sigma_d, step = Toy(), 0.5, 7
    g = torch.Generator().manual_seed(3)
    x_0, z = (0.5 * torch.randn(4, 3, 5, generator=g, dtype=torch.float64) for _ in range(2))
    t = torch.tensor([0.1, 0.6, 1.1, 1.5], dtype=torch.float64)
    teacher = as_F(posterior_mean, sigma_d)
    objective = scm.Objective(sigma_d, 0.1, normalization, 10, velocity)
    loss = objective(toy, teacher, x_0, z, t, {}, step)
    loss.total.backward()

    T = t[:, None, None]
    c, s, r = T.cos(), T.sin(), 0.7
    x_t = c * x_0 + s * z
    dxdt = sigma_d * teacher(x_t / sigma_d, t) if velocity == "teacher" else c * z - s * x_0
    a, b = toy.ab.detach()
    F = (a * x_t / sigma_d + b * T).tanh()
    dF = (1 - F**2) * (a * dxdt / sigma_d + b)
    raw = -(c**2) * (sigma_d * F - dxdt) - r * c * s * (x_t + sigma_d * dF)
    rms = raw.square().mean((1, 2), keepdim=True).sqrt()
    n = raw / (rms + 0.1) if normalization == "rms" else raw / (raw.square().sum((1, 2), keepdim=True).sqrt() + 0.1)
    w = (toy.pq[0] * t + toy.pq[1]).detach()
    weight = (w.exp() / 15 / 4)[:, None, None]
    by_hand = [
        torch.stack([(-2 * weight * n * (1 - F**2) * d).sum() for d in (x_t / sigma_d, T)]),
        torch.stack([((w.exp() * n.square().mean((1, 2)) - 1) / 4 * d).sum() for d in (t, torch.ones(4))]),
    ]
    return [toy.ab.grad, toy.pq.grad], by_hand


@pytest.mark.parametrize("velocity", ["teacher", "data"])
@pytest.mark.parametrize("normalization", ["rms", "l2"])
def test_the_gradient_is_the_one_computed_by_hand(velocity: str, normalization: str) -> None:
    for autograd, by_hand in zip(*gradients(velocity, normalization), strict=True):
        assert torch.allclose(autograd, by_hand, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("velocity", ["teacher", "data"])
def test_the_loss_and_what_is_logged_beside_it_by_hand(velocity: str) -> None:
    toy, sigma_d = Toy(), 0.5
    g = torch.Generator().manual_seed(3)
    x_0, z = (0.5 * torch.randn(4, 3, 5, generator=g, dtype=torch.float64) for _ in range(2))
    t = torch.tensor([0.1, 0.6, 1.1, 1.5], dtype=torch.float64)
    teacher = as_F(posterior_mean, sigma_d)
    loss = scm.Objective(sigma_d, 0.1, "rms", 10, velocity)(toy, teacher, x_0, z, t, {}, 7)

    def rms(x: torch.Tensor) -> torch.Tensor:
        return x.detach().square().mean((1, 2)).sqrt()

    T = t[:, None, None]
    c, s, r = T.cos(), T.sin(), 0.7
    x_t = c * x_0 + s * z
    dxdt = sigma_d * teacher(x_t / sigma_d, t) if velocity == "teacher" else c * z - s * x_0
    a, b = toy.ab.detach()
    F = (a * x_t / sigma_d + b * T).tanh()
    cs_dF = c * s * (1 - F**2) * (a * dxdt / sigma_d + b)
    raw = -(c**2) * (sigma_d * F - dxdt) - r * (c * s * x_t + sigma_d * cs_dF)
    normalized = raw / (rms(raw)[:, None, None] + 0.1)
    w = (toy.pq[0] * t + toy.pq[1]).detach()
    assert torch.allclose(loss.total, (w.exp() * rms(normalized).square() - w).mean())
    assert torch.equal(loss.t, t)
    assert torch.allclose(loss.tangent_norm, rms(raw))
    assert torch.allclose(loss.derivative_norm, rms(cs_dF))
    assert torch.allclose(loss.teacher_gap, rms(F - dxdt / sigma_d))


LOSS_BUGS = {
    "g -> -g": (CALL, objective_call(difference=lambda F_theta, F_minus, g: F_theta - F_minus + g)),
    "stop-gradient missing": (CALL, objective_call(difference=lambda F_theta, F_minus, g: F_minus - F_theta - g)),
    "norm over the whole batch": (NORMALIZE, lambda g, c, kind: g / (g.square().mean().sqrt() + c)),
    "no normalization": (NORMALIZE, lambda g, c, kind: g),
    "weight without exponential": (CALL, objective_call(loss=lambda error, w, D: (w * error - w).mean())),
    "D divided twice": (CALL, objective_call(loss=lambda error, w, D: (w.exp() * error / D - w).mean())),
}


@pytest.mark.parametrize("bug", LOSS_BUGS)
def test_the_hand_gradient_sees_planted_bugs(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, wrong = LOSS_BUGS[bug]
    monkeypatch.setattr(*place, wrong)
    pairs = zip(*gradients(), strict=True)
    assert any(not torch.allclose(a, b, rtol=1e-3) for a, b in pairs)


def test_central_difference_agrees_with_the_exact_derivative() -> None:
    F = as_F(ode_endpoint, 0.5)
    g = torch.Generator().manual_seed(0)
    x_t = torch.randn(8, 3, 5, generator=g, dtype=torch.float64)
    t = torch.linspace(0.1, 1.5, 8, dtype=torch.float64)
    v = as_F(posterior_mean, 0.5)(x_t / 0.5, t)
    _, exact = derivatives.tangent_pass(F, x_t / 0.5, t, {}, v)
    _, numeric = derivatives.Difference(1e-3)(F, x_t / 0.5, t, {}, v)
    assert torch.allclose(exact, numeric, atol=1e-5)
    assert rules.RULES  # the mode was in force
