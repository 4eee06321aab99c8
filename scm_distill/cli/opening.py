"""Which teacher and recipe a student came from, by what its folder says."""

import json
from pathlib import Path
from typing import Any

import torch

from scm_distill import config
from scm_distill.errors import UserError
from scm_distill.export import samplers
from scm_distill.export import student as students
from scm_distill.export.card import FACTS
from scm_distill.export.sampler import Sampler

RUNS = "teacher"  # as a name: the teacher that the student came from


def recipe_of(model: str) -> config.Recipe | None:
    """The recipe of a run folder, or of the run that an export lies in."""
    path = Path(model).expanduser()
    found = next((p for p in (path / "config.yaml", path.parent / "config.yaml") if p.is_file()), None)
    return config.read(str(found)) if found else None


def teacher_of(name: str, model: str, student: Sampler, how: dict[str, Any]) -> tuple[Sampler, str]:
    """The teacher of this name, or by the word `teacher` the student's own, and its name. Raises UserError.

    It is guided as it was when the student learnt from it, where that was at one scale; else as its stock call does.
    """
    facts, recipe, loading = _facts(model), recipe_of(model), {}
    repo: str | None = name
    if name == RUNS and recipe:
        repo = recipe.teacher.repo
        loading = recipe.teacher.model_dump(include={"revision", "allow_pickle", "pipeline", "config"})
    elif name == RUNS:
        repo, loading = facts.get("hub_id"), {"revision": facts.get("revision")}
    if repo is None:
        raise UserError(
            f"{model} does not say which teacher it came from.", "Name it: a folder, a Hub id or builtin:NAME."
        )
    scale = facts.get("trained", {}).get("guidance")
    guidance = float(scale) if isinstance(scale, int | float) else None
    teacher = samplers.open_teacher(repo, student.call, guidance=guidance, **how, **loading)
    a, b = student.facts, teacher.facts
    if (a.driver, a.modality, a.classes, a.shape) != (b.driver, b.modality, b.classes, b.shape):
        raise UserError(f"{repo} makes other samples than {model}.", "Give the teacher that this student came from.")
    return teacher, repo


def name_of(device: torch.device) -> str:
    """As a reader knows it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _facts(model: str) -> dict[str, Any]:
    path = Path(students.locate(model)) / FACTS
    return dict(json.loads(path.read_text()).get("facts", {})) if path.is_file() else {}
