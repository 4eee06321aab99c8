"""What the template shows: the run's figures as texts, tables, plots and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import numpy as np
import yaml

from scm_distill import __version__
from scm_distill.artifacts.evaluation_record import EvaluationRecord, Row
from scm_distill.artifacts.files import Damaged
from scm_distill.artifacts.private import without_paths
from scm_distill.publish.card_text import guidance_text
from scm_distill.report import plots, tables, verdict
from scm_distill.report.pictures import Picture, Preview, abreast, picture, preview, sheet
from scm_distill.report.run_folder import Run
from scm_distill.report.tables import Table
from scm_distill.report.verdict import TIMES, Headline

Item = TypeVar("Item")
WHO = ("Teacher", "Student, 2 steps", "Student, 1 step")  # the rows of a preview
ABREAST, OVER_TIME, MOMENTS = 4, 8, 8  # samples in a sheet, and in a row of the history; rows of it
SHEET, HISTORY = 900, 1060  # width of them in pixels


@dataclass(frozen=True)
class Figure:
    """A plot or picture under its title, above its note."""

    title: str
    picture: Picture
    note: str = ""


Pairs = list[tuple[str, str]]  # names and values
MaybeFigure = tuple[str, Picture | None, str]  # title, picture where there are figures for it, note


@dataclass(frozen=True)
class Page:
    """The variables of page.html; what a run has not is empty or None."""

    version: str
    made: str  # when, UTC
    run: Run
    total: int  # training steps of the recipe
    headline: Headline
    who: tuple[str, ...]
    sheets: list[Picture]
    preview_step: int
    teacher_steps: int
    history: list[Figure]
    curves: list[Figure]
    search: Picture | None
    searched: Table | None
    counts: list[Figure]
    measured: Table | None
    conditions: str
    speed: Table | None
    device: str  # on which eval measured
    exported: Table | None
    export_samples: int
    main: Pairs
    recipe: str
    sessions: Table | None
    machine: Pairs
    passed_over: tuple[str, ...]  # a sentence for each damage


def of(run: Run) -> Page:
    """The page of a run."""
    previews, damages = _previews(run)
    rows = run.evaluation.rows if run.evaluation else ()
    settings = without_paths(run.recipe.model_dump(mode="json"))
    return Page(
        version=__version__,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        run=run,
        total=run.recipe.train.steps,
        headline=verdict.headline(run),
        who=WHO,
        sheets=_sheets(previews[-1]) if previews else [],
        preview_step=previews[-1].step if previews else 0,
        teacher_steps=run.recipe.sampler.teacher_steps,
        history=_history(previews),
        curves=_present(_curves(run)),
        search=plots.search(run),
        searched=tables.searched(run),
        counts=_present(_counts(rows)),
        measured=tables.measured(rows),
        conditions=_conditions(run.evaluation) if run.evaluation else "",
        speed=tables.speed(rows),
        device=run.evaluation.device if run.evaluation else "",
        exported=tables.exported(run),
        export_samples=run.facts.samples if run.facts else run.recipe.export.samples,
        main=_main(run),
        recipe=yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
        sessions=tables.sessions(run),
        machine=_machine(run),
        passed_over=(*run.passed_over, *damages),
    )


def _previews(run: Run) -> tuple[list[Preview], list[str]]:
    """Previews over the whole run, at most MOMENTS, and a sentence for each of them that is damaged."""
    found, damages = [], []
    for step, path in _spread(run.previews, MOMENTS):
        try:
            found.append(preview(step, path))
        except Damaged as error:
            damages.append(f"{path.name} {error.reason}: left out")
    return found, damages


def _spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most `most` of the items, evenly spread, with the first and the last."""
    chosen = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))
    return [items[i] for i in chosen]


def _present(figures: Sequence[MaybeFigure]) -> list[Figure]:
    return [Figure(title, plot, note) for title, plot, note in figures if plot is not None]


def _sheets(last: Preview) -> list[Picture]:
    """The last preview in sheets of a few seeds; each has a row for the teacher and for the student's step counts."""
    across, samples = abreast(last.teacher[0], ABREAST), len(last.teacher)
    found = []
    for first in range(0, samples, across):
        end = min(first + across, samples)
        alt = f"Samples {first + 1} to {end} at step {last.step:,}, each column from one noise; rows: {', '.join(WHO)}."
        rows = [row[first:end] for row in (last.teacher, last.two_steps, last.one_step)]
        found.append(picture(sheet(rows, SHEET // across), alt))
    return found


def _history(previews: list[Preview]) -> list[Figure]:
    """The student's two-step samples at several steps, and the teacher's below."""
    if len(previews) < 2:
        return []
    across = abreast(previews[0].teacher[0], OVER_TIME)
    strips = [*((f"step {shown.step:,}", shown.two_steps) for shown in previews), ("teacher", previews[-1].teacher)]
    return [
        Figure(title, picture(sheet([row[:across]], HISTORY // across), f"Samples of the same noises, {title}."))
        for title, row in strips
    ]


def _curves(run: Run) -> list[MaybeFigure]:
    """Quality over training, then what every step recorded."""
    clip = run.recipe.optimizer.grad_clip
    figures: dict[plots.Endpoint, str] = {"two_steps": "2 steps", "one_step": "1 step"}
    return [
        (
            "Distance to the teacher's endpoints",
            plots.quality(run, figures, "Fréchet distance"),
            "On block means and contrasts of the samples. Teacher: undistilled, at as few steps.",
        ),
        (
            "One-step error",
            plots.quality(run, {"rmse": "1 step"}, r"RMSE (units of $\sigma_d$)"),
            "To the teacher's endpoint from the same noise. Teacher: undistilled, in one step.",
        ),
        ("Loss", plots.course(run, "loss", "loss"), "With adaptive weighting, so it may be negative."),
        (
            "Gradient norm",
            plots.course(run, "grad_norm", "gradient norm", limit=clip),
            "Over all parameters, before clipping.",
        ),
        (
            "Tangent norm by time",
            plots.by_time(run, "tangent", "tangent norm (rms)"),
            "Before normalization. Time t in radians, from data (0) to noise (π/2).",
        ),
        (
            "Student-teacher gap by time",
            plots.by_time(run, "gap", r"gap (rms, units of $\sigma_d$)"),
            "Between the student's F and the velocity it follows; it does not have to vanish.",
        ),
    ]


def _counts(rows: Sequence[Row]) -> list[MaybeFigure]:
    """Quality by what it costs."""
    evaluations, time = "network evaluations a sample", "ms a sample"
    return [
        ("Fréchet distance by network evaluations", plots.against(rows, "nfe", evaluations), ""),
        ("Fréchet distance by time", plots.against(rows, "ms_per_sample", time), ""),
    ]


def _conditions(evaluation: EvaluationRecord) -> str:
    """Under which circumstances eval.json was measured, in a sentence."""
    extractor = evaluation.extractor
    parts = [
        f"n = {evaluation.n:,}",
        *([f"{evaluation.flagged:,} left out, flagged by a safety checker"] if evaluation.flagged else []),
        f"seed {evaluation.seed}",
        f"reference {evaluation.data}",
        f"features {extractor.name} {(extractor.sha256 or '')[:12]}".rstrip(),
        f"{evaluation.device} {evaluation.dtype}",
        f"measured {evaluation.date[:10]}",
    ]
    return ", ".join(parts)


def _main(run: Run) -> Pairs:
    """The settings that say most, and what the export says of itself."""
    recipe, train, objective, facts = run.recipe, run.recipe.train, run.recipe.objective, run.facts
    micro = f" ({train.micro_batch_size} at a time)" if train.micro_batch_size else ""
    pairs = [
        ("Teacher", run.teacher),
        ("Warning", "; ".join(run.sessions[-1].doubts) if run.sessions else ""),
        ("Pipeline", facts.pipeline if facts else ""),
        ("Sample", f" {TIMES} ".join(map(str, facts.sample_shape)) if facts else ""),
        ("Data", str(without_paths(recipe.data.source))),
        ("Guidance", guidance_text(facts.trained.guidance if facts else recipe.guidance.scale)),
        ("Training", f"{train.steps:,} steps, batch {train.batch_size}{micro}, {train.precision}, seed {train.seed}"),
        ("Optimizer", f"{recipe.optimizer.name}, learning rate {recipe.optimizer.lr:g}, {recipe.optimizer.decay}"),
        ("Objective", f"{objective.name}, {objective.velocity} velocity, warm-up {objective.warmup_steps:,} steps"),
        ("Times", f"t_max {facts.t_max:.4f}, t_mid {facts.t_mid:.4f}" if facts else ""),
        ("Check", f"stock diffusers reproduces the student to {facts.difference:.1e}" if facts else ""),
    ]
    return [(name, value) for name, value in pairs if value]


def _machine(run: Run) -> Pairs:
    """Where the last session ran."""
    if not run.sessions:
        return []
    last = run.sessions[-1]
    names = last.devices
    devices = ", ".join(
        f"{names.count(name)} {TIMES} {name}" if names.count(name) > 1 else name for name in dict.fromkeys(names)
    )
    versions = ", ".join(f"{name} {version}" for name, version in last.versions.items())
    return [
        ("Devices", devices),
        ("Processes", str(last.processes)),
        ("Versions", versions),
        ("Platform", last.platform),
    ]
