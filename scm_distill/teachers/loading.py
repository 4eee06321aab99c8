"""Loading a diffusers pipeline from a folder, a Hub id or a single file, and reading it as a teacher."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from torch import nn

from scm_distill.errors import UserError
from scm_distill.memory import out_of_memory
from scm_distill.progress import Reporter, Silent
from scm_distill.teachers import (
    failures,
    families,
    intake,
    pipeline_index,
    safety,
    single_file,
    sizes,
    stock_call,
    unet2d,
    weights,
)
from scm_distill.teachers import reading as traced_reading
from scm_distill.teachers.card import license_of
from scm_distill.teachers.failures import not_loaded
from scm_distill.teachers.places import hub_id_of, resolve
from scm_distill.teachers.teacher import Source, Teacher


def load(
    repo: str,
    *,
    revision: str | None = None,
    allow_pickle: bool = False,
    pipeline: str | None = None,
    config: str | None = None,
    call: Mapping[str, Any] | None = None,
    variant: str | None = None,
    device: torch.device | None = None,
    report: Reporter | None = None,
) -> Teacher:
    """The teacher in `repo`: a pipeline folder, `builtin:NAME`, a Hub id, or a single .safetensors file.

    A single file needs the name of its diffusers class, `pipeline`, and `config`, a folder or Hub id with the
    configuration of its parts. It is loaded in float32 on `device` (default: the CPU). `call` are arguments of the
    stock call, such as height and num_frames. Raises UserError when it is missing, damaged, or cannot be read.
    """
    report = report or Silent()
    if repo.endswith(".safetensors"):
        intake.check_file(Path(repo).expanduser(), pipeline, repo)
        again = functools.partial(_single_file, repo, pipeline, config)
    else:
        folder = resolve(repo)
        again = functools.partial(_from_pretrained, folder, repo, revision, allow_pickle=allow_pickle, variant=variant)
        intake.check(folder, repo, revision)  # before gigabytes are downloaded
        _check_files(folder, repo, revision, variant=variant, allow_pickle=allow_pickle, report=report)
    source = Source(repo, hub_id_of(repo), license_of(repo), again)
    direct = device is not None and device.type == "cuda" and not repo.endswith(".safetensors")
    loaded = again(device=device) if direct else again()
    weights.check_values(loaded, repo, report)
    with failures.told(repo, "cannot be read", loaded.components, failures.SETTINGS):
        return _read(loaded, source, call or {}, device)


def _read(loaded: Any, source: Source, call: Mapping[str, Any], device: torch.device | None) -> Teacher:
    """The teacher that a loaded pipeline is, moved to `device`; `call` as in `load`."""
    if unet2d.is_pixel(loaded.config):
        return unet2d.read(loaded, source)
    family = families.of(loaded)
    family.prepare(loaded)
    if device is not None:
        loaded.to(device)
    for part in loaded.components.values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)
    stock = stock_call.drive(loaded, call)
    sizes.check(stock)
    reading = traced_reading.read(stock)
    schedule = reading.schedule
    net, convention = family.teacher(loaded, reading.stock.net, reading.convention)
    reading.convention = convention
    settings: Any = reading.stock.net.config
    return Teacher(
        source=source, family=family, net=net, scheduler=loaded.scheduler, prediction=schedule.prediction,
        clock=schedule.clock, sample_shape=convention.sample_shape,
        classes=int(settings.get("num_embeds_ada_norm") or 1000) if reading.stock.driver == "labels" else None,
        alphas_cumprod=schedule.alphas_cumprod, convention=convention, rule=reading.rule, reading=reading,
    )  # fmt: skip


def load_pipeline(
    repo: str,
    *,
    revision: str | None = None,
    allow_pickle: bool = False,
    pipeline: str | None = None,
    config: str | None = None,
    variant: str | None = None,
    dtype: torch.dtype = torch.float32,
    report: Reporter | None = None,
) -> Any:
    """The stock diffusers pipeline in `repo`, in `dtype`, without reading it; arguments as in `load`.

    Raises UserError when it is missing or damaged.
    """
    report = report or Silent()
    if repo.endswith(".safetensors"):
        loaded = _single_file(repo, pipeline, config).to(dtype=dtype)
    else:
        folder = resolve(repo)
        _check_files(folder, repo, revision, variant=variant, allow_pickle=allow_pickle, report=report)
        loaded = _from_pretrained(folder, repo, revision, allow_pickle=allow_pickle, variant=variant, dtype=dtype)
    weights.check_values(loaded, repo, report)
    return loaded


def _check_files(
    folder: str, repo: str, revision: str | None, *, variant: str | None, allow_pickle: bool, report: Reporter
) -> None:
    """Hold the files of weights against the classes of the parts; a Hub id's are downloaded. Raises UserError."""
    index = pipeline_index.read(folder, repo, revision)
    safety.check(index, repo)
    try:
        local = weights.download(folder, index, repo, revision, variant=variant, allow_pickle=allow_pickle)
        weights.check_files(local, index, repo, variant=variant, allow_pickle=allow_pickle, report=report)
    except Exception as error:  # anything can come out of a damaged folder or a failed download
        if out_of_memory(error):
            raise
        raise not_loaded(folder, repo, error) from error


def _from_pretrained(
    folder: str,
    repo: str,
    revision: str | None,
    *,
    allow_pickle: bool,
    variant: str | None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    **parts: Any,
) -> Any:
    """The pipeline, with `parts` in place of its own. With a `device`, one that is on it when it is read.

    Each tensor goes there by itself, so that no process holds the pipeline in host memory.
    """
    try:
        safe = None if allow_pickle else True
        entries = DiffusionPipeline.load_config(folder, revision=revision)
        modules = {name: value for name, value in parts.items() if isinstance(entries.get(name), list | tuple)}
        named = "dtype" if tuple(map(int, diffusers.__version__.split(".")[:2])) >= (0, 42) else "torch_dtype"
        there = {} if device is None else {"device_map": device.type}  # the current device of this type
        loaded = DiffusionPipeline.from_pretrained(
            folder, revision=revision, use_safetensors=safe, variant=variant, **{named: dtype}, **there, **modules
        )
        # For Wan, from_pretrained loads the folder's own over it; an old index may not name a part of today's class.
        loaded.register_modules(**{name: part for name, part in parts.items() if name in loaded.components})
        loaded.register_to_config(**{name: v for name, v in parts.items() if name not in loaded.components})
        return loaded
    except Exception as error:  # as above
        if out_of_memory(error):
            raise
        raise not_loaded(folder, repo, error) from error


def _single_file(repo: str, pipeline: str | None, config: str | None, **parts: Any) -> Any:
    path = Path(repo).expanduser()
    if not path.is_file():
        raise UserError(f"There is no file {repo}.", "Check teacher.repo.")
    kind: Any = getattr(diffusers, pipeline or "", None)
    if not hasattr(kind, "from_single_file"):
        raise UserError(
            f"{repo} is a single file, and teacher.pipeline is {pipeline!r}.",
            "Set it to the diffusers class that reads it, such as StableDiffusionXLPipeline, and teacher.config to a "
            "folder or Hub id with the configuration of its parts.",
        )
    single_file.check(path)
    try:
        return kind.from_single_file(str(path), config=config, **parts)
    except Exception as error:  # as above
        if out_of_memory(error):
            raise
        raise single_file.incomplete(error, repo) or not_loaded(str(path.parent), repo, error) from error
