"""The JSON files of a run folder: env.json, export_check.json, metrics.jsonl, and state.json of a checkpoint."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import JsonValue

from scm_distill.artifacts import files
from scm_distill.artifacts.files import Damaged
from scm_distill.artifacts.record import Part, Record

BUCKETS = (0.4, 0.8, 1.2)  # borders in t (radians) of the four buckets in which norms are logged

Buckets = tuple[float | None, ...]  # a mean for each bucket of t; None where a step had no t in it


class Session(Part):
    """One process group's share of a run: when it began, at which step, by which command and on what."""

    date: str  # ISO 8601, UTC
    command: str  # without folders and tokens
    step: int
    versions: dict[str, str]  # of Python and packages
    platform: str
    devices: tuple[str, ...]
    processes: int
    doubts: tuple[str, ...] = ()  # sentences about what makes the teacher a poor one


class Environment(Record):
    """env.json: the sessions of a run, oldest first."""

    FIX: ClassVar[str] = "Remove it: the next session of the run writes it anew."

    sessions: tuple[Session, ...]


class CheckpointState(Record):
    """state.json of a checkpoint: what its weights mean, beside the weights."""

    FIX: ClassVar[str] = "Resume from an older one."

    step: int
    smooth_time: float  # the width of the filter on the time embedding that adaptation chose
    start: tuple[float, ...]  # the sum of each trained parameter before training
    made_with: dict[str, JsonValue]  # the settings that decide what the weights mean, by their keys in the recipe
    written: int  # when, in ns since 1970


class ExportCheck(Record):
    """export_check.json: that stock diffusers ran the untrained student's export, before anything was drawn."""

    key: str  # a hash of the teacher, the settings and the versions it depends on
    difference: float  # of stock diffusers' two steps to ours, relative (pixels: the largest)


class StepLine(Record):
    """A line of metrics.jsonl: one training step. Norms are rms values, by bucket of t."""

    step: int  # from 1
    loss: float
    grad_norm: float  # before clipping
    lr: float
    tangent: Buckets  # g before normalization
    derivative: Buckets  # cos t sin t dF/dt
    gap: Buckets  # of the student's F to the velocity it follows


class Endpoints(Part):
    """Distances of a network's samples to the teacher's ODE endpoints; NaN where the samples are not finite."""

    rmse: float  # of one step, sample by sample from the same noise, in units of sigma_d
    one_step: float  # Frechet distance of `metrics.block_features`
    two_steps: float


class EvaluationLine(Record):
    """A line of metrics.jsonl: the student after `step` steps, and the undistilled teacher in as few steps."""

    step: int
    student: Endpoints
    teacher: Endpoints


Line = TypeVar("Line", StepLine, EvaluationLine)


@dataclass(frozen=True)
class Metrics:
    """metrics.jsonl: a line for each step and each evaluation, in the order of the steps.

    `passed_over` says of each line that is none of them why; a killed run leaves one that is torn.
    """

    steps: tuple[StepLine, ...]
    evaluations: tuple[EvaluationLine, ...]
    passed_over: tuple[str, ...]


def read_metrics(path: Path, keep: Callable[[StepLine | EvaluationLine], bool] = lambda _: True) -> Metrics:
    """Read metrics.jsonl, as far as `keep` holds; of two lines for one step, the later one counts.

    A missing file has no lines. Raises Damaged where `path` is a folder or may not be read.
    """
    found: list[StepLine | EvaluationLine] = []
    passed_over: list[str] = []
    for number, text in enumerate(files.lines_of(path), 1):
        try:
            found.append(_line(text, path))
        except Damaged as error:
            passed_over.append(f"line {number} of {path.name} {error.reason}")
    found = [line for line in found if keep(line)]
    return Metrics(_in_order(found, StepLine), _in_order(found, EvaluationLine), tuple(passed_over))


def _line(text: str, path: Path) -> StepLine | EvaluationLine:
    kind = EvaluationLine if "student" in files.json_object(text, path) else StepLine
    return kind.parse(text, path)


def _in_order(lines: list[StepLine | EvaluationLine], kind: type[Line]) -> tuple[Line, ...]:
    newest = {line.step: line for line in lines if isinstance(line, kind)}
    return tuple(newest[step] for step in sorted(newest))
