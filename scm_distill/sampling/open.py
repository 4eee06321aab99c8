"""Students and teachers opened as samplers, whatever kind of pipeline they are."""

from collections.abc import Mapping
from typing import Any, TypedDict, Unpack

import torch
from torch import nn

from scm_distill import teachers
from scm_distill.artifacts import layout
from scm_distill.artifacts.layout import export_record, recipe_of
from scm_distill.errors import UserError
from scm_distill.progress import Reporter, Silent
from scm_distill.sampling import pixel_student
from scm_distill.sampling.backends import PipelineBackend, PixelBackend, shared_arguments
from scm_distill.sampling.sampler import Backend, Sampler
from scm_distill.teachers.unet2d import is_pixel

OWN_TEACHER = "teacher"  # as a name: the teacher that the student came from
SMALL = 100_000_000  # parameters of a denoiser that may draw in batches on a CPU, which has no error for lack of memory


class SamplerOptions(TypedDict, total=False):
    """How a sampler is opened and run; None and what is missing mean the default."""

    dtype: torch.dtype  # of the weights; float32
    device: torch.device | None  # the first GPU, or the CPU
    batch: int | None  # samples a call, at most; what most machines hold
    compile: bool  # the denoisers, by torch.compile; False
    report: Reporter | None  # hears what a user should know; nobody


class Loading(TypedDict, total=False):
    """How a teacher's pipeline is loaded, as in `teachers.load_pipeline`."""

    revision: str | None
    allow_pickle: bool
    pipeline: str | None
    config: str | None
    variant: str | None


def open_student(model: str, **options: Unpack[SamplerOptions]) -> Sampler:
    """An exported student by run folder, pipeline folder or Hub id. Raises UserError for anything else."""
    folder, dtype = layout.pipeline_of(model), options.get("dtype", torch.float32)
    backend: Backend
    if is_pixel(teachers.index(folder)):
        student = pixel_student.load(model)
        _cast(student.pipeline.net, dtype)
        backend = PixelBackend(student.pipeline, student)
    else:
        call = export_record(model).call
        backend = PipelineBackend(
            teachers.load_pipeline(folder, dtype=dtype, report=options.get("report")),
            call,
            int(str(call["num_inference_steps"])),
        )
    return _sampler(backend, options)


def open_teacher(
    model: str,
    call: Mapping[str, Any],
    *,
    guidance: Mapping[str, Any] | None = None,
    loading: Loading | None = None,
    **options: Unpack[SamplerOptions],
) -> Sampler:
    """A teacher by pipeline folder, `builtin:NAME`, Hub id or single file. Raises UserError.

    `call` are the arguments of its student's call, of which sizes and lengths are taken. `guidance` are those of
    `StockCall.arguments` that guide it (scale, embedded, negative); None takes the stock call's defaults.
    """
    loading, dtype = loading or {}, options.get("dtype", torch.float32)
    backend: Backend
    if not model.endswith(".safetensors") and is_pixel(teachers.index(model, loading.get("revision"))):
        teacher = teachers.load(
            model,
            revision=loading.get("revision"),
            allow_pickle=loading.get("allow_pickle", False),
            variant=loading.get("variant"),
            report=options.get("report"),
        )
        _cast(teacher.net, dtype)
        backend = PixelBackend(teacher)
    else:
        pipeline = teachers.load_pipeline(model, dtype=dtype, report=options.get("report"), **loading)
        backend = PipelineBackend(pipeline, shared_arguments(call), None, guidance)
    return _sampler(backend, options)


def _cast(net: nn.Module, dtype: torch.dtype) -> None:
    if dtype != torch.float32:
        net.to(dtype)


def _sampler(backend: Backend, options: SamplerOptions) -> Sampler:
    """The sampler of `backend`, by default with a batch that most machines can hold; where it cannot, it is halved."""
    device = options.get("device") or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parameters = sum(p.numel() for net in backend.nets for p in net.parameters())
    if backend.facts.pixels:
        usual = 64
    elif backend.facts.modality == "video" or (device.type == "cpu" and parameters > SMALL):
        usual = 1
    else:
        usual = 8
    for net in backend.nets:
        net.eval().requires_grad_(False)
    size, report = options.get("batch") or usual, options.get("report") or Silent()
    return Sampler(backend, device, size, report, compile=options.get("compile", False))


def teacher_of(name: str, model: str, student: Sampler, options: SamplerOptions) -> tuple[Sampler, str]:
    """The sampler and the full name of the teacher `name`; the name "teacher" is that of the student's own teacher.

    `student` is the opened `model`. The teacher is guided as it was when the student learnt from it. Raises UserError,
    also for a teacher of other samples.
    """
    facts, recipe = export_record(model).facts, recipe_of(model)
    repo: str | None = name
    loading: Loading = {}
    if name == OWN_TEACHER:
        repo = recipe.teacher.repo if recipe else facts.hub_id
    if recipe and repo == recipe.teacher.repo:
        t = recipe.teacher
        loading = {
            "revision": t.revision, "allow_pickle": t.allow_pickle, "pipeline": t.pipeline, "config": t.config,
            "variant": t.variant,
        }  # fmt: skip
    elif repo == facts.hub_id:
        loading = {"revision": facts.revision}
    if repo is None:
        raise UserError(
            f"{model} does not say which teacher it came from.", "Name it: a folder, a Hub id or builtin:NAME."
        )
    guidance = facts.trained.teacher_call.model_dump(exclude_unset=True)
    teacher = open_teacher(repo, student.call, guidance=guidance, loading=loading, **options)
    a, b = student.facts, teacher.facts
    if (a.driver, a.modality, a.classes, a.shape) != (b.driver, b.modality, b.classes, b.shape):
        raise UserError(f"{repo} makes other samples than {model}.", "Give the teacher that this student came from.")
    return teacher, repo


def name_of(device: torch.device) -> str:
    """A device's name for people: the model of a GPU, else cpu or mps."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
