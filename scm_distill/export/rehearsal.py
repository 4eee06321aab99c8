"""The export of an untrained student, so that what stock diffusers will not run is known before anything is drawn.

Configurations, index and scheduler are written and read back by stock diffusers. The weights are written too where the
whole pipeline is small; else they are handed over in memory, and what is not changed is the teacher's own: neither in
memory nor on disk is there a second copy of a large network.
"""

import gc
import hashlib
import importlib.metadata
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from scm_distill import __version__, config, teachers
from scm_distill.artifacts import layout
from scm_distill.artifacts.export_record import Arguments
from scm_distill.artifacts.files import WRITING, Damaged, remove, scratch
from scm_distill.artifacts.run_records import ExportCheck
from scm_distill.autodiff.forward_ad import without_tf32
from scm_distill.errors import UserError, one_line
from scm_distill.export import self_check, stock, t_mid
from scm_distill.maths.cond import on_device
from scm_distill.memory import out_of_memory
from scm_distill.models import lora
from scm_distill.models.network import Network
from scm_distill.models.sharing import shared_copy
from scm_distill.progress import Reporter, Silent
from scm_distill.training import setup
from scm_distill.training.conditioning import Conditioning
from scm_distill.training.latents import TrainingData, files_of
from scm_distill.training.networks import LoadedTeacher
from scm_distill.training.run import Trained

WRITTEN = 2 * 10**9  # bytes of a whole pipeline, up to which its weights are written to disk
ITERATIONS = 20  # of the fit of a student's own clock, which is exact at its two sampling times after any number
PROMPT = "a photo of a cat"
PROBES = 4  # noised samples to find the layers of the time with
WIDTH = 10.0  # of the low-pass, in native steps, where adaptation is to choose it: any is exported alike
FOLDER = f"{WRITING}export-check"  # in the run folder, while it is checked
FIX = "Nothing was trained yet. If its files are complete, please report this teacher with the recipe."
NOTHING: Any = ()  # for data


@dataclass(frozen=True)
class Rehearsed:
    """What became of the untrained student's export: the difference as in `Checked.relative`, and the two-step call."""

    difference: float
    call: Arguments


def probe_data(recipe: config.Recipe, teacher: teachers.Teacher, folder: Path) -> TrainingData:
    """The conditions of one probe prompt or class, recorded in `folder`, and no samples. Raises UserError."""
    reading = teacher.reading
    if reading is None:
        return TrainingData(NOTHING, Conditioning(teacher, None, recipe.guidance), None, [])
    prompts: list[Any] = [PROMPT] if reading.stock.driver == "prompt" else [0]
    guidance = teacher.in_effect(recipe.guidance)
    guided, negative = teacher.rule is not None and guidance.scale is not None, guidance.negative_prompt
    conditions = teachers.record(reading, prompts, folder, guided=guided, negative=negative, identity="probe")
    return TrainingData(NOTHING, Conditioning(teacher, conditions, guidance), None, prompts)


def as_phase(recipe: config.Recipe, loaded: LoadedTeacher, run: Path, report: Reporter) -> None:
    """`before_training`, as a phase of its own."""
    report.begin("check the export", 1)
    before_training(recipe, loaded, run, report)
    report.advance(1)
    report.end()


def before_training(recipe: config.Recipe, loaded: LoadedTeacher, run: Path, report: Reporter) -> None:
    """Refuse, before anything is drawn, what could not be exported when it is trained; at most once for a folder `run`.

    What is written in `run` meanwhile is removed again, but for the record by which a run that was killed does not do
    it twice. Only the first process does it. Raises UserError.
    """
    place, path, key = run / FOLDER, run / layout.EXPORT_CHECK, _key(recipe, loaded)
    remove(place)  # of a process that was killed
    if not recipe.export.check_first:
        report.say("export.check_first=false: whether stock diffusers runs the student is known after training only")
        return
    if _done(path, key):
        return
    begin = time.monotonic()
    with scratch(place):
        data = probe_data(recipe, loaded.teacher, place / "conditions")
        found = rehearse(recipe, loaded, data, lambda: untrained(recipe, loaded, data), place / "export", report)
    if not found.difference <= self_check.TOLERANCE:
        raise UserError(
            f"{loaded.teacher.name} cannot be exported: stock diffusers differs from scm-distill's sampler by "
            f"{found.difference:.1e}.",
            FIX,
        )
    ExportCheck(key=key, difference=found.difference).write(path)
    report.say(
        f"export checked before training, in {time.monotonic() - begin:.1f} s: stock diffusers reads the untrained "
        f"student, and its two steps differ by {found.difference:.1e} (export.check_first=false leaves this out)"
    )


def _key(recipe: config.Recipe, loaded: LoadedTeacher) -> str:
    """A hash of all that the untrained student's export depends on."""
    sections = (recipe.teacher, recipe.guidance, recipe.objective, recipe.adapt, recipe.lora, recipe.sampler)
    settings = [section.model_dump(mode="json") for section in sections]
    versions = [importlib.metadata.version(name) for name in ("torch", "diffusers", "transformers")]
    made_with = [*settings, recipe.export.t_mid, __version__, versions, files_of(loaded.teacher.source.repo)]
    return hashlib.sha256(json.dumps(made_with, sort_keys=True, default=str).encode()).hexdigest()


def _done(path: Path, key: str) -> bool:
    """Whether the record at `path` is one of `key`."""
    try:
        return ExportCheck.read(path).key == key
    except Damaged:
        return False


def untrained(recipe: config.Recipe, loaded: LoadedTeacher, data: TrainingData) -> Network:
    """The student as a run begins with it, on the device of the teacher; its parameters are views of the teacher's.

    The low-pass of its time is WIDTH wide where the recipe leaves that to adaptation. Raises UserError.
    """
    F = shared_copy(loaded.F_teacher)  # so that the teacher itself stays without a low-pass
    device = _device(loaded)
    t = torch.linspace(F.clock.t_min, loaded.t_max, PROBES + 2, dtype=torch.float64)[1:-1]
    noise = torch.randn(PROBES, *loaded.teacher.sample_shape, generator=torch.Generator().manual_seed(0))
    cond = on_device(data.conditioning.for_evaluation(torch.zeros(PROBES, dtype=torch.long)), device)
    probe = setup.Probe((F.sigma_d * noise).to(device), F.clock.snap(t).to(device), cond)
    width = WIDTH if recipe.adapt.smooth_time == "auto" else recipe.adapt.smooth_time
    network, _ = setup.adapt(recipe, replace(loaded, F_teacher=F), probe, width, Silent(), views=True)
    return network


@without_tf32()
def rehearse(
    recipe: config.Recipe,
    loaded: LoadedTeacher,
    data: TrainingData,
    make: Callable[[], Network],
    folder: Path,
    report: Reporter,
) -> Rehearsed:
    """Export the untrained student to `folder`, which is removed again, and let stock diffusers sample it in two steps.

    `make` returns the student, on the device of the teacher; its parameters may be views of the teacher's. `data` are
    of `probe_data`. It runs on that device, or on the CPU if that device has too little memory. Raises UserError where
    the student cannot be exported; whether a difference is too large is left to the caller.
    """
    device = _device(loaded)
    try:
        return _rehearse(Trained(recipe, loaded, data, make(), 0), folder)
    except Exception as error:
        if device.type == "cpu" or not out_of_memory(error):
            raise
        report.say(f"the {device.type} device is full: the export is checked on the CPU")
    gc.collect()
    torch.cuda.empty_cache()
    _move(loaded, torch.device("cpu"))
    try:
        return _rehearse(Trained(recipe, loaded, data, make(), 0), folder)
    finally:
        _move(loaded, device)


def _device(loaded: LoadedTeacher) -> torch.device:
    """Where the teacher is."""
    return next(loaded.F_teacher.parameters()).device


def _move(loaded: LoadedTeacher, device: torch.device) -> None:
    """Move the networks of the teacher, and those of its pipeline, to a device."""
    loaded.F_teacher.to(device)
    reading = loaded.teacher.reading
    for part in stock.modules(reading.stock.pipeline).values() if reading else ():
        part.to(device)


@torch.no_grad()
def _rehearse(trained: Trained, folder: Path) -> Rehearsed:
    name = trained.loaded.teacher.name
    student = _merged(trained.student.requires_grad_(False))
    if trained.loaded.teacher.reading is None:
        student = student.cpu()  # pixel UNets are small, and exported there
    grids = t_mid.grids(trained)
    grid = grids[len(grids) // 2]
    try:
        with scratch(folder):
            made = stock.made(trained, student, grid, Silent(), iterations=ITERATIONS)
            pipeline = _through(folder, stock.shared_pipeline(trained, made), made.denoiser)
            pipeline.to(next(student.parameters()).device)
            checked = self_check.check(folder, student, grid, trained, made.call, pipeline)
    except UserError as error:
        raise UserError(f"{name} cannot be exported: {error.problem}", error.fix if error.code == 2 else FIX) from error
    except Exception as error:  # whatever a pipeline does that does not like what it is given
        if out_of_memory(error):
            raise
        reason = f"stock diffusers fails with {type(error).__name__}: {one_line(error, 240).rstrip('.')}."
        raise UserError(f"{name} cannot be exported: {reason}", FIX) from error
    return Rehearsed(checked.relative, made.call)


def _merged(student: Network) -> Network:
    """The student in float32, its adapters merged: they are zero as yet, and change no weight that is shared."""
    copied = shared_copy(student)
    lora.merge(copied.net)
    return copied.with_autocast(None)


def _through(folder: Path, pipeline: Any, denoiser: str) -> Any:
    """`pipeline` by way of `folder`: written and read back by stock diffusers."""
    if stock.size(pipeline) <= WRITTEN:
        pipeline.save_pretrained(str(folder))
        return DiffusionPipeline.from_pretrained(str(folder))
    stock.save_without_weights(pipeline, folder)
    return stock.read_back(folder, pipeline, denoiser)
