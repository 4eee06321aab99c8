"""Whole runs of a tiny teacher: resume bit for bit, and every reason to stop."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TeacherMaker
from safetensors.torch import load_file

from scm_distill import config
from scm_distill.autodiff import dual
from scm_distill.errors import UserError
from scm_distill.models.ema import gamma_of
from scm_distill.progress import Silent
from scm_distill.training import checkpoint, setup, signals
from scm_distill.training import run as training_run

Run = Callable[..., tuple[training_run.Trained, Path]]


class Listener(Silent):
    """Keeps what was said, and can act when a step is reported."""

    def __init__(self, at: Callable[[int], None] = lambda step: None) -> None:
        self.said: list[str] = []
        self.phase, self.at = "", at

    def begin(self, phase: str, total: int, done: int = 0) -> None:
        self.phase = phase

    def advance(self, done: int, figures: dict[str, float] | None = None) -> None:
        if self.phase == "distil":
            self.at(done)

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def run(tmp_path: Path, make_teacher: TeacherMaker, recipe_of: Callable[..., str], image_folder: Path) -> Run:
    teachers: dict[str, Path] = {}

    def go(
        name: str = "run",
        *overrides: str,
        resume: str | None = None,
        listener: Listener | None = None,
        data: Path | str = "builtin:digits/data.npz",
        **teacher: Any,
    ) -> tuple[training_run.Trained, Path]:
        folder = teachers.setdefault(str(teacher), make_teacher(**teacher))
        path = tmp_path / "recipe.yaml"
        path.write_text(recipe_of(folder, data))
        out = tmp_path / name
        for part in ("samples", "checkpoints"):
            (out / part).mkdir(parents=True, exist_ok=True)
        start = checkpoint.find(resume, out) if resume else None
        made = setup.build(config.read(str(path), overrides), out, start, listener or Silent())
        return training_run.Run(made).train(), out

    return go


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_metrics_previews_and_checkpoints(run: Run) -> None:
    listener = Listener()
    trained, out = run(listener=listener)
    assert trained.step == 4
    assert [line["step"] for line in lines(out) if "loss" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines(out) if "student" in line] == [0, 2, 4]
    assert sorted(p.name for p in (out / "samples").iterdir()) == [f"step-{n:06d}.png" for n in (0, 2, 4)]
    assert [step for step, _ in checkpoint.steps_in(out / "checkpoints")] == [2, 4]
    said = "\n".join(listener.said)
    for fact in ("global batch 4", "time smoothing: 20", "pre-fit to v prediction", "exact JVP", "step 4: distance"):
        assert fact in said


@pytest.mark.parametrize("name", [pytest.param("radam", marks=pytest.mark.slow), "adamw"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(run: Run, name: str) -> None:
    overrides = (f"optimizer.name={name}", "train.steps=6")
    whole, a = run("whole", *overrides)

    def stop(step: int) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(signals.Interrupted) as caught:
        run("parts", *overrides, listener=Listener(stop))
    assert caught.value.number == signal.SIGINT
    assert caught.value.saved.name in ("step-3", "step-4")  # steps are left, for which the moments count
    parts, b = run("parts", *overrides, resume="auto")
    assert [line for line in lines(a) if "loss" in line] == [line for line in lines(b) if "loss" in line]
    for mine, theirs in zip(whole.student.parameters(), parts.student.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_resuming_from_an_older_checkpoint_takes_its_steps_again(run: Run) -> None:
    _, out = run()
    before = lines(out)
    run(resume=str(out / "checkpoints" / "step-2"))
    assert [x for x in lines(out) if "loss" in x] == [x for x in before if "loss" in x]


def test_the_newest_checkpoint_of_a_copied_run_is_the_one_written_last(tmp_path: Path) -> None:
    recipe = config.read("digits")
    for step, written in ((4, 1), (2, 2)):  # resumed from an older one: step 2 is newer than step 4
        (tmp_path / "checkpoints" / f"step-{step}").mkdir(parents=True)
        (tmp_path / "checkpoints" / f"step-{step}" / "state.json").write_text(
            checkpoint.state_at(step, 1.0, (), recipe).model_copy(update={"written": written}).line()
        )
    os.utime(tmp_path / "checkpoints" / "step-2", (0, 0))
    assert checkpoint.find("auto", tmp_path) == tmp_path / "checkpoints" / "step-2"


def test_the_average_is_what_the_checkpoint_holds_and_what_is_exported(run: Run) -> None:
    trained, out = run()
    shadow = load_file(out / "checkpoints" / "step-4" / "ema.safetensors")
    for name, p in trained.student.named_parameters():
        assert torch.equal(p, shadow[f"network.{name}"])


def test_the_average_takes_in_every_step_with_its_own_number(run: Run) -> None:
    _, out = run("run", "train.steps=2", "train.checkpoint_every=1", "train.ema_std=0.2")
    (one, ema_1), (two, ema_2) = (
        [load_file(out / "checkpoints" / f"step-{step}" / f"{name}.safetensors") for name in ("student", "ema")]
        for step in (1, 2)
    )
    left = 0.5 ** (gamma_of(0.2) + 1)
    for name in (n for n in one if n.startswith("network.")):
        assert torch.equal(ema_1[name], one[name])
        assert torch.allclose(ema_2[name], left * one[name] + (1 - left) * two[name], rtol=1e-5, atol=1e-8)
    assert any(not torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("micro", [1, 2])
def test_micro_batches_give_the_losses_and_the_gradient_of_the_whole_batch(run: Run, micro: int) -> None:
    short = ("train.steps=2", "adapt.prefit_steps=1")
    _, whole = run("whole", *short)
    _, parts = run("parts", *short, f"train.micro_batch_size={micro}")
    pairs = [(a, b) for a, b in zip(lines(whole), lines(parts), strict=True) if "loss" in a]
    assert len(pairs) == 2
    for a, b in pairs:
        assert a["lr"] == b["lr"]
        for name in ("loss", "grad_norm"):
            assert a[name] == pytest.approx(b[name], rel=1e-4)
        for name in ("tangent", "derivative", "gap"):
            assert a[name] == [x if x is None else pytest.approx(x, rel=1e-3) for x in b[name]]


@pytest.mark.parametrize(
    "override",
    ["objective.velocity=data", "objective.normalization=l2", "objective.sigma_d=0.5", "train.precision=bf16",
     "objective.weighting=none", "adapt.output=keep", "objective.tangent=difference", "optimizer.decay=rsqrt",
     "data.flip=true"],
)  # fmt: skip
def test_every_choice_of_the_recipe_runs(run: Run, override: str) -> None:
    trained, out = run("run", override)
    assert trained.step == 4
    assert all(abs(line["loss"]) < 100 for line in lines(out) if "loss" in line)


def test_class_conditional_from_a_folder(run: Run, image_folder: Path) -> None:
    trained, _ = run(data=image_folder, classes=3, channels=3)
    assert trained.loaded.teacher.cond(torch.tensor([1]))["class_labels"].tolist() == [1]
    with pytest.raises(UserError, match="2 classes"):
        run("other", data=image_folder, classes=2, channels=3)


def test_v_prediction_needs_no_pre_fit(run: Run) -> None:
    listener = Listener()
    run(listener=listener, prediction="v_prediction")
    assert not any("pre-fit" in text for text in listener.said)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_weights(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = dual.one_pass

    def poisoned(*args: Any) -> Any:
        primal, tangent = original(*args)
        return primal, tangent * float("nan")

    def arm(step: int) -> None:
        if step == 2:
            monkeypatch.setattr(dual, "one_pass", poisoned)

    with pytest.raises(UserError, match="nan at step 3") as caught:
        run(listener=Listener(arm))
    assert caught.value.code == 1
    assert "step-2" in caught.value.fix


def test_parameters_that_do_not_move_stop_the_run(run: Run) -> None:
    with pytest.raises(UserError, match="not moved"):
        run("run", "optimizer.lr=1e-30", "optimizer.warmup_steps=0")


def test_a_student_worse_than_its_teacher_stops_the_run(run: Run) -> None:
    ruinous = ("optimizer.lr=10", "optimizer.grad_clip=null", "objective.warmup_steps=2", "train.evaluate_samples=16")
    with pytest.raises(UserError, match="worse than the teacher"):
        run("run", *ruinous)
    trained, _ = run("anyway", *ruinous, "train.stop_if_worse=false")
    assert trained.step == 4


def test_resuming_a_run_that_failed_its_last_evaluation_fails_again(run: Run) -> None:
    ruinous = ("optimizer.lr=10", "optimizer.grad_clip=null", "objective.warmup_steps=4", "train.evaluate_samples=16")
    for resume in (None, "auto"):
        with pytest.raises(UserError, match="worse than the teacher"):
            run("run", *ruinous, resume=resume)


def test_a_checkpoint_is_not_read_as_another_kind_of_student(run: Run) -> None:
    run()
    with pytest.raises(UserError, match=r"made with adapt\.output=v_prediction, the recipe says keep"):
        run("run", "adapt.output=keep", resume="auto")


def test_the_newest_checkpoint_is_the_one_written_last(run: Run) -> None:
    """Resumed from an older one, a run leaves later steps behind, which are no longer its newest."""

    def stop(step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    out = run()[1]
    with pytest.raises(signals.Interrupted) as caught:
        run("run", "train.checkpoint_every=100", resume=str(out / "checkpoints/step-2"), listener=Listener(stop))
    saved = caught.value.saved
    assert saved.exists()
    assert checkpoint.find("auto", out) == saved
    assert saved.name in ("step-3", "step-4")


def test_tangents_that_disagree_stop_before_the_first_step(run: Run) -> None:
    with pytest.raises(UserError, match="too rough"):
        run("run", "adapt.smooth_time=0", "objective.difference_step=0.5")
    with pytest.raises(UserError, match="difference needs"):
        run("other", "objective.tangent=difference", "train.precision=bf16")


def test_a_damaged_checkpoint_is_named(run: Run) -> None:
    _, out = run()
    (out / "checkpoints" / "step-4" / "student.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"step-4 cannot be loaded"):
        run(resume="auto")
    (out / "checkpoints" / "step-4" / "state.json").write_text("{")
    with pytest.raises(UserError, match=r"step-4 is damaged"):
        run(resume="auto")


def test_a_half_written_checkpoint_is_never_taken_for_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    def arm(step: int) -> None:
        if step == 3:
            monkeypatch.setattr(checkpoint, "save_tensors", fail)

    with pytest.raises(OSError, match="disk full"):
        run(listener=Listener(arm))
    monkeypatch.undo()
    trained, folder = run(resume="auto")
    assert trained.step == 4
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["step-2", "step-4"]


def test_where_resume_looks(tmp_path: Path) -> None:
    assert checkpoint.find("auto", tmp_path) is None
    with pytest.raises(UserError, match="no checkpoint"):
        checkpoint.find(str(tmp_path / "nowhere"), tmp_path)
