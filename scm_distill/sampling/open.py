"""Students and teachers opened as samplers, whatever kind of pipeline they are."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from scm_distill import teachers
from scm_distill.artifacts import layout
from scm_distill.artifacts.layout import facts_of, recipe_of, written
from scm_distill.errors import UserError
from scm_distill.progress import Reporter, Silent
from scm_distill.sampling import pixel_student
from scm_distill.sampling.backends import Pipeline, Pixels, shared
from scm_distill.sampling.sampler import Maker, Sampler

OWN_TEACHER = "teacher"  # as a name: the teacher that the student came from
SMALL = 100_000_000  # parameters of a denoiser that may draw in batches on a CPU, where no lack of memory is told


def open_student(
    model: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    batch: int | None = None,
    compile: bool = False,
    report: Reporter | None = None,
) -> Sampler:
    """An exported student by run folder, pipeline folder or Hub id. Raises UserError for anything else."""
    folder = layout.pipeline_of(model)
    maker: Maker
    if _is_pixel(folder, None):
        student = pixel_student.load(model)
        _cast(student.pipeline.net, dtype)
        maker = Pixels(student.pipeline, student)
    else:
        call = written(folder)["call"]
        maker = Pipeline(teachers.load_pipeline(folder, dtype=dtype), call, int(call["num_inference_steps"]))
    return _sampler(maker, device, batch, report, compile=compile)


def open_teacher(
    model: str,
    call: Mapping[str, Any],
    *,
    guidance: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    batch: int | None = None,
    compile: bool = False,
    report: Reporter | None = None,
    revision: str | None = None,
    **loading: Any,
) -> Sampler:
    """A teacher by pipeline folder, `builtin:NAME`, Hub id or single file; `loading` as in teachers.load_pipeline.

    `call` are the arguments of its student's call; those that are the student's own are left away.
    `guidance` is what of `Stock.arguments` guides it; None leaves that to the stock call. Raises UserError.
    """
    maker: Maker
    if not model.endswith(".safetensors") and _is_pixel(model, revision):
        teacher = teachers.load(model, revision=revision, allow_pickle=loading.get("allow_pickle", False))
        _cast(teacher.net, dtype)
        maker = Pixels(teacher)
    else:
        pipeline = teachers.load_pipeline(model, revision=revision, dtype=dtype, **loading)
        maker = Pipeline(pipeline, shared(call), None, guidance)
    return _sampler(maker, device, batch, report, compile=compile)


def _is_pixel(folder: str, revision: str | None) -> bool:
    parts = {name: kind for name, kind in teachers.index(folder, revision).items() if isinstance(kind, list | tuple)}
    named = {name: kind[1] for name, kind in parts.items() if kind[1]}
    return set(named) == {"unet", "scheduler"} and named["unet"] == "UNet2DModel"


def _cast(net: nn.Module, dtype: torch.dtype) -> None:
    if dtype != torch.float32:
        net.to(dtype)


def _sampler(
    maker: Maker, device: torch.device | None, batch: int | None, report: Reporter | None, *, compile: bool
) -> Sampler:
    """With a batch that most machines can hold, if none is given; where it is too much, it is halved."""
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parameters = sum(p.numel() for net in maker.nets for p in net.parameters())
    if maker.facts.pixels:
        usual = 64
    elif maker.facts.modality == "video" or (device.type == "cpu" and parameters > SMALL):
        usual = 1
    else:
        usual = 8
    for net in maker.nets:
        net.eval().requires_grad_(False)
    return Sampler(maker, device, batch or usual, report or Silent(), compile=compile)


def teacher_of(name: str, model: str, student: Sampler, how: dict[str, Any]) -> tuple[Sampler, str]:
    """The teacher of this name, or by the word `teacher` the student's own, and its name. Raises UserError.

    It is guided as it was when the student learnt from it; by its stock call where an older export does not say how.
    """
    facts, recipe = facts_of(model), recipe_of(model)
    repo: str | None = name
    loading: dict[str, Any] = {}
    if name == OWN_TEACHER:
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
    teacher = open_teacher(repo, student.call, guidance=guidance, **how, **loading)
    a, b = student.facts, teacher.facts
    if (a.driver, a.modality, a.classes, a.shape) != (b.driver, b.modality, b.classes, b.shape):
        raise UserError(f"{repo} makes other samples than {model}.", "Give the teacher that this student came from.")
    return teacher, repo


def name_of(device: torch.device) -> str:
    """As a reader knows it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
