"""What `train` calls: claim the folder, run, export; nothing is left behind when a run could not start."""

import contextlib
import os
from pathlib import Path
from typing import Any

import torch

from scm_distill import config
from scm_distill import report as report_page
from scm_distill.artifacts import files
from scm_distill.artifacts.claim import claimed
from scm_distill.commands import push
from scm_distill.errors import UserError, one_line
from scm_distill.export import bundle
from scm_distill.progress import Reporter, Silent
from scm_distill.training import batches, checkpoint, environment, latents, networks, run, setup, signals
from scm_distill.training.memory.plan import ROOM, Planner, available, gib
from scm_distill.training.source import check_paths, open_source
from scm_distill.training.student import new_student


class _Checked(Exception):
    """Undoes a claim that was made for its errors only."""


def check(recipe: config.Recipe, folder: Path, resume: str | None, *, world: int) -> None:
    """Refuse what can be refused before `world` processes start; nothing is written. Raises UserError."""
    _share(recipe, world)
    check_paths(recipe)
    networks.check_packages(recipe)
    _free(folder, resume)
    if resume:
        checkpoint.find(resume, folder)
    push.preflight(recipe)
    with contextlib.suppress(_Checked), claimed(folder, parts=("samples", "checkpoints")):
        raise _Checked


def plan(recipe: config.Recipe, *, world: int = 1) -> dict[str, Any]:
    """What a run would do, from the real teacher and data; nothing is written."""
    _share(recipe, world)
    check_paths(recipe)
    loaded = networks.load_teacher(recipe)
    source = open_source(recipe, loaded.teacher)
    clock, teacher = loaded.F_teacher.clock, loaded.teacher
    facts: dict[str, Any] = {
        "teacher": f"{recipe.teacher.repo}, {type(teacher.net).__name__}, {teacher.prediction}",
        "parameters": sum(p.numel() for p in teacher.net.parameters()),
        "sample": " x ".join(map(str, teacher.sample_shape)),
        "times": f"{clock.t_min:.4f} to {loaded.t_max:.4f} (t_max)",
        "samples": len(source),
        "classes": teacher.classes or "unconditional",
    }
    if teacher.reading is not None:
        facts["conditions"] = f"{len(source.prompts)}, by {teacher.reading.stock.driver}"
        facts["guidance"] = str(teacher.rule or teacher.reading.no_guidance)
        facts["verified"] = ", ".join(f"{name} {error:.0e}" for name, error in loaded.verified.items())
    cuda = torch.cuda.is_available() and recipe.train.device != "cpu"
    device = torch.device("cuda" if cuda else "cpu")
    planner, free = _planner(recipe, loaded, world, device), available(device)
    memory = planner.fit(recipe, free)
    needed = planner.estimate(recipe, memory)
    facts["memory a process"] = f"{needed}, {memory} layout"
    facts["memory free"] = f"{gib(free)} on this machine's {device.type}"
    if needed.total > ROOM * free:
        advice = planner.advice(recipe, memory)[:3]
        facts["memory is short"] = ", ".join(f"{change} saves {gib(n)}" for change, n in advice) or "no setting helps"
    if found := push.preflight(recipe):
        facts["push"] = "; ".join(found)
    return {
        **facts,
        "processes": world,
        "steps": recipe.train.steps,
        "epochs": round(recipe.train.steps * recipe.train.batch_size / len(source), 1),
    }


def _planner(recipe: config.Recipe, loaded: networks.LoadedTeacher, world: int, device: torch.device) -> Planner:
    """Of the student that this run would begin with, on the conditions of the stock call that was watched."""
    teacher, F = loaded.teacher, loaded.F_teacher
    home = next(F.parameters()).device
    cond = teacher.cond(torch.zeros(1, dtype=torch.long))
    if teacher.reading is not None:
        guided = recipe.guidance.scale is not None or teacher.rule is None
        given = teacher.reading.reference_steps[0].cond
        cond = {name: x for name, x in given.items() if guided or not (name == "w" or name.startswith("u/"))}
    x, t = torch.randn(2, *teacher.sample_shape, device=home), torch.full((2,), 0.8, dtype=torch.float64, device=home)
    cond = {name: value.to(home).expand(2, *value.shape[1:]) for name, value in cond.items()}
    student = new_student(loaded, recipe, x, t, cond, Silent())
    return Planner(student, F, x, t, cond, device, world)


def train(recipe: config.Recipe, folder: Path, resume: str | None, report: Reporter) -> dict[str, Any] | None:
    """Train and export in `folder`; the summary, or None in a worker process. Raises UserError."""
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    if int(os.environ.get("RANK", "0")) > 0:  # the main process claims, writes and reports
        _trained(recipe, folder, resume, Silent())
        return None
    _free(folder, resume)
    for said in push.preflight(recipe):
        report.say(f"push: {said}")
    with signals.as_exit(), claimed(folder, parts=("samples", "checkpoints")) as keep:
        try:
            trained = _trained(recipe, folder, resume, report)
        except (KeyboardInterrupt, SystemExit):  # what was recorded so far is good
            keep += [True] * (folder / latents.CONDITIONS).exists()
            raise
        finally:
            keep += [True] * len(checkpoint.steps_in(folder / "checkpoints"))
            keep += [True] * (folder / latents.FILE).exists()
        try:
            exported = bundle.write(trained, folder / "export", report)
        except KeyboardInterrupt:
            report.say("the student is trained and saved; to export it, type the same command with --resume auto")
            raise
        finally:
            _page(folder, report)
    url = push.publish(recipe, folder, report)
    return {
        **({"url": url} if url else {}),
        "run": str(folder),
        "export": str(exported.folder),
        "steps": trained.step,
        "t_max": exported.t_max,
        "t_mid": exported.t_mid,
        "table": exported.table,
        "t_mid_search": exported.search,
        "stock_difference": exported.difference,
        "call": exported.call,
        "driver": trained.loaded.teacher.reading.stock.driver if trained.loaded.teacher.reading else "none",
    }


def _share(recipe: config.Recipe, world: int) -> None:
    batches.micro_batch(recipe, world)
    devices = torch.cuda.device_count()  # of this machine; a launcher's processes may be on several
    if recipe.train.device != "cpu" and 0 < devices < world and "WORLD_SIZE" not in os.environ:
        raise UserError(
            f"{world} processes need a GPU each, this machine shows {devices}.",
            f"Give --num-processes {devices}, or set train.device=cpu.",
        )


def _free(folder: Path, resume: str | None) -> None:
    if (folder / "config.yaml").exists() and resume is None:
        raise UserError(
            f"{folder} holds a run already.", "Continue it with --resume auto, or choose another folder with -o."
        )


def _trained(recipe: config.Recipe, folder: Path, resume: str | None, report: Reporter) -> run.Trained:
    try:
        start = checkpoint.find(resume, folder) if resume else None
        made = setup.build(recipe, folder, start, report)
        if made.accelerator.is_main_process:
            _note(recipe, folder, report)
            environment.note(folder, made.step, made.accelerator.num_processes, made.device, report)
        try:
            return run.Run(made).train()
        except BaseException:  # an interrupted or failed run has figures too
            if made.accelerator.is_main_process:
                _page(folder, report)
            raise
    except torch.OutOfMemoryError as error:  # of what comes before the student
        raise UserError(
            f"Out of memory before training: {one_line(error)}",
            "Use a smaller teacher.call, or a GPU that holds the whole teacher in float32.",
            code=1,
        ) from error
    except signals.Interrupted as stop:
        report.say(f"{stop}: saved {stop.saved}; to continue, type the same command with --resume auto")
        raise SystemExit(128 + stop.number) from None


def _note(recipe: config.Recipe, folder: Path, report: Reporter) -> None:
    """Write config.yaml; say which settings differ from the run's earlier ones."""
    path = folder / "config.yaml"
    if path.exists() and (changed := config.differences(config.read(str(path)), recipe)):
        report.say("settings changed since this run began: " + ", ".join(changed))
    files.write_text(path, config.dump(recipe))


def _page(folder: Path, report: Reporter) -> None:
    """Write report.html; that it could not be written is said, and does not end the run."""
    try:
        report.say(f"report: {report_page.write(folder, report=report)}")
    except Exception as error:
        if "SCM_DISTILL_DEBUG" in os.environ:
            raise
        report.say(f"the report could not be written: {error}; try scm-distill report {folder}")
