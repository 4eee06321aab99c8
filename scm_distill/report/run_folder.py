"""A run folder as it lies on disk: finished, unfinished, or cut off in the middle of a line."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scm_distill import config
from scm_distill.artifacts import private
from scm_distill.errors import UserError


@dataclass(frozen=True)
class Run:
    """What the report is made of; parts that are not there are empty. No text in it names a folder or a token."""

    name: str
    recipe: config.Recipe
    steps: list[dict[str, Any]]  # a line of metrics.jsonl for each step, in their order
    evaluations: list[dict[str, Any]]  # step, student {rmse, one_step, two_steps}, teacher {the same}
    previews: list[tuple[int, Path]]  # step, picture
    exported: bool
    facts: dict[str, Any]  # of export/scm_distill.json
    search: dict[str, Any]  # export/t_mid_search.json: chosen, search [{t_mid, distance}]
    measured: dict[str, Any]  # export/eval.json
    sessions: list[dict[str, Any]]  # of env.json

    @property
    def step(self) -> int:
        """The last step that left a trace."""
        lines = [*self.steps[-1:], *self.evaluations[-1:]]
        return max((int(line["step"]) for line in lines), default=0)

    @property
    def teacher(self) -> str:
        """The teacher's display name."""
        return str(self.facts.get("base_model") or self.recipe.teacher.repo)


def read(folder: Path) -> Run:
    """Read a run folder. Raises UserError when it is none, or when one of its JSON files is broken."""
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} holds no run.", "Give the folder of `scm-distill train`, which has a config.yaml.")
    lines = _lines(folder / "metrics.jsonl")
    export = folder / "export"
    facts = _json(export / "scm_distill.json").get("facts", {})
    recipe = config.read(str(folder / "config.yaml")).model_dump(mode="json")
    return Run(
        folder.resolve().name,
        config.parse(private.recipe(recipe, facts.get("hub_id"))),
        _once([line for line in lines if "loss" in line]),
        _once([line for line in lines if "student" in line]),
        sorted((int(path.stem.partition("-")[2]), path) for path in folder.glob("samples/step-*.png")),
        (export / "model_index.json").exists(),
        facts,
        _json(export / "t_mid_search.json"),
        _json(export / "eval.json"),
        _json(folder / "env.json").get("sessions", []),
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl that are of a step; a killed run may have cut the last one."""
    found: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict) and isinstance(content.get("step"), int):
            found.append(content)
    return found


def _once(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line a step, the newest, in the order of the steps."""
    newest = {int(line["step"]): line for line in lines}
    return [newest[step] for step in sorted(newest)]


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content: dict[str, Any] = private.without_paths(dict(json.loads(path.read_text(encoding="utf-8"))))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is no readable JSON: {error}.", "Delete it, or make it again.") from error
    return content
