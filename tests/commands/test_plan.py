"""The dry run: on the device of the run where that holds the teacher, and with progress."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from scm_distill import config, plan_train
from scm_distill.commands import train
from scm_distill.progress import Silent


class Heard(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, int]] = []
        self.done: list[int] = []
        self.said: list[str] = []

    def begin(self, phase: str, total: int, done: int = 0) -> None:
        self.phases.append((phase, total))

    def advance(self, done: int, figures: dict[str, float] | None = None) -> None:
        self.done.append(done)

    def say(self, text: str) -> None:
        self.said.append(text)


def test_it_says_how_far_it_is() -> None:
    heard = Heard()
    plan = plan_train("digits", overrides=["train.device=cpu"], report=heard)
    assert heard.phases == [("dry run", 4)]
    assert heard.done == [1, 2, 3, 4]
    assert plan.device == "cpu"


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], list[str]]:
    """Lets the teacher fail on a GPU with an error; the list of devices on which it was tried."""

    def make(error: Exception) -> list[str]:
        devices: list[str] = []

        def load(_: Any, device: torch.device, __: int, **___: Any) -> str:
            devices.append(device.type)
            if device.type == "cuda":
                raise error
            return "loaded"

        monkeypatch.setattr(train.networks, "load_teacher", load)
        monkeypatch.setattr(train, "_planner", lambda _, loaded, world, device: (loaded, world, device.type))
        return devices

    return make


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("out of memory")], ids=str
)
def test_a_gpu_that_is_too_small_leaves_it_to_the_cpu(tried: Any, error: Exception) -> None:
    devices, heard = tried(error), Heard()
    recipe = config.read("digits", ())
    assert train._read(recipe, 2, torch.device("cuda"), heard) == ("loaded", ("loaded", 2, "cuda"))
    assert devices == ["cuda", "cpu"]
    assert heard.said == ["this cuda device does not hold the teacher in float32: it is read on the CPU instead"]


def test_another_failure_is_not_taken_for_a_lack_of_memory(tried: Any) -> None:
    devices = tried(RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        train._read(config.read("digits", ()), 1, torch.device("cuda"), Heard())
    assert devices == ["cuda"]
