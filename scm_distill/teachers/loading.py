"""Loading a diffusers pipeline from a folder, a Hub id or a single file, and reading it as a teacher."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from torch import nn

from scm_distill import builtin
from scm_distill.artifacts import files
from scm_distill.artifacts.files import Damaged
from scm_distill.artifacts.layout import INDEX
from scm_distill.errors import UserError, one_line
from scm_distill.memory import out_of_memory
from scm_distill.teachers import families, stock_call, unet2d
from scm_distill.teachers import reading as traced_reading
from scm_distill.teachers.teacher import Source, Teacher


def load(
    repo: str,
    *,
    revision: str | None = None,
    allow_pickle: bool = False,
    pipeline: str | None = None,
    config: str | None = None,
    call: Mapping[str, Any] | None = None,
    device: torch.device | None = None,
) -> Teacher:
    """The teacher in `repo`: a pipeline folder, `builtin:NAME`, a Hub id, or a single .safetensors file.

    A single file needs the name of its diffusers class, `pipeline`, and `config`, a folder or Hub id with the
    configuration of its parts. It is loaded in float32 on `device` (default: the CPU). `call` are arguments of the
    stock call, such as height and num_frames. Raises UserError when it is missing, damaged, or cannot be read.
    """
    if repo.endswith(".safetensors"):
        again = functools.partial(_single_file, repo, pipeline, config)
    else:
        folder = resolve(repo)
        again = functools.partial(_from_pretrained, folder, repo, revision, allow_pickle=allow_pickle)
        unet2d.check_parts(_index(folder, repo, revision), repo)  # before gigabytes are downloaded
    source = Source(repo, hub_id_of(repo), license_of(repo), again)
    direct = device is not None and device.type == "cuda" and not repo.endswith(".safetensors")
    loaded = again(device=device) if direct else again()
    if unet2d.is_pixel(loaded.config):
        return unet2d.read(loaded, source)
    family = families.of(loaded)
    family.prepare(loaded)
    if device is not None:
        loaded.to(device)
    for part in loaded.components.values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)
    reading = traced_reading.read(stock_call.drive(loaded, call or {}))
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
    dtype: torch.dtype = torch.float32,
) -> Any:
    """The stock diffusers pipeline in `repo`, in `dtype`, without reading it; arguments as in `load`.

    Raises UserError when it is missing or damaged.
    """
    if repo.endswith(".safetensors"):
        return _single_file(repo, pipeline, config).to(dtype=dtype)
    return _from_pretrained(resolve(repo), repo, revision, allow_pickle=allow_pickle, dtype=dtype)


def index(repo: str, revision: str | None = None) -> dict[str, object]:
    """The contents of the model_index.json of `repo`. Raises UserError when it is missing or damaged."""
    return _index(resolve(repo), repo, revision)


def resolve(repo: str) -> str:
    """The folder of `builtin:NAME` or of a local path, or the Hub id `repo` itself. Raises UserError.

    A local path must be a pipeline folder; a Hub id is not looked up.
    """
    if packaged := builtin.path(repo):
        if not packaged.is_dir():
            raise UserError(f"This package has no teacher {repo!r}.", "The one that ships is builtin:digits/teacher.")
        return str(packaged)
    path = Path(repo).expanduser()
    if path.is_dir():
        if not (path / INDEX).is_file():
            raise UserError(
                f"{repo} is no diffusers pipeline folder: it has no model_index.json.",
                "Give the folder that save_pretrained of a pipeline wrote, or a Hub id.",
            )
        return str(path)
    if path.exists() or repo.startswith(("/", "./", "../", "~")) or repo.endswith("/") or repo.count("/") != 1:
        raise UserError(f"There is no pipeline folder {repo}.", "Check the path, or give a Hub id such as org/name.")
    return repo


def _index(folder: str, repo: str, revision: str | None) -> dict[str, object]:
    path = Path(folder) / INDEX
    try:
        if path.exists():  # diffusers' own errors do not name the file
            parts = files.read_json(path)
            wrong = [name for name, kind in parts.items() if isinstance(kind, list) and len(kind) != 2]
            if wrong or not isinstance(parts.get("_class_name"), str):
                raise Damaged(path, f"is damaged at {', '.join(wrong) or '_class_name'}")
        return dict(DiffusionPipeline.load_config(folder, revision=revision))
    except Damaged as error:
        fix = (
            "Give a folder as save_pretrained of a pipeline writes it; an export is made again by train --resume auto."
        )
        raise UserError(error.problem, fix) from error
    except Exception as error:  # anything can come out of a damaged folder or a failed download
        raise _failure(folder, repo, error, allow_pickle=False) from error


def _from_pretrained(
    folder: str,
    repo: str,
    revision: str | None,
    *,
    allow_pickle: bool,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    **parts: Any,
) -> Any:
    """The pipeline, with `parts` in place of its own. With a `device`, one that is on it when it is read.

    Each tensor goes there by itself, so that no process holds the pipeline in host memory.
    """
    try:
        safe = None if allow_pickle else True
        index = DiffusionPipeline.load_config(folder, revision=revision)
        modules = {name: value for name, value in parts.items() if isinstance(index.get(name), list | tuple)}
        named = "dtype" if tuple(map(int, diffusers.__version__.split(".")[:2])) >= (0, 42) else "torch_dtype"
        there = {} if device is None else {"device_map": device.type}  # the current device of this type
        loaded = DiffusionPipeline.from_pretrained(
            folder, revision=revision, use_safetensors=safe, **{named: dtype}, **there, **modules
        )
        # For Wan, from_pretrained loads the folder's own over it; an old index may not name a part of today's class.
        loaded.register_modules(**{name: part for name, part in parts.items() if name in loaded.components})
        loaded.register_to_config(**{name: v for name, v in parts.items() if name not in loaded.components})
        return loaded
    except Exception as error:  # as above
        if out_of_memory(error):
            raise
        raise _failure(folder, repo, error, allow_pickle=allow_pickle) from error


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
    try:
        return kind.from_single_file(str(path), config=config, **parts)
    except Exception as error:  # as above
        if out_of_memory(error):
            raise
        raise _failure(str(path.parent), repo, error, allow_pickle=False) from error


def _failure(folder: str, repo: str, error: Exception, *, allow_pickle: bool) -> UserError:
    if isinstance(error, UserError):
        return error
    reason, local = str(error), Path(folder).is_dir()
    if "safetensors" in reason and not allow_pickle and "found" in reason:
        fix = "If you trust where it comes from, set teacher.allow_pickle=true to load its .bin weights."
    elif local:
        fix = "Its files are damaged or incomplete, or a package they need is not installed: see the reason."
    else:
        fix = "Check the name, the network and `hf auth whoami`; HF_HUB_OFFLINE=1 reads the local cache only."
    where = "" if local else "there is no such folder, and from the Hub: "
    return UserError(f"{repo} could not be loaded: {where}{one_line(error, 240)}", fix)


def hub_id_of(repo: str) -> str | None:
    """The Hub id that `repo` is; None for a folder, a file or a builtin. Raises UserError."""
    return None if repo.endswith(".safetensors") or Path(resolve(repo)).is_dir() else repo


def license_of(repo: str) -> dict[str, str]:
    """The licence fields of a teacher's own card, if it is on this machine; nothing is downloaded. Raises UserError."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.repocard import metadata_load

    if repo.endswith(".safetensors"):
        return {}
    hub_id = hub_id_of(repo)
    card = try_to_load_from_cache(hub_id, "README.md") if hub_id else Path(resolve(repo)) / "README.md"
    if not isinstance(card, str | Path) or not Path(card).is_file():
        return {}
    metadata = metadata_load(card) or {}
    return {key: str(metadata[key]) for key in ("license", "license_name", "license_link") if key in metadata}
