"""What the processes of a machine keep in its memory, and when that is refused."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from training.memory.test_plan import recipe_of

from scm_distill.errors import UserError
from scm_distill.training.memory import host
from scm_distill.training.memory.plan import Planner


@pytest.fixture
def planner() -> Planner:
    network = torch.nn.Linear(1000, 1000, bias=False)
    frozen = torch.nn.Linear(500, 1000, bias=False).requires_grad_(False)
    nothing = torch.zeros(1)
    given: Any = torch.nn.Sequential(network, frozen)
    teacher: Any = torch.nn.Linear(1000, 1000, bias=False)
    return Planner(given, teacher, nothing, nothing, {}, torch.device("cuda"), world=8)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), (0, 0, 8_000_000)),
        (("train.offload=[ema]",), (0, 48_000_000, 8_000_000)),
        (("train.offload=[teacher]",), (32_000_000, 0, 8_000_000)),
        (("train.offload=[teacher]", "teacher.dtype=bf16", "train.precision=bf16"), (16_000_000, 0, 8_000_000)),
    ],
)
def test_what_eight_processes_keep(planner: Planner, overrides: tuple[str, ...], expected: tuple[int, ...]) -> None:
    assert tuple(host.needed(recipe_of(*overrides), planner, 8).values()) == expected


def test_more_than_is_free_is_refused_with_its_parts(planner: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    recipe = recipe_of("train.offload=[ema]")
    for free, fits in ((32_000_000, True), (31_999_999, False)):  # 4 averages of 6 MB, and a checkpoint of 8
        monkeypatch.setattr(psutil, "virtual_memory", lambda free=free: SimpleNamespace(available=free))
        if fits:
            host.check(recipe, planner)
            continue
        with pytest.raises(
            UserError, match=r"^4 processes need 30\.5 MiB .*offloaded averages 22\.9 MiB, a checkpoint"
        ):
            host.check(recipe, planner)
        host.check(recipe, replace(planner, device=torch.device("cpu")))


def test_a_launcher_that_does_not_say_how_many_are_here(planner: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=0))
    with pytest.raises(UserError, match=r"^2 processes need"):
        host.check(recipe_of(), planner)
