"""`eval`: open student, teacher, extractor and reference; measure; write eval.json, and renew card and report."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import diffusers
import torch
from accelerate import Accelerator
from torch import Tensor

from scm_distill import __version__, config, ranks
from scm_distill import report as report_page
from scm_distill.artifacts import layout
from scm_distill.artifacts.evaluation_record import EvaluationRecord, ExtractorIdentity
from scm_distill.artifacts.export_record import TeacherCall
from scm_distill.artifacts.layout import recipe_of
from scm_distill.artifacts.private import hidden, named, public
from scm_distill.commands import short_of_memory
from scm_distill.commands.arguments import AnyPath, class_text, refuse_below
from scm_distill.commands.quiet import quiet
from scm_distill.commands.results import EvaluationResult
from scm_distill.errors import UserError
from scm_distill.evaluation import metrics, side_by_side
from scm_distill.evaluation.extractors import open_extractor
from scm_distill.evaluation.features import Extractor
from scm_distill.evaluation.pretrained import ClipScore, open_clip_score
from scm_distill.evaluation.shared_work import SharedWork
from scm_distill.evaluation.side_by_side import FEWEST
from scm_distill.progress import Reporter, Silent
from scm_distill.publish import card
from scm_distill.sampling import open
from scm_distill.sampling.open import OWN_TEACHER, name_of, teacher_of
from scm_distill.sampling.request import SampleRequest, device_of, dtype_of
from scm_distill.sampling.sampler import Sampler
from scm_distill.training import distributed

DIGITS = "builtin:digits"
USUAL, USUAL_DIGITS = 2048, 6144  # samples of each; the digits cost a few ms each, and their distances are small


@dataclass(frozen=True)
class EvaluationRequest:
    """The arguments of `evaluate`, in plain types."""

    model: str
    teacher: str
    data: str | None
    steps: tuple[int, ...]  # of the student; ascending
    n: int | None
    seed: int
    extractor: str | None
    clip: str | None
    prompts: str | None  # a file
    classes: str | None
    batch: int | None
    device: str | None
    dtype: str


@quiet()
@short_of_memory.told("Out of memory", "Lower --batch, try --dtype bf16, or another --device.")
def evaluate(
    model: AnyPath,
    *,
    teacher: AnyPath | None = None,
    data: AnyPath | None = None,
    steps: Sequence[int] = (1, 2, 4),
    n: int | None = None,
    seed: int = 0,
    extractor: str | None = None,
    clip: str | None = None,
    prompts: AnyPath | None = None,
    classes: str | Sequence[int] | None = None,
    batch: int | None = None,
    device: str | None = None,
    dtype: str = "fp32",
    out: AnyPath | None = None,
    report: Reporter | None = None,
) -> EvaluationResult | None:
    """Compare a student with its teacher: quality, NFE and time, side by side, from the same seeds.

    `model` is a run folder, an exported pipeline folder or a Hub id; `teacher` and `data` default to the run's, and
    `data` may be "teacher": its own samples. The student takes each number of `steps`, the teacher its default and
    those but 1. `n` samples of each are drawn (default 2048; 6144 of the digits), sample i from `seed` + i, for the
    prompts of the file `prompts` (default: the run's) or for `classes` (default: all) in turn. Distances are taken on
    the features of `extractor`: blocks, digits, inception[:PATH] or a transformers model; `clip` is a CLIP model.

    The figures go to the file `out`, by default eval.json in an export on this machine, whose card and report are then
    renewed. One process, or one of those that torchrun starts; all but the main one return None. Raises UserError.
    """
    refuse_below(FEWEST, n=n)
    refuse_below(1, batch=batch, steps=min(steps, default=0))
    refuse_below(0, seed=seed)
    report = report or Silent()
    request = EvaluationRequest(
        model=str(model),
        teacher=str(teacher or OWN_TEACHER),
        data=None if data is None else str(data),
        steps=tuple(sorted(set(steps))),
        n=n,
        seed=seed,
        extractor=extractor,
        clip=clip,
        prompts=None if prompts is None else str(prompts),
        classes=class_text(classes),
        batch=batch,
        device=device,
        dtype=dtype,
    )
    folder = Path(layout.pipeline_of(request.model))
    usual = folder / layout.EVALUATION if folder.is_dir() else None
    file = usual if out is None else Path(out)
    _refuse_unwritable(file)
    with ranks.run():
        record = _measured(request, report)
    if record is None:
        return None
    if file is not None:
        record.write(file)
        report.say(f"written: {file}")
    if file == folder / layout.EVALUATION:
        _renew(folder, report)
    return EvaluationResult(record, file)


def _measured(request: EvaluationRequest, report: Reporter) -> EvaluationRecord | None:
    """All that is measured; None in a process that is not the main one. Raises UserError."""
    recipe = recipe_of(request.model)
    accelerator = distributed.processes(cpu=request.device == "cpu" or not torch.cuda.is_available())
    device = _device(request, accelerator)
    options: open.SamplerOptions = {
        "dtype": dtype_of(request.dtype), "device": device, "batch": request.batch, "report": report,
    }  # fmt: skip
    student = open.open_student(request.model, **options)
    teacher, name = teacher_of(request.teacher, request.model, student, options)
    data = request.data or (recipe.data.source if recipe else OWN_TEACHER)
    seeds, conditions = _samples(request, recipe, student, data).samples(student.facts, request.model)
    extractor, score = _instruments(request, student, data, device)
    notes: list[str] = []
    contenders = side_by_side.contenders(student, teacher, _possible(student, request.steps, notes))
    for sampler in (student, teacher):
        sampler.ready(conditions)
    student.size = teacher.size = min(student.size, teacher.size)  # a fair race
    work = SharedWork(accelerator, seeds, conditions, report)
    own = data == OWN_TEACHER
    reference = work.of_teacher(teacher, extractor, notes) if own else work.of_data(data, student, extractor, notes)
    measurements = work.measure(contenders, extractor, score)
    if not accelerator.is_main_process:
        return None
    measurements, left_out = side_by_side.unflagged(contenders, measurements)
    n = len(measurements[0].features)
    notes += [*left_out, *_doubts(reference, student, teacher, n=n)]
    on = device if device.type == "cuda" else None  # others have no float64, or are the CPU
    table = side_by_side.rows(contenders, measurements, reference, report, seed=request.seed, device=on)
    return EvaluationRecord(
        date=time.strftime("%Y-%m-%d"),
        teacher=public(name),
        data=f"the teacher's own samples, {teacher.facts.default_steps} steps" if own else named(data),
        n=n,
        flagged=len(seeds) - n,
        reference=len(reference),
        seed=request.seed,
        device=name_of(device),
        processes=accelerator.num_processes,
        threads=torch.get_num_threads(),
        dtype=request.dtype,
        versions={"scm-distill": __version__, "torch": torch.__version__, "diffusers": diffusers.__version__},
        extractor=ExtractorIdentity.model_validate(extractor.identity),
        clip=ExtractorIdentity.model_validate(score.identity) if score else None,
        rows=tuple(sorted(table, key=lambda row: (row.who, row.steps))),
        ratios=side_by_side.ratios(contenders, measurements, table),
        guidance=TeacherCall.model_validate(teacher.guidance),
        notes=tuple(map(hidden, notes)),
    )


def _device(request: EvaluationRequest, accelerator: Accelerator) -> torch.device:
    """Where this process draws and measures. Raises UserError."""
    device = device_of(request.device)
    if accelerator.num_processes == 1:
        return device
    if request.device not in (None, "cpu", "cuda"):
        raise UserError(
            f"Several processes cannot share {request.device}.", "Give --device cuda, a GPU for each, or cpu."
        )
    shared: torch.device = accelerator.device
    return shared


def _instruments(
    request: EvaluationRequest, student: Sampler, data: str, device: torch.device
) -> tuple[Extractor, ClipScore | None]:
    """What samples are measured by. Raises UserError."""
    facts = student.facts
    usual = "digits" if data.startswith(DIGITS) else "blocks"
    extractor = open_extractor(request.extractor or usual, device, facts.modality, rate=facts.rate)
    if request.clip and (facts.driver != "prompt" or facts.modality == "audio"):
        raise UserError(
            "A CLIP score is of pictures and their prompts, which this student has not.", "Leave --clip away."
        )
    return extractor, open_clip_score(request.clip, device) if request.clip else None


def _doubts(reference: Tensor, student: Sampler, teacher: Sampler, *, n: int) -> list[str]:
    """What a reader of the figures should know: too few samples for the features (M, D), samplers without batches."""
    fewest, notes = metrics.min_samples(reference.shape[1]), []
    if min(n, len(reference)) < fewest:
        notes.append(
            f"{reference.shape[1]} features want {fewest} samples or more: with fewer, FD mostly measures how many"
        )
    return notes + [
        f"{who}, one by one: {sampler.reason}"
        for who, sampler in (("teacher", teacher), ("student", student))
        if sampler.reason
    ]


def _renew(folder: Path, report: Reporter) -> None:
    """Put the figures into the export's card, and into the run's report where it lies in a run."""
    try:
        card.write(folder)
        run = layout.run_of(folder)
        if run and (run / "metrics.jsonl").is_file():
            report.say(f"report: {report_page.write(run, report=report)}")
    except UserError as error:  # an export of an older version; its figures are measured all the same
        report.say(f"the card is as it was: {error.problem}")


def _samples(request: EvaluationRequest, recipe: config.Recipe | None, student: Sampler, data: str) -> SampleRequest:
    """How many samples, and their conditions in turn: those that were given, else the run's own. Raises UserError."""
    n = request.n or (USUAL_DIGITS if data.startswith(DIGITS) else USUAL)
    file = request.prompts
    if student.facts.driver == "prompt" and file is None:
        file = recipe.data.prompts if recipe else None
        if file is None:
            raise UserError(f"{request.model} wants prompts.", "Give --prompts FILE, a prompt a line.")
    classes = request.classes
    if student.facts.driver == "labels" and classes is None:
        classes = f"0-{(student.facts.classes or 1) - 1}"
    seeded = file is not None and file.endswith(".jsonl") and request.n is None  # as many as there are records
    return SampleRequest([], file, classes, None if seeded else n, request.seed)


def _possible(student: Sampler, steps: Sequence[int], notes: list[str]) -> list[int]:
    """The numbers of steps that the student can take. Raises UserError when there are none."""
    able = []
    for k in steps:
        try:
            student.check(k)
            able.append(k)
        except UserError as error:
            notes.append(f"no {k} steps: {error.problem}")
            last = error
    if not able:
        raise last
    return able


def _refuse_unwritable(out: Path | None) -> None:
    """Raise UserError where the file `out` could not be written, before the work is done."""
    if out is None:
        return
    if out.is_dir() or not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise UserError(f"{out} cannot be written.", "Choose another file with -o.")
