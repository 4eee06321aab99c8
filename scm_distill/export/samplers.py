"""Students and teachers opened as samplers, whatever kind of pipeline they are."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scm_distill import teachers
from scm_distill.errors import UserError
from scm_distill.export import student as students
from scm_distill.export.bundle import CALL
from scm_distill.export.makers import Pipeline, Pixels, shared
from scm_distill.export.sampler import Drawn as Drawn
from scm_distill.export.sampler import Maker, Sampler
from scm_distill.training.report import Reporter, Silent

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
    folder = students.locate(model)
    maker: Maker
    if _is_pixel(folder, None):
        student = students.load(model)
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


def written(folder: str) -> dict[str, Any]:
    """What an export, in a folder or on the Hub, says of itself. Raises UserError where it says nothing."""
    path = Path(folder) / CALL
    if not path.is_file() and not Path(folder).is_dir():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            path = Path(hf_hub_download(folder, CALL))
        except (HfHubHTTPError, LocalEntryNotFoundError):
            path = Path(CALL + " of the Hub")
    try:
        said = json.loads(path.read_text())
        return {"call": dict(said["call"]), "facts": dict(said.get("facts", {}))}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder} is no few-step student: it has no {CALL}.", "Give a run folder, or the export folder in it."
        ) from error


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
