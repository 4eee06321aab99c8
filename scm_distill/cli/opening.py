"""Which teacher and recipe a student came from, by what its folder says."""

from typing import Any

import torch

from scm_distill import config
from scm_distill.errors import UserError
from scm_distill.export import samplers
from scm_distill.export import student as students
from scm_distill.export.sampler import Sampler

RUNS = "teacher"  # as a name: the teacher that the student came from


def recipe_of(model: str) -> config.Recipe | None:
    """The recipe of a run folder, or of the run that an export lies in."""
    run = students.run_of(model)
    return config.read(str(run / "config.yaml")) if run else None


def teacher_of(name: str, model: str, student: Sampler, how: dict[str, Any]) -> tuple[Sampler, str]:
    """The teacher of this name, or by the word `teacher` the student's own, and its name. Raises UserError.

    It is guided as it was when the student learnt from it; by its stock call where an older export does not say how.
    """
    facts, recipe = facts_of(model), recipe_of(model)
    repo: str | None = name
    loading: dict[str, Any] = {}
    if name == RUNS:
        repo = recipe.teacher.repo if recipe else facts.get("hub_id")
    if recipe and repo == recipe.teacher.repo:
        loading = recipe.teacher.model_dump(include={"revision", "allow_pickle", "pipeline", "config"})
    elif repo == facts.get("hub_id"):
        loading = {"revision": facts.get("revision")}
    if repo is None:
        raise UserError(
            f"{model} does not say which teacher it came from.", "Name it: a folder, a Hub id or builtin:NAME."
        )
    guidance = facts.get("trained", {}).get("teacher_call")
    teacher = samplers.open_teacher(repo, student.call, guidance=guidance, **how, **loading)
    a, b = student.facts, teacher.facts
    if (a.driver, a.modality, a.classes, a.shape) != (b.driver, b.modality, b.classes, b.shape):
        raise UserError(f"{repo} makes other samples than {model}.", "Give the teacher that this student came from.")
    return teacher, repo


def facts_of(model: str) -> dict[str, Any]:
    """What an export says of itself; empty where it is an older one."""
    return dict(samplers.written(students.locate(model))["facts"])


def name_of(device: torch.device) -> str:
    """As a reader knows it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
