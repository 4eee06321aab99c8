"""The pre-fit: which times and noise it sees, what it takes a step on, and when it stops."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from scm_distill import config
from scm_distill.errors import UserError
from scm_distill.maths.trigflow import diffuse
from scm_distill.progress import Silent
from scm_distill.training import prefit
from scm_distill.training.batches import Batch, BatchSource
from scm_distill.training.randomness import Draws

SIGMA_D = 0.5
DRAWS = Draws(
    seed=0, shape=(1, 2, 2), batch=32, micro=16, rank=0, world=1, P_mean=-0.3, P_std=1.4, sigma_d=SIGMA_D, t_min=0.01,
    t_max=1.56, flip=False,
)  # fmt: skip


class Teacher(nn.Module):
    """F = 2 x + cos t. Where it is told the times beforehand, they are those that come."""

    sigma_d = SIGMA_D
    known: Tensor | None = None

    @contextmanager
    def knowing(self, t: Tensor) -> Iterator[None]:
        self.known = t
        yield
        self.known = None

    def forward(self, x: Tensor, t: Tensor, cond: object) -> Tensor:
        assert self.known is None or torch.equal(t, self.known)
        return 2 * x + t.cos().to(x.dtype)[:, None, None, None]


class Student(nn.Module):
    """F = a x + b cos t, with a and b trained; keeps the inputs that it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([0.0, 0.0]))
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, t: Tensor, cond: object) -> tuple[Tensor, None, Tensor]:
        self.seen.append((x.detach(), t))
        a, b = self.weights
        return a * x + b * t.cos().to(x.dtype)[:, None, None, None], None, torch.zeros(len(x))


class Images:
    """Sixty-four images, each of one value."""

    groups = None

    def __len__(self) -> int:
        return 64

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        i = torch.tensor(indices)
        return (i / 64 - 0.5)[:, None, None, None].expand(-1, 1, 2, 2), torch.zeros(len(i), dtype=torch.long)


def source(draws: Draws = DRAWS) -> BatchSource:
    return BatchSource(draws, Images(), lambda ids, chance: {}, 0, pin=False)  # type: ignore[arg-type]


def recipe_of(*overrides: str) -> config.Recipe:
    content = {"teacher": {"repo": "none"}, "data": {"source": "none"}, "train": {"steps": 1, "batch_size": 32}}
    return config.parse(content, overrides)


def run(student: Student, *overrides: str, draws: Draws = DRAWS) -> None:
    probe = (torch.ones(2, 1, 2, 2), torch.tensor([0.5, 1.0]), {})
    prefit.run(recipe_of(*overrides), Accelerator(cpu=True), student, Teacher(), source(draws), probe, Silent())


def test_it_sees_the_times_and_the_noise_of_the_draws_over_the_whole_range() -> None:
    student = Student()
    run(student, "adapt.prefit_steps=8")
    seen = student.seen[1:-1]  # the first and the last call are of the probe
    assert len(seen) == 16  # two micro-batches a step
    t = torch.cat([t for _, t in seen])
    drawn = [part for step in range(8) for part in DRAWS.step("pre-fit", step)]
    assert torch.equal(t, torch.cat([part[1] for part in drawn]))
    tau = (SIGMA_D * t.tan()).log()
    assert float(tau.mean()) == pytest.approx(DRAWS.P_mean, abs=0.3)
    assert float(tau.std()) == pytest.approx(DRAWS.P_std, rel=0.15)
    assert float(t.min()) < 0.1
    assert float(t.max()) > 1.4
    for (x, at), (z, *_) in zip(seen, drawn, strict=True):
        x_0 = (SIGMA_D * x - at.sin().float()[:, None, None, None] * z) / at.cos().float()[:, None, None, None]
        assert torch.allclose(x_0, x_0.mean((1, 2, 3), keepdim=True).expand_as(x_0), atol=2e-4)  # an image of `Images`


def test_it_learns_the_teachers_F() -> None:
    student = Student()
    run(student, "adapt.prefit_steps=300", "adapt.prefit_lr=0.05")
    assert student.weights.tolist() == pytest.approx([2, 1], abs=0.05)


def batches(count: int, x_0: float = 0.0) -> Iterator[list[Batch]]:
    z, t = torch.full((4, 1, 2, 2), 1.0), torch.full((4,), 1.2, dtype=torch.float64)
    for _ in range(count):
        yield [(torch.full((4, 1, 2, 2), x_0), z, t, {})]


def test_the_learning_rate_falls_linearly_to_a_tenth(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self: (rates.append(self.param_groups[0]["lr"]), step(self))[1]
    )
    prefit.fit(Accelerator(cpu=True), Student(), Teacher(), batches(9), total=9, lr=1.0, report=Silent())
    assert rates == pytest.approx([1 - 0.1 * i for i in range(9)])


class Losses(Silent):
    """Keeps the losses that are reported."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def advance(self, done: int, figures: dict[str, float] | None = None) -> None:
        self.found += [(figures or {})["loss"]]


@pytest.mark.parametrize("micro", [8, 16])
def test_micro_batches_are_one_batch(micro: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam and the clip to a norm of 1 hide the scale of a gradient: it is looked at before both, as is the loss."""
    gradients: list[Tensor] = []
    clip = prefit.clip

    def look(parameters: list[nn.Parameter], limit: float) -> Tensor:
        assert limit == 1.0
        gradients.append(parameters[0].grad.clone())
        return clip(parameters, limit)

    monkeypatch.setattr(prefit, "clip", look)
    losses = Losses()
    for size in (micro, 32):
        steps = source(replace(DRAWS, micro=size)).steps("pre-fit", 0, 0)
        prefit.fit(Accelerator(cpu=True), Student(), Teacher(), steps, total=1, lr=0.1, report=losses)
    assert losses.found[0] == pytest.approx(losses.found[1], rel=1e-5)
    assert gradients[0].tolist() == pytest.approx(gradients[1].tolist(), rel=1e-5)


def test_a_loss_that_is_not_finite_ends_it() -> None:
    with pytest.raises(UserError, match="pre-fit loss is nan"):
        prefit.fit(Accelerator(cpu=True), Student(), Teacher(), batches(2, math.nan), total=2, lr=1.0, report=Silent())


def test_the_relative_error() -> None:
    x_t, t = SIGMA_D * torch.full((4, 1, 2, 2), 1.0), torch.full((4,), math.pi / 2)
    student = Student()
    student.weights.data = torch.tensor([1.5, 0.0])
    assert prefit.relative_error(student, Teacher(), x_t, t, {}) == pytest.approx(0.25)  # 1.5 x beside 2 x
    assert torch.equal(student.seen[0][0], x_t / SIGMA_D)
    assert torch.allclose(diffuse(x_t, x_t, t), x_t)
