"""What `eval` calls: open student, teacher, extractor and reference; measure; write eval.json, card and report."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from accelerate import Accelerator
from torch import Tensor

from scm_distill import __version__, config
from scm_distill import report as report_page
from scm_distill.artifacts import layout
from scm_distill.artifacts.evaluation_record import EvaluationRecord, ExtractorIdentity
from scm_distill.artifacts.export_record import TeacherCall
from scm_distill.artifacts.layout import recipe_of
from scm_distill.artifacts.private import hidden, named, public
from scm_distill.commands.quiet import quiet
from scm_distill.errors import UserError
from scm_distill.evaluation import metrics, side_by_side
from scm_distill.evaluation.cache import gathered, reference_features, share
from scm_distill.evaluation.extractors import open_extractor
from scm_distill.evaluation.features import Extractor
from scm_distill.evaluation.inputs import as_tensor
from scm_distill.evaluation.pretrained import open_clip_score
from scm_distill.evaluation.reference import open_reference
from scm_distill.evaluation.side_by_side import Contender, Measurement, Score
from scm_distill.progress import Reporter
from scm_distill.publish import card
from scm_distill.sampling import open
from scm_distill.sampling.open import OWN_TEACHER, name_of, teacher_of
from scm_distill.sampling.request import SampleRequest, device_of, dtype_of
from scm_distill.sampling.sampler import Sampler
from scm_distill.training import distributed

DIGITS = "builtin:digits"
USUAL, USUAL_DIGITS = 2048, 6144  # samples of each; the digits cost a few ms each, and their distances are small
FEWEST_REAL = 8
MOST_REAL = 50_000  # real samples of the reference, at most: as FID is reported
APART = 10**6  # from the seeds of the samples to those of the teacher's, where its own samples are the reference


@dataclass(frozen=True)
class EvaluationRequest:
    """As it was typed."""

    model: str
    teacher: str | None
    data: str | None
    steps: tuple[int, ...]
    n: int | None
    seed: int
    extractor: str | None
    clip: str | None
    prompts: Path | None
    classes: str | None
    batch: int | None
    device: str | None
    dtype: str
    out: Path | None


@quiet()
def evaluate(asked: EvaluationRequest, report: Reporter) -> dict[str, Any] | None:
    """The result, written to eval.json too; None in a worker process. Raises UserError."""
    folder, recipe = Path(layout.pipeline_of(asked.model)), recipe_of(asked.model)
    out = asked.out or (folder / layout.EVALUATION if folder.is_dir() else None)
    _refuse_unwritable(out)
    accelerator = distributed.processes(cpu=asked.device == "cpu" or not torch.cuda.is_available())
    device = device_of(asked.device)
    if accelerator.num_processes > 1:
        if asked.device not in (None, "cpu", "cuda"):
            raise UserError(
                f"Several processes cannot share {asked.device}.", "Give --device cuda, a GPU for each, or cpu."
            )
        device = accelerator.device
    options: open.SamplerOptions = {
        "dtype": dtype_of(asked.dtype),
        "device": device,
        "batch": asked.batch,
        "report": report,
    }
    student = open.open_student(asked.model, **options)
    teacher, name = teacher_of(asked.teacher or OWN_TEACHER, asked.model, student, options)
    data = asked.data or (recipe.data.source if recipe else OWN_TEACHER)
    digits = data.startswith(DIGITS)
    n = asked.n or (USUAL_DIGITS if digits else USUAL)
    seeds, conditions = _wanted(asked, recipe, student, n).samples(student.facts, asked.model)
    n = len(seeds)
    extractor = open_extractor(
        asked.extractor or ("digits" if digits else "blocks"), device, student.facts.modality, rate=student.facts.rate
    )
    if asked.clip and (student.facts.driver != "prompt" or student.facts.modality == "audio"):
        raise UserError(
            "A CLIP score is of pictures and their prompts, which this student has not.", "Leave --clip away."
        )
    score = open_clip_score(asked.clip, device) if asked.clip else None
    notes: list[str] = []
    them = side_by_side.contenders(student, teacher, _possible(student, asked.steps, notes))
    for sampler in (student, teacher):
        sampler.ready(conditions)
    student.size = teacher.size = min(student.size, teacher.size)  # a fair race
    work = _Work(accelerator, seeds, conditions, report)
    reference = (
        work.of_teacher(teacher, extractor) if data == OWN_TEACHER else work.of_data(data, student, extractor, notes)
    )
    tallies = work.measure(them, extractor, score)
    if not accelerator.is_main_process:
        return None
    fewest = metrics.min_samples(reference.shape[1])
    if min(n, len(reference)) < fewest:
        notes.append(
            f"{reference.shape[1]} features want {fewest} samples or more: with fewer, FD mostly measures how many"
        )
    notes += [f"{who}, one by one: {s.reason}" for who, s in (("teacher", teacher), ("student", student)) if s.reason]
    on = device if device.type == "cuda" else None  # others have no float64, or are the CPU
    table = side_by_side.rows(them, tallies, reference, report, seed=asked.seed, device=on)
    result = EvaluationRecord(
        date=time.strftime("%Y-%m-%d"),
        teacher=public(name),
        data=f"the teacher's own samples, {teacher.facts.default_steps} steps" if data == OWN_TEACHER else named(data),
        n=n,
        reference=len(reference),
        seed=asked.seed,
        device=name_of(device),
        processes=accelerator.num_processes,
        threads=torch.get_num_threads(),
        dtype=asked.dtype,
        versions={"scm-distill": __version__, "torch": torch.__version__, "diffusers": diffusers.__version__},
        extractor=ExtractorIdentity.model_validate(extractor.identity),
        clip=ExtractorIdentity.model_validate(score.identity) if score else None,
        rows=tuple(sorted(table, key=lambda row: (row.who, row.steps))),
        ratios=side_by_side.ratios(them, tallies, table),
        guidance=TeacherCall.model_validate(teacher.guidance),
        notes=tuple(map(hidden, notes)),
    )
    if out is not None:
        result.write(out)
        report.say(f"written: {out}")
    if out == folder / layout.EVALUATION:
        _renew(folder, report)
    return result.content()


def _renew(folder: Path, report: Reporter) -> None:
    """Put the figures into the export's card, and into the run's report where it lies in a run."""
    try:
        card.write(folder)
        run = layout.run_of(folder)
        if run and (run / "metrics.jsonl").is_file():
            report.say(f"report: {report_page.write(run, report=report)}")
    except UserError as error:  # an export of an older version; its figures are measured all the same
        report.say(f"the card is as it was: {error.problem}")


@dataclass(frozen=True)
class _Work:
    """What the processes share out: seeds and their conditions."""

    accelerator: Accelerator
    seeds: list[int]
    conditions: list[Any]
    report: Reporter

    def _rounds(self, sampler: Sampler, first: int = 0) -> list[tuple[list[int], list[Any]]]:
        """This process's seeds, moved by `first`, and conditions, in batches."""
        mine = share(len(self.seeds), self.accelerator)
        parts = [mine[i : i + sampler.size] for i in range(0, len(mine), sampler.size)]
        return [([self.seeds[i] + first for i in part], [self.conditions[i] for i in part]) for part in parts]

    def of_teacher(self, teacher: Sampler, extractor: Extractor) -> Tensor:
        """Features of the teacher's samples at its default steps, from other seeds."""
        rounds, found = self._rounds(teacher, APART), []
        self.report.begin("reference", len(rounds))
        for i, (seeds, conditions) in enumerate(rounds, 1):
            found.append(extractor(teacher.draw(seeds, conditions).samples))
            self.report.advance(i)
        self.report.end()
        return gathered(torch.cat(found), len(self.seeds), self.accelerator)

    def of_data(self, data: str, student: Sampler, extractor: Extractor, notes: list[str]) -> Tensor:
        """Features of real samples, of the size that the student makes."""
        one = as_tensor(student.draw(self.seeds[:1], self.conditions[:1]).samples[0])
        facts = student.facts
        real = open_reference(data, facts.modality, one.shape, n=MOST_REAL, seed=0, rate=facts.rate)
        if len(real) < FEWEST_REAL:
            raise UserError(f"{data} holds {len(real)} samples.", f"Give {FEWEST_REAL} or more; FD wants thousands.")
        self.report.begin("reference", len(share(len(real), self.accelerator)))
        known = reference_features(extractor, real, self.accelerator, self.report.advance)
        self.report.end()
        notes.append(f"reference: {len(real)} of {real.total} real samples, features {known.origin}")
        return known.features

    def measure(self, them: Sequence[Contender], extractor: Extractor, score: Score | None) -> list[Measurement]:
        """The tallies of all processes together."""
        tallies = side_by_side.measure(them, self._rounds(them[0].sampler), extractor, score, self.report)
        n, accelerator = len(self.seeds), self.accelerator
        return [
            Measurement(
                gathered(tally.features, n, accelerator),
                gathered(tally.scores, n, accelerator) if score else tally.scores,
                _every_round(tally.rounds, accelerator),
            )
            for tally in tallies
        ]


def _every_round(rounds: Tensor, accelerator: Accelerator) -> Tensor:
    """The rounds (R, 4) of all processes, of which some may have one more."""
    padded = accelerator.pad_across_processes(rounds.float().to(accelerator.device))  # mps has no float64
    every: Tensor = accelerator.gather(padded).cpu().double()
    return every[every[:, 0] > 0]


def _wanted(asked: EvaluationRequest, recipe: config.Recipe | None, student: Sampler, n: int) -> SampleRequest:
    """Conditions in turn: those that were typed, else the run's own prompts. Raises UserError."""
    file = str(asked.prompts) if asked.prompts else None
    if student.facts.driver == "prompt" and file is None:
        file = recipe.data.prompts if recipe else None
        if file is None:
            raise UserError(f"{asked.model} wants prompts.", "Give --prompts FILE, a prompt a line.")
    classes = asked.classes
    if student.facts.driver == "labels" and classes is None:
        classes = f"0-{(student.facts.classes or 1) - 1}"
    seeded = file is not None and file.endswith(".jsonl") and asked.n is None  # as many as there are records
    return SampleRequest([], file, classes, None if seeded else n, asked.seed)


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
    """Before the work. Raises UserError."""
    if out is None:
        return
    if out.is_dir() or not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise UserError(f"{out} cannot be written.", "Choose another file with -o.")
