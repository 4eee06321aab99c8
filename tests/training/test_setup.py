"""The way from the command to the loss, and what a set-up run is made of."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TeacherMaker

import scm_distill
from scm_distill import config
from scm_distill.commands import train as command
from scm_distill.objectives.scm import Objective
from scm_distill.progress import Silent
from scm_distill.training import setup

PACKAGE = Path(scm_distill.__file__).parent


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, make_teacher: TeacherMaker, recipe_of: Callable[..., str]
) -> setup.Setup:
    """A run at step 0, of an epsilon teacher."""
    folder = tmp_path_factory.mktemp("setup")
    (folder / "recipe.yaml").write_text(recipe_of(make_teacher()))
    recipe = config.read(str(folder / "recipe.yaml"), ["train.micro_batch_size=2", "train.memory=lean"])
    return setup.build(recipe, folder, None, Silent())


def test_three_calls_lead_from_the_command_to_the_loss(
    tmp_path: Path, make_teacher: TeacherMaker, recipe_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[list[str]] = []
    objective = Objective.__call__

    def looked(self: Objective, *inputs: object) -> object:
        frame, path = sys._getframe(1), []
        while frame is not None:
            file = Path(frame.f_code.co_filename)
            if file.is_relative_to(PACKAGE):
                path.append(f"{file.relative_to(PACKAGE).with_suffix('')}:{frame.f_code.co_name}")
            frame = frame.f_back
        found.append(path[::-1])
        return objective(self, *inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(Objective, "__call__", looked)
    (tmp_path / "recipe.yaml").write_text(recipe_of(make_teacher()))
    changes = ["train.steps=1", "train.evaluate_every=1", "train.checkpoint_every=1", "train.stop_if_worse=false"]
    command.train(tmp_path / "recipe.yaml", overrides=changes, out=tmp_path / "run")
    assert found == [["commands/train:train", "training/run:train", "training/run:_step"]]


def test_a_setup_is_final(made: setup.Setup) -> None:
    for field in dataclasses.fields(made):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, field.name, None)


def test_the_networks_are_as_they_are_called_in_training(made: setup.Setup) -> None:
    student, F_teacher = made.state.student.network, made.loaded.F_teacher
    assert student.chunk == F_teacher.chunk == 2  # lean: what a step takes at a time
    assert made.memory == made.derivative.memory == "lean"  # type: ignore[attr-defined]
    assert student.prediction == "v_prediction"
    assert made.distributed.wrapped is made.state.student
    assert not any(p.requires_grad for p in F_teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())


def test_the_sums_of_the_start_are_those_of_the_student(made: setup.Setup) -> None:
    network = made.state.student.network
    sums = [float(p.detach().double().sum()) for p in network.parameters()]
    assert made.start == pytest.approx(sums, rel=1e-12)
