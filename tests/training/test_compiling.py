"""When blocks are compiled, what is heard of it, and what happens where that gives something else."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TeacherMaker

from scm_distill import config
from scm_distill.autodiff import compiled
from scm_distill.autodiff.derivatives import OnePass
from scm_distill.errors import UserError
from scm_distill.progress import Silent
from scm_distill.training import compiling, setup
from scm_distill.training import run as training_run

pytestmark = pytest.mark.filterwarnings("ignore")  # of the compiler
GPU, CPU = torch.device("cuda"), torch.device("cpu")


class Listener(Silent):
    """Keeps what was said, and the phases with their progress."""

    def __init__(self) -> None:
        self.said, self.phases = "", []  # type: ignore[var-annotated]

    def begin(self, phase: str, total: int, done: int = 0) -> None:
        self.phases.append((phase, total, []))

    def advance(self, done: int, figures: dict[str, float] | None = None) -> None:
        self.phases[-1][2].append(done)

    def say(self, text: str) -> None:
        self.said += text + "\n"


@pytest.mark.parametrize(
    ("overrides", "memory", "device", "expected"),
    [
        ([], "fast", GPU, "blocks"),
        ([], "fast", CPU, "off"),
        ([], "lean", GPU, "off"),
        (["train.steps=1000"], "fast", GPU, "off"),
        (["train.compile=off"], "fast", GPU, "off"),
        (["train.compile=blocks", "train.steps=2"], "fast", CPU, "blocks"),
        (["train.compile=step"], "fast", GPU, "step"),
    ],
)
def test_long_runs_on_a_gpu_are_compiled(
    overrides: list[str], memory: Any, device: torch.device, expected: str
) -> None:
    assert compiling.wanted(config.read("digits", ["train.steps=1001", *overrides]), memory, device) == expected


@pytest.fixture
def begin(
    tmp_path: Path, make_teacher: TeacherMaker, recipe_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[setup.Setup, Listener]]:
    """A run set up; compilation goes as far as the graph, which is run as it is."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr(compiled, "LEVELS", compiled.Kinds(compiled.LEVELS.function))
    monkeypatch.setattr(compiled, "CALLS", compiled.Kinds(compiled.CALLS.function))
    monkeypatch.setattr(compiled, "whole", cache(compiled.whole.__wrapped__))
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_of(make_teacher()))
    for part in ("samples", "checkpoints"):
        (tmp_path / part).mkdir()

    def go(*overrides: str) -> tuple[setup.Setup, Listener]:
        listener = Listener()
        return setup.build(config.read(str(path), overrides), tmp_path, None, listener), listener

    return go


@pytest.mark.wide
@pytest.mark.parametrize("compiles", ["blocks", "step"])
def test_a_compiled_run_takes_the_steps_of_an_eager_one(begin: Any, compiles: str) -> None:
    ends = []
    for how in ("off", compiles):
        made, heard = begin(f"train.compile={how}", "train.steps=2", "train.evaluate_every=2")
        trained = training_run.Run(made).train()
        ends.append(torch.cat([p.flatten() for p in trained.student.parameters()]))
    assert isinstance(made.velocity, compiling.CompiledTeacher)
    assert made.derivative.compile == compiles
    assert "train.compile=off switches this off" in heard.said
    _, total, done = next(x for x in heard.phases if x[0].startswith("compile"))
    assert total == (2 * len(made.derivative.blocks) if compiles == "blocks" else 1)
    assert done == list(range(1, total + 1))
    assert torch.allclose(*ends, rtol=1e-4, atol=1e-6)


def test_where_the_compiler_fails_auto_says_so_and_a_setting_is_refused(
    begin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(compiled, "_own", broken)
    with pytest.raises(UserError, match="is not the eager one: RuntimeError: no compiler here"):
        begin("train.compile=blocks")
    monkeypatch.setattr(compiling, "wanted", lambda *_: "blocks")
    made, heard = begin()
    assert isinstance(made.derivative, OnePass)
    assert made.derivative.compile == "off"
    assert made.velocity is made.loaded.F_teacher
    assert "compiled blocks would not do (RuntimeError: no compiler here)" in heard.said
    assert "train.compile=off" in heard.said


def test_a_teacher_that_does_not_compile_stays_eager_or_is_refused(begin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made, heard = begin()
    F, x, t = made.loaded.F_teacher, torch.randn(2, 1, 8, 8), torch.tensor([0.5, 1.0])
    right = compiling.CompiledTeacher.__call__
    monkeypatch.setattr(compiled.Kinds, "of", lambda self, forward, key: self.function)
    assert isinstance(compiling.teacher(F, made.recipe, x, t, {}, heard), compiling.CompiledTeacher)
    monkeypatch.setattr(compiling.CompiledTeacher, "__call__", lambda *args: 1.1 * right(*args))
    assert compiling.teacher(F, made.recipe, x, t, {}, heard) is F
    assert "teacher: compiled blocks would not do (F is off by 1.0e-01)" in heard.said
    asked = made.recipe.model_copy(update={"train": made.recipe.train.model_copy(update={"compile": "blocks"})})
    with pytest.raises(UserError, match="compiled teacher is not the eager one: F is off by"):
        compiling.teacher(F, asked, x, t, {}, heard)
