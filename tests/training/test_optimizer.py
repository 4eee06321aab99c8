"""The learning rate over a whole run, and what the optimizer is built with."""

import math

import pytest
import torch
from torch import nn

from scm_distill import config
from scm_distill.training import optimizer

LR, STEPS, WARMUP = 2e-4, 20, 4


def settings(**changes: object) -> config.Optimizer:
    return config.Optimizer(**{"lr": LR, "warmup_steps": WARMUP, **changes})


def rates(**changes: object) -> list[float]:
    """The learning rates of all steps, as shares of optimizer.lr."""
    return [optimizer.lr(step, STEPS, settings(**changes)) / LR for step in range(STEPS)]


@pytest.mark.parametrize("decay", ["cosine", "constant", "rsqrt"])
def test_the_warm_up_starts_above_zero_and_ends_at_the_full_rate(decay: str) -> None:
    assert rates(decay=decay)[: WARMUP + 1] == pytest.approx([0.25, 0.5, 0.75, 1, 1])


def test_cosine_falls_to_nothing_just_after_the_last_step() -> None:
    found = rates(decay="cosine")
    assert found[WARMUP:] == pytest.approx([(1 + math.cos(math.pi * i / 16)) / 2 for i in range(16)])
    assert found[12] == pytest.approx(0.5)  # the middle of what follows the warm-up
    assert 0 < found[-1] < 0.01
    assert optimizer.lr(STEPS, STEPS, settings(decay="cosine")) == pytest.approx(0, abs=1e-20)


def test_rsqrt_is_the_root_of_warm_up_over_step() -> None:
    found = rates(decay="rsqrt")
    assert found[WARMUP:] == pytest.approx([math.sqrt(WARMUP / step) for step in range(WARMUP, STEPS)])
    assert found[4 * WARMUP] == pytest.approx(0.5)


def test_constant_stays() -> None:
    assert rates(decay="constant")[WARMUP:] == [1] * (STEPS - WARMUP)


@pytest.mark.parametrize(
    ("decay", "second"), [("cosine", (1 + math.cos(math.pi / STEPS)) / 2), ("constant", 1), ("rsqrt", 1)]
)
def test_without_a_warm_up_the_first_rate_is_the_full_one(decay: str, second: float) -> None:
    assert rates(decay=decay, warmup_steps=0)[:2] == pytest.approx([1, second])


def test_a_warm_up_of_the_whole_run() -> None:
    assert rates(decay="cosine", warmup_steps=STEPS) == pytest.approx([(i + 1) / STEPS for i in range(STEPS)])


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("radam", torch.optim.RAdam)]
)
def test_it_is_built_of_the_settings_and_of_what_is_trained(name: str, kind: type[torch.optim.Optimizer]) -> None:
    moving, frozen = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3), requires_grad=False)
    built = optimizer.build([frozen, moving], settings(name=name, betas=(0.7, 0.8), eps=1e-5, weight_decay=0.1))
    assert type(built) is kind
    (group,) = built.param_groups
    assert group["params"] == [moving]
    assert [group[key] for key in ("lr", "betas", "eps", "weight_decay")] == [LR, (0.7, 0.8), 1e-5, 0.1]
