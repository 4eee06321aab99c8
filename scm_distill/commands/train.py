"""`train`: claim the run folder, train, export, push; nothing is left behind when a run could not start."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from scm_distill import config, ranks, teachers
from scm_distill import report as report_page
from scm_distill.artifacts import files, layout
from scm_distill.artifacts.claim import claimed
from scm_distill.artifacts.files import Damaged
from scm_distill.commands import push, short_of_memory
from scm_distill.commands.arguments import AnyPath, AnyRecipe, Overrides, read_recipe, run_folder
from scm_distill.commands.quiet import quiet
from scm_distill.commands.results import Distance, MidTime, TrainPlan, TrainResult
from scm_distill.errors import UserError
from scm_distill.export import bundle, rehearsal
from scm_distill.maths.cond import unguided
from scm_distill.memory import out_of_memory
from scm_distill.progress import Reporter, Silent
from scm_distill.training import batches, checkpoint, environment, latents, networks, run, setup, signals
from scm_distill.training.memory.plan import ROOM, Planner, available
from scm_distill.training.source import check_paths, open_source
from scm_distill.training.student import new_student

TOO_LARGE = "Use a smaller teacher.call, or a machine that holds the whole teacher in float32."


class _Checked(Exception):
    """Undoes a claim that was made for its errors only."""


def check(recipe: config.Recipe, folder: Path, resume: str | None, *, world: int) -> None:
    """Refuse what can be refused before `world` processes start; nothing is written. Raises UserError."""
    _check_devices(recipe, world)
    check_paths(recipe)
    networks.check_packages(recipe)
    _refuse_other_run(folder, resume)
    if resume:
        checkpoint.find(resume, folder)
    push.preflight(recipe)
    with contextlib.suppress(_Checked), claimed(folder, parts=(layout.PREVIEWS, layout.CHECKPOINTS)):
        raise _Checked


@quiet()
@short_of_memory.told("Out of memory", TOO_LARGE)
def plan_train(
    recipe: AnyRecipe, *, overrides: Overrides = (), processes: int = 1, report: Reporter | None = None
) -> TrainPlan:
    """What `train` would do in so many processes, from the real teacher and data; nothing is written.

    `recipe` and `overrides` are as in `read_recipe`. The teacher is read on the device of the run; where that is too
    small, on the CPU, which `report` hears. Raises UserError where recipe, teacher, data or the planned push would keep
    `train` from its first step.
    """
    recipe, report = read_recipe(recipe, overrides), report or Silent()
    _check_devices(recipe, processes)
    check_paths(recipe)
    cuda = torch.cuda.is_available() and recipe.train.device != "cpu"
    device = torch.device("cuda" if cuda else "cpu")
    report.begin("dry run", 4)
    loaded, planner = _read(recipe, processes, device, report)
    report.advance(1)
    source = open_source(recipe, loaded.teacher)
    report.advance(2)
    with tempfile.TemporaryDirectory(prefix="scm-distill-") as temporary:
        rehearsal.before_training(recipe, loaded, Path(temporary), report)
    report.advance(3)
    teacher, reading, free = loaded.teacher, loaded.teacher.reading, available(device)
    memory = planner.fit(recipe, free)
    needed = planner.estimate(recipe, memory)
    short = needed.total > ROOM * free
    report.advance(4)
    report.end()
    return TrainPlan(
        repo=recipe.teacher.repo,
        denoiser=type(teacher.net).__name__,
        prediction=teacher.prediction,
        parameters=sum(p.numel() for p in teacher.net.parameters()),
        sample_shape=tuple(teacher.sample_shape),
        t_min=loaded.F_teacher.clock.t_min,
        t_max=loaded.t_max,
        samples=len(source),
        classes=teacher.classes,
        conditions=len(source.prompts) if reading else None,
        driver=reading.stock.driver if reading else None,
        guidance=_guidance(recipe, teacher),
        verified=loaded.verified,
        doubts=loaded.doubts,
        memory=f"{needed}, {memory} layout",
        memory_needed=needed.total,
        memory_free=free,
        device=device.type,
        memory_short=short,
        memory_advice=tuple(planner.advice(recipe, memory)[:3]) if short else (),
        push=tuple(push.preflight(recipe)),
        processes=processes,
        steps=recipe.train.steps,
        epochs=round(recipe.train.steps * recipe.train.batch_size / len(source), 1),
    )


def _guidance(recipe: config.Recipe, teacher: teachers.Teacher) -> str | None:
    """The rule by which the teacher guides the student, or why it does not; None for a pixel UNet."""
    if teacher.reading is None:
        return None
    if teacher.in_effect(recipe.guidance) != recipe.guidance:
        return f"off at scale {recipe.guidance.scale:g}"
    return str(teacher.rule or teacher.reading.no_guidance)


def _read(
    recipe: config.Recipe, world: int, device: torch.device, report: Reporter
) -> tuple[networks.LoadedTeacher, Planner]:
    """The teacher on `device`, or on the CPU where that has too little memory, and the planner of a run on `device`."""
    micro = batches.micro_batch(recipe, world)
    try:
        loaded = networks.load_teacher(recipe, device, micro, report=report)
        return loaded, _planner(recipe, loaded, world, device)
    except Exception as error:
        if device.type == "cpu" or not out_of_memory(error):
            raise
        report.say(f"this {device.type} device does not hold the teacher in float32: it is read on the CPU instead")
    torch.cuda.empty_cache()
    loaded = networks.load_teacher(recipe, torch.device("cpu"), micro, report=report)
    return loaded, _planner(recipe, loaded, world, device)


def _planner(recipe: config.Recipe, loaded: networks.LoadedTeacher, world: int, device: torch.device) -> Planner:
    """Of the student that this run would begin with, on the conditions of the stock call that was watched."""
    teacher, F = loaded.teacher, loaded.F_teacher
    home = next(F.parameters()).device
    cond = teacher.cond(torch.zeros(1, dtype=torch.long))
    if teacher.reading is not None:
        guided = recipe.guidance.scale is not None or teacher.rule is None
        cond = teacher.reading.reference_steps[0].cond
        cond = cond if guided else unguided(cond)
    x, t = torch.randn(2, *teacher.sample_shape, device=home), torch.full((2,), 0.8, dtype=torch.float64, device=home)
    cond = {name: value.to(home).expand(2, *value.shape[1:]) for name, value in cond.items()}
    student = new_student(loaded, recipe, x, t, cond, Silent())
    return Planner(student, F, x, t, cond, device, world)


@quiet()
def train(
    recipe: AnyRecipe,
    *,
    overrides: Overrides = (),
    out: AnyPath | None = None,
    resume: AnyPath | None = None,
    report: Reporter | None = None,
) -> TrainResult | None:
    """Distil the recipe's teacher into a two-step student, and export it; push it where the recipe says so.

    `recipe` and `overrides` are as in `read_recipe`. The run folder `out` defaults to runs/NAME of a recipe with a
    name, and goes again if nothing came of it. `resume` is a checkpoint, or "auto" for the newest one of the run.

    One process, or one of those that torchrun starts; all but the main one return None. In the main thread SIGINT and
    SIGTERM save a checkpoint first. Raises UserError for what a user can mend, and Interrupted after a signal.
    """
    folder, recipe = run_folder(recipe, out), read_recipe(recipe, overrides)
    resume, main = str(resume) if resume is not None else None, int(os.environ.get("RANK", "0")) == 0
    report = report if report and main else Silent()  # the main process claims, writes and reports
    owned = _claimed(recipe, folder, resume, report) if main else contextlib.nullcontext()
    with _threads(recipe.train.threads), owned:
        with ranks.run(), _explained(report), short_of_memory.told("Out of memory before training", TOO_LARGE):
            newest = checkpoint.find(resume, folder) if resume else None
            made = setup.build(
                recipe, folder, newest, report, lambda loaded: rehearsal.as_phase(recipe, loaded, folder, report)
            )
            with ranks.together("noting the run"):
                if main:
                    _note(recipe, folder, report)
                    world, doubts = made.accelerator.num_processes, made.loaded.doubts
                    environment.note(folder, made.step, world, made.device, report, doubts)
            try:
                trained = run.Run(made).train()
            except BaseException:  # an interrupted or failed run has figures too
                if main:
                    _write_report(folder, report)
                raise
        if not main:
            return None
        again = "The student is trained and saved: with more free memory, type the same command with --resume auto."
        try:
            with short_of_memory.told("Out of memory in the export", again):
                exported = bundle.write(trained, folder / layout.EXPORT, report)
        except KeyboardInterrupt:
            report.say("the student is trained and saved; to export it, type the same command with --resume auto")
            raise
        finally:
            _write_report(folder, report)
    return _result(folder, trained, exported, push.publish(recipe, folder, report))


@contextlib.contextmanager
def _threads(wanted: int | None) -> Iterator[None]:
    """So many threads of torch; None leaves them."""
    before = torch.get_num_threads()
    torch.set_num_threads(wanted or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _claimed(recipe: config.Recipe, folder: Path, resume: str | None, report: Reporter) -> Iterator[None]:
    """The run folder is ours; what is new in it goes again on an error, unless there are checkpoints or latents.

    Raises UserError where the folder holds another run, or cannot be written, or the planned push cannot be made.
    """
    _refuse_other_run(folder, resume)
    for said in push.preflight(recipe):
        report.say(f"push: {said}")
    with signals.raised(), claimed(folder, parts=(layout.PREVIEWS, layout.CHECKPOINTS)) as keep:
        try:
            yield
        except KeyboardInterrupt:  # what was recorded so far is good
            keep += [True] * (folder / latents.CONDITIONS).exists()
            raise
        finally:
            keep += [True] * len(checkpoint.steps_in(folder / layout.CHECKPOINTS))
            keep += [True] * (folder / latents.FILE).exists()


@contextlib.contextmanager
def _explained(report: Reporter) -> Iterator[None]:
    """Of a signal it is said what was saved."""
    try:
        yield
    except signals.Interrupted as stop:
        if stop.saved:
            report.say(f"{stop}: saved {stop.saved}; to continue, type the same command with --resume auto")
        raise


def _result(folder: Path, trained: run.Trained, exported: bundle.Exported, url: str | None) -> TrainResult:
    """What is told of a run that came to its end."""
    reading = trained.loaded.teacher.reading
    return TrainResult(
        run=folder,
        export=exported.folder,
        steps=trained.step,
        t_max=exported.t_max,
        t_mid=exported.t_mid,
        table=tuple(Distance(r.sampler, r.nfe, r.distance) for r in exported.table),
        t_mid_search=tuple(MidTime(found.t_mid, found.distance) for found in exported.search),
        stock_difference=exported.difference,
        call=exported.call,
        driver=reading.stock.driver if reading else "none",
        url=url,
    )


def _check_devices(recipe: config.Recipe, world: int) -> None:
    batches.micro_batch(recipe, world)
    devices = torch.cuda.device_count()  # of this machine; a launcher's processes may be on several
    if recipe.train.device != "cpu" and 0 < devices < world and "WORLD_SIZE" not in os.environ:
        raise UserError(
            f"{world} processes need a GPU each, this machine shows {devices}.",
            f"Give --num-processes {devices}, or set train.device=cpu.",
        )


def _refuse_other_run(folder: Path, resume: str | None) -> None:
    if (folder / layout.RECIPE).exists() and resume is None:
        raise UserError(
            f"{folder} holds a run already.", "Continue it with --resume auto, or choose another folder with -o."
        )


def _note(recipe: config.Recipe, folder: Path, report: Reporter) -> None:
    """Write config.yaml; say which settings differ from the run's earlier ones. Raises UserError for a folder there."""
    path = folder / layout.RECIPE
    if path.is_dir():
        raise Damaged(path, "is a folder, not a file", "Move it away.")
    if path.exists():
        try:
            if changed := config.differences(config.read(str(path)), recipe):
                report.say("settings changed since this run began: " + ", ".join(changed))
        except UserError as error:
            report.say(f"{error.problem} It is written anew.")
    files.write_text(path, config.dump(recipe))


def _write_report(folder: Path, report: Reporter) -> None:
    """Write report.html; that it could not be written is said, and does not end the run."""
    try:
        report.say(f"report: {report_page.write(folder, report=report)}")
    except Exception as error:
        if "SCM_DISTILL_DEBUG" in os.environ:
            raise
        report.say(f"the report could not be written: {error}; try scm-distill report {folder}")
