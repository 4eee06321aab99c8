"""Features of reference sets on disk, and features of many processes in one place."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, broadcast_object_list
from safetensors import SafetensorError
from torch import Tensor

from scm_distill import ranks
from scm_distill.artifacts.files import Damaged, read_tensors, save_tensors
from scm_distill.errors import UserError, one_line
from scm_distill.evaluation.features import Extractor, features
from scm_distill.evaluation.reference import Reference

VERSION = 1  # of the code that makes features: part of their key


@dataclass(frozen=True)
class CachedFeatures:
    """Features (N, D) of a reference set, and where they came from, in words."""

    features: Tensor
    origin: str


def folder() -> Path:
    """SCM_DISTILL_CACHE/features, else XDG_CACHE_HOME/scm-distill/features, else ~/.cache/scm-distill/features."""
    if own := os.environ.get("SCM_DISTILL_CACHE"):
        return Path(own).expanduser() / "features"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "scm-distill" / "features"


def key_of(extractor: Extractor, reference: Reference) -> str:
    """The hash of all that the features depend on; the name of their file."""
    made = [VERSION, reference.identity, extractor.identity.model_dump(), extractor.settings]
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()


def reference_features(
    extractor: Extractor,
    reference: Reference,
    accelerator: Accelerator | None = None,
    progress: Callable[[int], None] | None = None,
) -> CachedFeatures:
    """The features of a reference set, on every process: from the cache, or computed, by each process a share.

    `progress` is called with how many samples of this process's share are done. A damaged cached file is computed
    again, and `origin` says so. Raises UserError where a sample cannot be read.
    """
    path = folder() / f"{key_of(extractor, reference)}.safetensors"
    main = accelerator is None or accelerator.is_main_process
    found, origin = _read(path, len(reference)) if main else (None, "")
    if accelerator is not None and accelerator.num_processes > 1:
        shape, origin = broadcast_object_list([None if found is None else tuple(found.shape), origin])
        if shape is not None:
            buffer = torch.zeros(shape) if found is None else found
            found = broadcast(buffer.to(accelerator.device)).cpu()
    if found is None:
        mine = share(len(reference), accelerator)
        with ranks.together("measuring the reference"):
            found = features(extractor, (reference[i] for i in mine), progress)
        found = gathered(found, len(reference), accelerator)
        if main:
            origin += _write(path, found)
    return CachedFeatures(found, origin)


def _read(path: Path, n: int) -> tuple[Tensor | None, str]:
    """The cached features (n, D), if they are there and whole, and where features come from, in words."""
    if not path.is_file():
        return None, "computed"
    try:
        found = read_tensors(path)["features"]
        if found.ndim != 2 or len(found) != n or not found.isfinite().all():
            raise ValueError("not as written")
    except (Damaged, KeyError, ValueError):
        return None, f"computed again: the cached file {path.name} was damaged"
    return found, "from the cache"


def _write(path: Path, found: Tensor) -> str:
    """Cache features (N, D); where that fails, the words that say so, else none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors({"features": found}, path)
    except (OSError, SafetensorError) as error:
        return f"; not kept: {one_line(error)}"
    return ""


def share(total: int, accelerator: Accelerator | None) -> range:
    """The consecutive indices, of `total`, that this process works on. Raises UserError where a process has none."""
    world, rank = (accelerator.num_processes, accelerator.process_index) if accelerator else (1, 0)
    if total < world:
        raise UserError(f"{total} samples are too few for {world} processes.", "Give more samples, or fewer processes.")
    return range(total * rank // world, total * (rank + 1) // world)


def gathered(rows: Tensor, total: int, accelerator: Accelerator | None) -> Tensor:
    """The rows (N, ...) of all processes in order, each having given those of its `share`; on the CPU."""
    if accelerator is None or accelerator.num_processes == 1:
        return rows.cpu()
    world = accelerator.num_processes
    sizes = [total * (rank + 1) // world - total * rank // world for rank in range(world)]
    most = max(sizes)
    padded = torch.cat([rows, rows.new_zeros(most - len(rows), *rows.shape[1:])]).to(accelerator.device)
    every = accelerator.gather(padded).cpu().split(most)
    return torch.cat([part[:size] for part, size in zip(every, sizes, strict=True)])
