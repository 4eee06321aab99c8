"""Algorithm 1 against the case solved on paper, against its hand-computed gradient, and with bugs planted in it."""

import inspect
import types
from collections.abc import Callable
from typing import get_args

import analytic
import pytest
import torch
from analytic import LINEAR, as_F, ode_endpoint, posterior_mean, through_native

from scm_distill.autodiff import derivatives, rules
from scm_distill.maths import clocks, schedules, tangent, trigflow
from scm_distill.maths.schedules import Prediction
from scm_distill.objectives import scm

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


def mutant(module: types.ModuleType, old: str, new: str) -> types.ModuleType:
    """`module` with one place of its source changed."""
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in {module.__name__}"
    changed = types.ModuleType(module.__name__)
    changed.__dict__.update({"__file__": module.__file__})
    exec(compile(source.replace(old, new), module.__name__, "exec"), changed.__dict__)
    return changed


BUGS = {
    "sign of the r-term flipped": (tangent, "- r * (t.cos()", "+ r * (t.cos()"),
    "r stuck at 0": (tangent, "min(1.0, step / H)", "0.0 * step * H"),
    "r = 0.9": (tangent, "min(1.0, step / H)", "0.9 * min(1.0, step / H)"),
    "x_t dropped": (tangent, "t.cos() * t.sin() * x_t + ", ""),
    "sigma_d missing before dF/dt": (tangent, "x_t + sigma_d * cs_dF", "x_t + cs_dF"),
    "cos instead of cos squared": (tangent, "-t.cos().square() *", "-t.cos() *"),
    "sigma_d missing before F": (tangent, "(sigma_d * F_minus - dxdt)", "(F_minus - dxdt)"),
    "cos t sin t missing from the tangents": (derivatives, "cs = t.cos() * t.sin()", "cs = torch.ones_like(t)"),
    "cos t sin t twice": (derivatives, "cs = t.cos() * t.sin()", "cs = (t.cos() * t.sin()).square()"),
    "only cos t": (derivatives, "cs = t.cos() * t.sin()", "cs = t.cos()"),
    "time tangent 0": (derivatives, ".to(v.dtype) * v, cs", ".to(v.dtype) * v, 0 * cs"),
    "x tangent 0": (derivatives, ".to(v.dtype) * v, cs", ".to(v.dtype) * 0 * v, cs"),
    "x tangent not divided by sigma_d": (scm, "t, cond, dxdt / sigma_d)", "t, cond, dxdt)"),
    "teacher velocity without sigma_d": (scm, "dxdt = sigma_d * F_teacher", "dxdt = F_teacher"),
    "sign of the teacher velocity": (scm, "dxdt = sigma_d * F_teacher", "dxdt = -sigma_d * F_teacher"),
    "teacher at another time": (scm, "F_teacher(x_t / sigma_d, t, cond)", "F_teacher(x_t / sigma_d, 0.9 * t, cond)"),
    "teacher in t / (pi / 2)": (scm, "F_teacher(x_t / sigma_d, t, cond)", "F_teacher(x_t / sigma_d, t / 1.5708, cond)"),
    "student input not divided by sigma_d": (scm, "student(x_t / sigma_d, t,", "student(x_t, t,"),
    "velocity of the pair": (scm, 'self.velocity == "teacher"', 'self.velocity == "pair"'),
}
READING_BUGS = {
    "sigma_d forgotten in the time map": (
        clocks,
        ".sqrt(), sigma_d * bar.clamp_min(0).sqrt())",
        ".sqrt(), bar.clamp_min(0).sqrt())",
    ),
    "epsilon without its skip": (schedules, "a, b = 1 / c, -s / (sigma_d * c)", "a, b = 1 / c, 0 * s"),
    "epsilon read as v": (schedules, "a, b = 1 / c, -s / (sigma_d * c)", "a, b = rho, 0 * s"),
    "input not scaled": (schedules, "return like(self.rho, x_t).to(x_t.dtype) * x_t", "return x_t"),
    "nearest index": (clocks, "return self._index(t)", "return self._index(t).detach().round()"),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_oracle_sees_planted_bugs(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, old, new = BUGS[bug]
    changed = mutant(module, old, new)
    if module is scm:
        monkeypatch.setattr(scm, "Objective", changed.Objective)
    elif module is derivatives:
        monkeypatch.setattr(derivatives, "tangent_pass", changed.tangent_pass)
    else:
        monkeypatch.setattr(scm, "tangent", changed.tangent)
        monkeypatch.setattr(scm, "warmup", changed.warmup)
    assert residual(as_F(ode_endpoint, 0.5), as_F(posterior_mean, 0.5), 0.5) > 1e-2


@pytest.mark.parametrize("bug", READING_BUGS)
def test_the_oracle_sees_bugs_in_the_reading(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, *change = READING_BUGS[bug]
    changed = mutant(module, *change)
    # The native network goes by the true schedule; only the reading is wrong.
    if module is schedules:
        monkeypatch.setattr(analytic, "native", changed.native)
    else:
        schedule = changed.DiscreteSchedule
        monkeypatch.setattr(analytic, "native_time", lambda _, t, s: schedule(LINEAR, s).network_time(t))
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


LOSS_BUGS = {
    "g -> -g": (scm, "F_theta - F_minus - g)", "F_theta - F_minus + g)"),
    "stop-gradient missing": (scm, "F_theta - F_minus - g)", "F_minus - F_theta - g)"),
    "norm over the whole batch": (tangent, "(like(norm(g, kind), g) + c)", "(g.square().mean().sqrt() + c)"),
    "no normalization": (tangent, "return g / (like(norm(g, kind), g) + c)", "return g"),
    "weight without exponential": (scm, "(w_phi.exp() * error", "(w_phi * error"),
    "D divided twice": (scm, ".square().flatten(1).mean(1)", ".square().flatten(1).mean(1) / g[0].numel()"),
}


@pytest.mark.parametrize("bug", LOSS_BUGS)
def test_the_hand_gradient_sees_planted_bugs(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, old, new = LOSS_BUGS[bug]
    changed = mutant(module, old, new)
    if module is scm:
        monkeypatch.setattr(scm, "Objective", changed.Objective)
    else:
        monkeypatch.setattr(scm, "normalize", changed.normalize)
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
