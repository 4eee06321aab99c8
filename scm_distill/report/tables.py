"""The tables of the page, as texts."""

from collections.abc import Sequence
from dataclasses import dataclass

from scm_distill.artifacts.evaluation_record import Row, metric
from scm_distill.report import verdict
from scm_distill.report.run_folder import Run
from scm_distill.report.verdict import TIMES, count, number, ratio


@dataclass(frozen=True)
class Table:
    """Rows of texts; the first `left` columns are words, the others figures. Rows in `strong` stand out."""

    head: list[str]
    rows: list[list[str]]
    left: int = 1
    strong: tuple[int, ...] = ()


def searched(run: Run) -> Table | None:
    """What was tried for t_mid."""
    if run.search is None or not run.search.search:
        return None
    strong = tuple(i for i, tried in enumerate(run.search.search) if tried.t_mid == run.search.chosen)
    body = [[number(tried.t_mid), number(tried.distance)] for tried in run.search.search]
    return Table(["t_mid", "Distance to the data ↓"], body, 1, strong)


def _who(row: Row) -> str:
    return f"{row.who.capitalize()}, {row.steps} step{'s' * (row.steps != 1)}"


def _strong(rows: Sequence[Row]) -> tuple[int, ...]:
    """The index of the two-step student."""
    two = verdict.default(rows, "student")
    return (rows.index(two),) if two else ()


def measured(rows: Sequence[Row]) -> Table | None:
    """Quality by step count, every metric of eval.json."""
    if not rows:
        return None
    keys = list(dict.fromkeys(key for row in rows for key in row.metrics))
    head = ["Sampler", "Evaluations", *(metric(key).title for key in keys), "Scheduler"]
    body = [[_who(row), count(row.nfe), *(number(row.metrics.get(key)) for key in keys), row.scheduler] for row in rows]
    return Table(head, body, 1, _strong(rows))


def speed(rows: Sequence[Row]) -> Table | None:
    """Network evaluations and times, with their ratios to the teacher at its default."""
    teacher = verdict.default(rows, "teacher")
    if teacher is None:
        return None
    body = [
        [
            _who(row),
            count(row.nfe),
            count(ratio(teacher.nfe, row.nfe)) + TIMES,
            number(row.ms_per_sample),
            number(ratio(teacher.ms_per_sample, row.ms_per_sample)) + TIMES,
        ]
        for row in rows
    ]
    head = ["Sampler", "Evaluations a sample", "Fewer evaluations", "ms a sample", "Faster"]
    return Table(head, body, 1, _strong(rows))


def exported(run: Run) -> Table | None:
    """What the export measured by itself."""
    if run.facts is None or not run.facts.table:
        return None
    body = [[row.sampler.capitalize(), f"{row.nfe}", number(row.distance)] for row in run.facts.table]
    return Table(["Sampler", "Evaluations", "Distance to the data ↓"], body, 1, (len(body) - 1,))


def sessions(run: Run) -> Table | None:
    """When each session of the run began, at which step, and by which command."""
    if not run.sessions:
        return None
    body = [
        [session.date.replace("T", " ").partition("+")[0], f"{session.step:,}", session.command]
        for session in run.sessions
    ]
    return Table(["Begun (UTC)", "From step", "Command"], body, 3)
