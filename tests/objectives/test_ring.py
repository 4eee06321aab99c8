"""Eight Gaussians on a ring: the exact score teaches, the exact ODE endpoint judges."""

import itertools
import math

import pytest
import torch
from conftest import wide
from torch import Tensor, nn

from scm_distill import config
from scm_distill.autodiff.derivatives import OnePass
from scm_distill.maths.trigflow import sample_t
from scm_distill.models.ema import PowerEMA
from scm_distill.objectives.scm import Objective
from scm_distill.training import optimizer

SIGMA_D, MODE = 0.5, 0.104
RADIUS = math.sqrt(2 * (SIGMA_D**2 - MODE**2))  # so that the data's standard deviation is sigma_d
CENTRES = RADIUS * torch.stack(
    [torch.tensor([math.cos(a), math.sin(a)]) for a in torch.arange(8).tolist() for a in [a * math.pi / 4]]
)


def teacher(x: Tensor, t: Tensor, cond: object = None) -> Tensor:
    """F of the mixture: (E[z | x_t] cos - E[x_0 | x_t] sin) / sigma_d."""
    x_t, c, s = SIGMA_D * x, t.cos()[:, None].to(x.dtype), t.sin()[:, None].to(x.dtype)
    centres = CENTRES.to(x.dtype)
    v = MODE**2 * c**2 + SIGMA_D**2 * s**2
    offset = x_t[:, None] - c[:, :, None] * centres
    p = (-offset.square().sum(-1) / (2 * v)).softmax(1)
    x_0 = (p[..., None] * (centres + (MODE**2 * c / v)[..., None] * offset)).sum(1)
    return (c * x_t - x_0) / (s * SIGMA_D)


def endpoint(x: Tensor, start: float) -> Tensor:
    """Runge-Kutta, 400 steps evenly spaced in ln tan t, float64."""
    x = x.double()
    times = torch.linspace(math.log(math.tan(start)), math.log(1e-3), 401, dtype=torch.float64).exp().atan().tolist()

    def velocity(x: Tensor, time: float) -> Tensor:
        return SIGMA_D * teacher(x / SIGMA_D, torch.full((len(x),), time, dtype=torch.float64))

    for a, b in itertools.pairwise(times):
        h = b - a
        k1 = velocity(x, a)
        k2 = velocity(x + h / 2 * k1, a + h / 2)
        k3 = velocity(x + h / 2 * k2, a + h / 2)
        k4 = velocity(x + h * k3, b)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


class MLP(nn.Module):
    """Residual, width 64, three blocks, each told the time through sines and cosines of 8 frequencies."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.t, self.last = nn.Linear(2, 64), nn.Linear(16, 64), nn.Linear(64, 2)
        self.blocks = nn.ModuleList(nn.ModuleList(nn.Linear(64, 64) for _ in range(3)) for _ in range(3))

    def forward(self, x: Tensor, t: Tensor, cond: object = None) -> Tensor:
        silu = nn.functional.silu
        phase = t[:, None].to(x.dtype) * torch.tensor([0.5, 1, 2, 3, 4, 5, 6, 8])
        time = silu(self.t(torch.cat([phase.sin(), phase.cos()], 1)))
        h = self.x(x)
        for into, out, of_time in self.blocks:
            h = h + out(silu(into(silu(h)) + of_time(time)))
        return self.last(silu(h))


@pytest.mark.parametrize(("STEPS", "BATCH", "allowed"), [(400, 128, 0.25), *wide((2000, 256, 0.06))])
def test_one_step_lands_on_the_exact_endpoint(STEPS: int, BATCH: int, allowed: float) -> None:
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        student = MLP()
    g = torch.Generator().manual_seed(0)
    objective = Objective(SIGMA_D, 0.1, "rms", STEPS // 4, "teacher")
    settings = config.Optimizer(name="adam", lr=2e-3, warmup_steps=0)
    adam = optimizer.build(student.parameters(), settings)
    ema = PowerEMA(student, 0.1)
    for step in range(STEPS):
        mode = torch.randint(8, (BATCH,), generator=g)
        x_0 = CENTRES[mode] + MODE * torch.randn(BATCH, 2, generator=g)
        z = SIGMA_D * torch.randn(BATCH, 2, generator=g)
        t = sample_t(torch.randn(BATCH, generator=g), -1.0, 1.4, SIGMA_D).clamp(1e-3, math.atan(80 / SIGMA_D))
        for group in adam.param_groups:
            group["lr"] = optimizer.lr(step, STEPS, settings)
        loss = objective(
            lambda x, s, c, v: (*OnePass([])(student, x, s, c, v), torch.zeros(len(x))), teacher,
            x_0, z, t, {}, step,
        )  # fmt: skip
        loss.total.backward()
        adam.step()
        adam.zero_grad()
        ema.update(student, step + 1)
    student = ema.module
    start = math.atan(80 / SIGMA_D)
    x_T = SIGMA_D * torch.randn(2000, 2, generator=g)
    t = torch.full((2000,), start)
    with torch.no_grad():
        x_0 = t.cos()[:, None] * x_T - t.sin()[:, None] * SIGMA_D * student(x_T / SIGMA_D, t)
    rmse = float((x_0 - endpoint(x_T, start)).square().mean().sqrt()) / SIGMA_D
    assert rmse <= allowed, rmse
