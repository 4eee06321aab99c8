"""A run folder as it lies on disk: finished, unfinished, or cut off in the middle of a line."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from scm_distill import config
from scm_distill.artifacts import layout, private
from scm_distill.artifacts.evaluation_record import EvaluationRecord
from scm_distill.artifacts.export_record import ExportRecord, Facts, SearchRecord
from scm_distill.artifacts.files import Damaged
from scm_distill.artifacts.record import Record
from scm_distill.artifacts.run_records import Environment, EvaluationLine, Metrics, Session, StepLine, read_metrics
from scm_distill.errors import UserError

Kind = TypeVar("Kind", bound=Record)


@dataclass(frozen=True)
class Run:
    """What the report is made of; what a run has not is empty or None. No text in it names a folder or a token."""

    name: str
    recipe: config.Recipe
    steps: tuple[StepLine, ...]
    evaluations: tuple[EvaluationLine, ...]
    previews: tuple[tuple[int, Path], ...]  # step, picture; in the order of the steps
    exported: bool
    facts: Facts | None  # of export/scm_distill.json
    search: SearchRecord | None  # export/t_mid_search.json
    evaluation: EvaluationRecord | None  # export/eval.json
    sessions: tuple[Session, ...]  # of env.json
    passed_over: tuple[str, ...] = field(default=(), compare=False)  # a sentence for each damage

    @property
    def step(self) -> int:
        """The last step that left a line in metrics.jsonl."""
        last = [line.step for line in self.steps[-1:]] + [line.step for line in self.evaluations[-1:]]
        return max(last, default=0)

    @property
    def teacher(self) -> str:
        """The teacher's display name."""
        return self.facts.base_model if self.facts else self.recipe.teacher.repo


def read(folder: Path) -> Run:
    """Read a run folder.

    Raises UserError when it is none, or when its recipe, scm_distill.json or eval.json is damaged: the page would show
    another run than this. All others are passed over when they are damaged, in whole or line by line.
    """
    if not (folder / layout.RECIPE).is_file():
        raise UserError(f"{folder} holds no run.", "Give the folder of `scm-distill train`, which has a config.yaml.")
    recipe = config.read(str(folder / layout.RECIPE)).model_dump(mode="json")
    export, passed_over = folder / layout.EXPORT, list[str]()
    exported = _read(export / layout.FACTS, ExportRecord)
    metrics = _metrics(folder / layout.METRICS, passed_over)
    environment = _read_if_whole(folder / layout.ENVIRONMENT, Environment, passed_over)
    return Run(
        folder.resolve().name,
        config.parse(private.recipe(recipe, exported.facts.hub_id if exported else None)),
        metrics.steps,
        metrics.evaluations,
        _previews(folder / layout.PREVIEWS, passed_over),
        (export / layout.INDEX).exists(),
        exported.facts if exported else None,
        _read_if_whole(export / layout.SEARCH, SearchRecord, passed_over),
        _read(export / layout.EVALUATION, EvaluationRecord),
        environment.sessions if environment else (),
        tuple(passed_over),
    )


def _read(path: Path, kind: type[Kind]) -> Kind | None:
    """A record without paths and tokens; None where there is no such file. Raises UserError where it is damaged."""
    return kind.model_validate(private.without_paths(kind.read(path).content())) if path.exists() else None


def _read_if_whole(path: Path, kind: type[Kind], passed_over: list[str]) -> Kind | None:
    """As `_read`; None, and a sentence for `passed_over`, where the file is damaged."""
    try:
        return _read(path, kind)
    except Damaged as error:
        passed_over.append(f"{path.name} {error.reason}: left out")
        return None


def _metrics(path: Path, passed_over: list[str]) -> Metrics:
    """metrics.jsonl; `passed_over` gets a sentence where it cannot be read, or for its damaged lines together."""
    try:
        metrics = read_metrics(path)
    except Damaged as error:
        passed_over.append(f"{path.name} {error.reason}: left out")
        return Metrics((), (), ())
    if metrics.passed_over:
        more = len(metrics.passed_over) - 1
        passed_over.append(f"{metrics.passed_over[0]}: left out{f', and {more} more' if more else ''}")
    return metrics


def _previews(folder: Path, passed_over: list[str]) -> tuple[tuple[int, Path], ...]:
    """Step and path of each preview; pictures that others named otherwise are no previews."""
    found = []
    for path in folder.glob("step-*.png"):
        step = path.stem.removeprefix("step-")
        if not step.isdecimal():
            continue
        if path.is_file():
            found.append((int(step), path))
        else:
            passed_over.append(f"{path.name} is a folder, not a file: left out")
    return tuple(sorted(found))
