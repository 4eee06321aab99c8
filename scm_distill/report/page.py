"""What the template shows: the run's figures as texts, tables, plots and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import yaml

from scm_distill import __version__
from scm_distill.artifacts.private import without_paths
from scm_distill.report import plots, verdict
from scm_distill.report.pictures import Picture, abreast, picture, samples, sheet
from scm_distill.report.run_folder import Run
from scm_distill.report.verdict import TIMES, count, number

WHO = ("Teacher", "Student, 2 steps", "Student, 1 step")  # the rows of a preview
ABREAST, OVER_TIME, MOMENTS = 4, 8, 8  # samples in a sheet, and in a row of the history; rows of it
SHEET, HISTORY = 900, 1060  # width of them in pixels


@dataclass(frozen=True)
class Table:
    """Rows of texts; the first `left` columns are words, the others figures. Rows in `strong` stand out."""

    head: list[str]
    rows: list[list[str]]
    left: int = 1
    strong: tuple[int, ...] = ()


@dataclass(frozen=True)
class Shown:
    """A plot or picture under its title."""

    title: str
    picture: Picture
    note: str = ""


def of(run: Run) -> dict[str, Any]:
    """The template's variables."""
    previews = [(step, samples(path)) for step, path in _spread(run.previews, MOMENTS)]
    rows = run.measured.get("rows", [])
    return {
        "version": __version__,
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "run": run,
        "total": run.recipe.train.steps,
        "headline": verdict.headline(run),
        "who": WHO,
        "sheets": _sheets(*previews[-1]) if previews else [],
        "preview_step": previews[-1][0] if previews else 0,
        "teacher_steps": run.recipe.sampler.teacher_steps,
        "history": _history(previews),
        "curves": _present(_curves(run)),
        "search": plots.search(run),
        "searched": _searched(run),
        "counts": _present(_counts(rows)),
        "measured": _measured(rows),
        "conditions": _conditions(run.measured),
        "speed": _speed(rows),
        "exported": _exported(run),
        "main": _main(run),
        "recipe": yaml.safe_dump(
            without_paths(run.recipe.model_dump(mode="json")), sort_keys=False, allow_unicode=True
        ),
        "sessions": _sessions(run),
        "machine": _machine(run),
    }


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of them, evenly, with the first and the last."""
    chosen = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))
    return [items[i] for i in chosen]


def _present(shown: Sequence[tuple[str, Picture | None, str]]) -> list[Shown]:
    return [Shown(title, plot, note) for title, plot, note in shown if plot is not None]


def _sheets(step: int, rows: list[list[Any]]) -> list[Picture]:
    """The last preview in sheets of a few seeds; each has a row for the teacher and for the student's step counts."""
    across = abreast(rows[0][0], ABREAST)
    found = []
    for first in range(0, len(rows[0]), across):
        last = min(first + across, len(rows[0]))
        alt = f"Samples {first + 1} to {last} at step {step:,}, each column from one noise; rows: {', '.join(WHO)}."
        found.append(picture(sheet([row[first:last] for row in rows], SHEET // across), alt))
    return found


def _history(previews: list[tuple[int, list[list[Any]]]]) -> list[Shown]:
    """The student's two-step samples at several steps, and the teacher's below."""
    if len(previews) < 2:
        return []
    across = abreast(previews[0][1][0][0], OVER_TIME)
    strips = [(f"step {step:,}", rows[1]) for step, rows in previews] + [("teacher", previews[-1][1][0])]
    return [
        Shown(title, picture(sheet([row[:across]], HISTORY // across), f"Samples of the same noises, {title}."))
        for title, row in strips
    ]


def _curves(run: Run) -> list[tuple[str, Picture | None, str]]:
    """Quality over training, then what every step recorded."""
    clip = run.recipe.optimizer.grad_clip
    keys = {"two_steps": "2 steps", "one_step": "1 step"}
    return [
        (
            "Distance to the teacher's endpoints",
            plots.quality(run, keys, "Fréchet distance"),
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


def _counts(rows: list[dict[str, Any]]) -> list[tuple[str, Picture | None, str]]:
    return [
        (
            "Fréchet distance by network evaluations",
            plots.against(rows, "nfe", "network evaluations a sample"),
            "",
        ),
        ("Fréchet distance by time", plots.against(rows, "ms_per_sample", "ms a sample"), ""),
    ]


def _searched(run: Run) -> Table | None:
    rows = run.search.get("search", [])
    strong = tuple(i for i, row in enumerate(rows) if row["t_mid"] == run.search["chosen"])
    body = [[number(row["t_mid"]), number(row["distance"])] for row in rows]
    return Table(["t_mid", "Distance to the data ↓"], body, 1, strong) if rows else None


def _who(row: dict[str, Any]) -> str:
    return f"{row['who'].capitalize()}, {row['steps']} step{'s' * (row['steps'] != 1)}"


def _strong(rows: list[dict[str, Any]]) -> tuple[int, ...]:
    two = verdict.default(rows, "student")
    return (rows.index(two),) if two else ()


def _measured(rows: list[dict[str, Any]]) -> Table | None:
    """Quality by step count, every metric of eval.json."""
    if not rows:
        return None
    keys = list(dict.fromkeys(key for row in rows for key in row["metrics"]))
    names = [verdict.NAMES.get(key, (key.replace("_", " ").capitalize(), "")) for key in keys]
    metrics = [f"{name}\N{NO-BREAK SPACE}{arrow}".strip() for name, arrow in names]
    head = ["Sampler", "Evaluations", *metrics, "Scheduler"]
    body = [
        [_who(row), count(row["nfe"]), *(number(row["metrics"].get(key)) for key in keys), row["scheduler"]]
        for row in rows
    ]
    return Table(head, body, 1, _strong(rows))


def _speed(rows: list[dict[str, Any]]) -> Table | None:
    teacher = verdict.default(rows, "teacher")
    timed = [row for row in rows if row.get("ms_per_sample")]
    if not timed or teacher is None or not teacher.get("ms_per_sample"):
        return None
    body = [
        [
            _who(row),
            count(row["nfe"]),
            count(teacher["nfe"] / row["nfe"]) + TIMES,
            number(row["ms_per_sample"]),
            number(teacher["ms_per_sample"] / row["ms_per_sample"]) + TIMES,
        ]
        for row in timed
    ]
    head = ["Sampler", "Evaluations a sample", "Fewer evaluations", "ms a sample", "Faster"]
    return Table(head, body, 1, _strong(timed))


def _conditions(measured: dict[str, Any]) -> str:
    """Under which circumstances eval.json was measured, in a sentence."""
    extractor = measured.get("extractor") or {}
    parts = [
        f"n = {measured['n']:,}" if "n" in measured else "",
        f"seed {measured['seed']}" if "seed" in measured else "",
        f"reference {measured['data']}" if measured.get("data") else "",
        f"features {extractor.get('name', '')} {str(extractor.get('sha256') or '')[:12]}".rstrip() if extractor else "",
        " ".join(str(measured[key]) for key in ("device", "dtype") if measured.get(key)),
        f"measured {str(measured['date'])[:10]}" if measured.get("date") else "",
    ]
    return ", ".join(part for part in parts if part)


def _exported(run: Run) -> Table | None:
    """What the export measured by itself."""
    rows = run.facts.get("table", [])
    if not rows:
        return None
    body = [[row["sampler"].capitalize(), f"{row['nfe']}", number(row["distance"])] for row in rows]
    return Table(["Sampler", "Evaluations", "Distance to the data ↓"], body, 1, (len(rows) - 1,))


def _main(run: Run) -> list[tuple[str, str]]:
    """The settings that say most."""
    r, facts = run.recipe, run.facts
    scale = r.guidance.scale
    micro = f" ({r.train.micro_batch_size} at a time)" if r.train.micro_batch_size else ""
    shape = f" {TIMES} ".join(map(str, facts.get("sample_shape") or []))
    pairs = [
        ("Teacher", run.teacher),
        ("Pipeline", str(facts.get("pipeline") or "")),
        ("Sample", shape),
        ("Data", str(without_paths(r.data.source))),
        (
            "Guidance",
            "none"
            if scale is None
            else f"{scale:g}"
            if isinstance(scale, float | int)
            else f"{scale[0]:g} to {scale[1]:g}",
        ),
        (
            "Training",
            f"{r.train.steps:,} steps, batch {r.train.batch_size}{micro}, {r.train.precision}, seed {r.train.seed}",
        ),
        ("Optimizer", f"{r.optimizer.name}, learning rate {r.optimizer.lr:g}, {r.optimizer.decay}"),
        (
            "Objective",
            f"{r.objective.name}, {r.objective.velocity} velocity, warm-up {r.objective.warmup_steps:,} steps",
        ),
        (
            "Times",
            f"t_max {facts['t_max']:.4f}, t_mid {facts['t_mid']:.4f}" if "t_mid" in facts and "t_max" in facts else "",
        ),
        (
            "Check",
            f"stock diffusers reproduces the student to {facts['difference']:.1e}" if "difference" in facts else "",
        ),
    ]
    return [(name, value) for name, value in pairs if value]


def _sessions(run: Run) -> Table | None:
    if not run.sessions:
        return None
    body = [
        [str(s["date"]).replace("T", " ").partition("+")[0], f"{s['step']:,}", str(s["command"])] for s in run.sessions
    ]
    return Table(["Begun (UTC)", "From step", "Command"], body, 3)


def _machine(run: Run) -> list[tuple[str, str]]:
    """Where the last session ran."""
    if not run.sessions:
        return []
    last = run.sessions[-1]
    names = list(last["devices"])
    devices = ", ".join(
        f"{names.count(name)} {TIMES} {name}" if names.count(name) > 1 else name for name in dict.fromkeys(names)
    )
    versions = ", ".join(f"{name} {version}" for name, version in last["versions"].items())
    return [
        ("Devices", devices),
        ("Processes", str(last["processes"])),
        ("Versions", versions),
        ("Platform", str(last["platform"])),
    ]
