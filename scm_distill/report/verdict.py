"""Figures in words: how numbers are written, and what a run's figures come to."""

import math
from dataclasses import dataclass
from typing import Any

from scm_distill.report.run_folder import Run

TIMES = "\N{MULTIPLICATION SIGN}"
EQUAL, CLOSE = 1.10, 1.5  # a student's distance over its teacher's: up to here they match, or are close
NAMES = {  # metric: its name, and which way is better
    "fd": ("Fréchet distance", "↓"),
    "kid": ("KID", "↓"),
    "precision": ("Precision", "↑"),
    "recall": ("Recall", "↑"),
    "clip_score": ("CLIP score", "↑"),
    "endpoint": ("Distance to the endpoint", "↓"),
    "diversity": ("Diversity", ""),
}


def number(value: Any) -> str:
    """A measured figure to three digits; whole above a thousand, a dash for what is not known."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "\N{EN DASH}"
    if not math.isfinite(value):
        return "∞"
    text = f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".rstrip(".") if value else "0"
    return text.replace("-", "\N{MINUS SIGN}")


def count(value: float) -> str:
    """How many, such as 50 network evaluations; a fraction only where there is one."""
    return f"{round(value, 1):,g}"


@dataclass(frozen=True)
class Tile:
    """One large figure of the headline."""

    label: str
    figure: str
    note: str


@dataclass(frozen=True)
class Headline:
    """The verdict (`kind`: good, fair, poor or open) and the figures that it rests on."""

    kind: str
    title: str
    text: str
    tiles: list[Tile]


def default(rows: list[dict[str, Any]], who: str) -> dict[str, Any] | None:
    """Of the rows of eval.json: the two-step student, or the teacher at the most steps, which is its default."""
    mine = [row for row in rows if row["who"] == who and (who == "teacher" or row["steps"] == 2)]
    return max(mine, key=lambda row: row["steps"], default=None)


def baseline(run: Run) -> dict[str, Any] | None:
    """Of the export's own table: the teacher with its own sampler."""
    rows = [row for row in run.facts.get("table", []) if row["sampler"].startswith("teacher")]
    return max(rows, key=lambda row: row["nfe"], default=None)


def headline(run: Run) -> Headline:
    """From the best figures there are: eval.json, the export's own table, or the last evaluation of the training."""
    rows = run.measured.get("rows", [])
    student, teacher = default(rows, "student"), default(rows, "teacher")
    if student and teacher:
        return _measured(run, student, teacher)
    table = run.facts.get("table", [])
    two = next((row for row in table if row["sampler"] == "student" and row["nfe"] == 2), None)
    many = baseline(run)
    if two and many:
        return _exported(two, many)
    return _training(run)


def _measured(run: Run, student: dict[str, Any], teacher: dict[str, Any]) -> Headline:
    ratios, steps = run.measured.get("ratios", {}), teacher["steps"]
    name = run.measured.get("extractor", {}).get("name")
    mine, theirs = student["metrics"].get("fd"), teacher["metrics"].get("fd")
    tiles = [Tile("Network evaluations a sample", count(student["nfe"]), f"teacher {count(teacher['nfe'])}")]
    if ratios.get("wall_clock"):
        note = f"{number(student['ms_per_sample'])} ms a sample, teacher {number(teacher['ms_per_sample'])} ms"
        tiles.append(Tile("Faster on the clock", number(ratios["wall_clock"]) + TIMES, note))
    if mine is not None:
        tiles.append(Tile("Fréchet distance in two steps", number(mine), f"teacher, {steps} steps: {number(theirs)}"))
    fd = ratios.get("fd")
    if fd is None:
        return Headline("open", "Measured without a distance to the data", "eval.json holds no ratio.", tiles)
    faster = f" and is {number(ratios['wall_clock'])} times as fast" if ratios.get("wall_clock") else ""
    kind, title = _graded(fd)
    text = (
        f"In two steps the Fréchet distance{f' ({name} features)' if name else ''} is {number(fd)} times that of the "
        f"teacher at its default {steps} steps. The student needs {count(ratios['nfe'])} times fewer network "
        f"evaluations{faster}."
    )
    return Headline(kind, title, text, tiles)


def _graded(ratio: float) -> tuple[str, str]:
    if ratio <= 1:
        return "good", "The two-step student is as good as its teacher"
    if ratio <= EQUAL:
        return "good", "The two-step student matches its teacher"
    if ratio <= CLOSE:
        return "fair", "The two-step student comes close to its teacher"
    return "poor", "The two-step student falls short of its teacher"


def _exported(two: dict[str, Any], many: dict[str, Any]) -> Headline:
    ratio, faster = two["distance"] / many["distance"], many["nfe"] / two["nfe"]
    kind, title = _graded(ratio)
    tiles = [
        Tile("Network evaluations a sample", "2", f"teacher {many['nfe']}"),
        Tile("Fewer evaluations", count(faster) + TIMES, "wall clock: not measured yet"),
        Tile(
            "Distance to the data in two steps",
            number(two["distance"]),
            f"{many['sampler']}: {number(many['distance'])}",
        ),
    ]
    text = (
        f"In two steps the distance to the data is {number(ratio)} times that of the teacher in {many['nfe']} "
        f"evaluations, with {count(faster)} times fewer of them. That distance needs no extractor and was taken "
        "at export; scm-distill eval measures quality and time properly."
    )
    return Headline(kind, title, text, tiles)


def _training(run: Run) -> Headline:
    total = run.recipe.train.steps
    tiles = [Tile("Training steps", f"{run.step:,}", f"of {total:,}")]
    if run.exported:
        title, text = "Exported", "The export holds no figures: it was written by an earlier version of scm-distill. "
    elif run.step >= total:
        title, text = "Trained, not exported", "The same train command with --resume auto exports it. "
    else:
        title, text = "Not finished", f"The run stopped at step {run.step:,} of {total:,}. "
    if run.evaluations:
        last = run.evaluations[-1]
        mine, theirs = last["student"]["two_steps"], last["teacher"]["two_steps"]
        tiles.append(
            Tile("Distance to the endpoints in two steps", number(mine), f"undistilled teacher {number(theirs)}")
        )
        text += (
            f"At step {last['step']:,} the student's two-step samples were {number(mine)} from the teacher's "
            f"endpoints, the undistilled teacher's {number(theirs)}."
        )
    return Headline("open", title, text, tiles)
