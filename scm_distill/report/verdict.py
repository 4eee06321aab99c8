"""Figures in words: how numbers are written, and what a run's figures come to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scm_distill.artifacts.evaluation_record import EvaluationRecord, Row
from scm_distill.artifacts.export_record import Distance
from scm_distill.report.run_folder import Run

TIMES = "\N{MULTIPLICATION SIGN}"
EQUAL, CLOSE = 1.10, 1.5  # a student's distance over its teacher's: up to here they match, or are close
Kind = Literal["good", "fair", "poor", "open"]


def number(value: float | None) -> str:
    """A measured figure to three digits; whole above a thousand, a dash for what is not known."""
    if value is None or math.isnan(value):
        return "\N{EN DASH}"
    if not math.isfinite(value):
        return "∞"
    text = f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".rstrip(".") if value else "0"
    return text.replace("-", "\N{MINUS SIGN}")


def count(value: float) -> str:
    """A number of things, such as 50 network evaluations; one decimal only where it is no whole number."""
    return f"{round(value, 1):,g}"


def ratio(a: float, b: float) -> float:
    """a / b; not a number where b is 0."""
    return a / b if b else math.nan


@dataclass(frozen=True)
class Tile:
    """One large figure of the headline."""

    label: str
    figure: str
    note: str


@dataclass(frozen=True)
class Headline:
    """The verdict and the figures that it rests on."""

    kind: Kind
    title: str
    text: str
    tiles: list[Tile]


def default(rows: Sequence[Row], who: Literal["student", "teacher"]) -> Row | None:
    """Of the rows of eval.json: the two-step student, or the teacher at the most steps, which is its default."""
    candidates = [row for row in rows if row.who == who and (who == "teacher" or row.steps == 2)]
    return max(candidates, key=lambda row: row.steps, default=None)


def baseline(run: Run) -> Distance | None:
    """Of the distances that the export measured: that of the teacher with its own sampler."""
    rows = [row for row in run.facts.table if row.sampler.startswith("teacher")] if run.facts else []
    return max(rows, key=lambda row: row.nfe, default=None)


def headline(run: Run) -> Headline:
    """From the best figures that exist: eval.json, the export's distances, or the training's last evaluation."""
    if run.evaluation:
        rows = run.evaluation.rows
        student, teacher = default(rows, "student"), default(rows, "teacher")
        if student and teacher:
            return _measured(run.evaluation, student, teacher)
    distances = run.facts.table if run.facts else ()
    two = next((row for row in distances if row.sampler == "student" and row.nfe == 2), None)
    many = baseline(run)
    if two and many:
        return _exported(two, many)
    return _training(run)


def _measured(evaluation: EvaluationRecord, student: Row, teacher: Row) -> Headline:
    """The verdict of eval.json."""
    ratios, steps = evaluation.ratios, teacher.steps
    tiles = [Tile("Network evaluations a sample", count(student.nfe), f"teacher {count(teacher.nfe)}")]
    if ratios:
        note = f"{number(student.ms_per_sample)} ms a sample, teacher {number(teacher.ms_per_sample)} ms"
        tiles.append(Tile("Faster on the clock", number(ratios.wall_clock) + TIMES, note))
    if "fd" in student.metrics:
        note = f"teacher, {steps} steps: {number(teacher.metrics.get('fd'))}"
        tiles.append(Tile("Fréchet distance in two steps", number(student.metrics["fd"]), note))
    if ratios is None:
        return Headline("open", "Measured without a distance to the data", "eval.json holds no ratio.", tiles)
    kind, title = _graded(ratios.fd)
    text = (
        f"In two steps the Fréchet distance ({evaluation.extractor.name} features) is {number(ratios.fd)} times that "
        f"of the teacher at its default {steps} steps. The student needs {count(ratios.nfe)} times fewer network "
        f"evaluations and is {number(ratios.wall_clock)} times as fast."
    )
    return Headline(kind, title, text, tiles)


def _graded(distance: float) -> tuple[Kind, str]:
    """Kind and title for a student's distance to the data over its teacher's."""
    if math.isnan(distance):
        return "open", "The distances to the data do not compare"
    if distance <= 1:
        return "good", "The two-step student is as good as its teacher"
    if distance <= EQUAL:
        return "good", "The two-step student matches its teacher"
    if distance <= CLOSE:
        return "fair", "The two-step student comes close to its teacher"
    return "poor", "The two-step student falls short of its teacher"


def _exported(student: Distance, teacher: Distance) -> Headline:
    """The verdict of what the export measured: `student` in two evaluations, `teacher` with its own sampler."""
    distance, fewer = ratio(student.distance, teacher.distance), ratio(teacher.nfe, student.nfe)
    kind, title = _graded(distance)
    tiles = [
        Tile("Network evaluations a sample", "2", f"teacher {teacher.nfe}"),
        Tile("Fewer evaluations", count(fewer) + TIMES, "wall clock: not measured yet"),
        Tile(
            "Distance to the data in two steps",
            number(student.distance),
            f"{teacher.sampler}: {number(teacher.distance)}",
        ),
    ]
    text = (
        f"In two steps the distance to the data is {number(distance)} times that of the teacher in {teacher.nfe} "
        f"evaluations, with {count(fewer)} times fewer of them. That distance needs no extractor and was taken "
        "at export; scm-distill eval measures quality and time properly."
    )
    return Headline(kind, title, text, tiles)


def _training(run: Run) -> Headline:
    """No verdict yet: how far the run is, and its last evaluation."""
    total = run.recipe.train.steps
    tiles = [Tile("Training steps", f"{run.step:,}", f"of {total:,}")]
    if run.exported:
        title, text = "Exported", "The export holds no figures. "
    elif run.step >= total:
        title, text = "Trained, not exported", "The same train command with --resume auto exports it. "
    else:
        title, text = "Not finished", f"The run stopped at step {run.step:,} of {total:,}. "
    if run.evaluations:
        last = run.evaluations[-1]
        student, teacher = number(last.student.two_steps), number(last.teacher.two_steps)
        tiles.append(Tile("Distance to the endpoints in two steps", student, f"undistilled teacher {teacher}"))
        text += (
            f"At step {last.step:,} the student's two-step samples were {student} from the teacher's "
            f"endpoints, the undistilled teacher's {teacher}."
        )
    return Headline("open", title, text, tiles)
