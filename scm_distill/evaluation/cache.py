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
from safetensors.torch import load_file
from torch import Tensor

from scm_distill.artifacts.files import save_tensors
from scm_distill.errors import UserError
from scm_distill.evaluation.features import Extractor, features
from scm_distill.evaluation.reference import Reference

VERSION = 1  # of what makes the features, where the key does not say it


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
    """What the features depend on."""
    made = [VERSION, reference.identity, extractor.identity.model_dump(), extractor.settings]
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()


def reference_features(
    extractor: Extractor,
    reference: Reference,
    accelerator: Accelerator | None = None,
    progress: Callable[[int], None] | None = None,
) -> CachedFeatures:
    """The features of a reference set, on every process; from the cache if they are there, shared out if not.

    `progress` hears how many samples of this process's share are done. Raises UserError where a file cannot be read.
    """
    path = folder() / f"{key_of(extractor, reference)}.safetensors"
    main = accelerator is None or accelerator.is_main_process
    found, origin = _read(path, len(reference)) if main else (None, "")
    if accelerator is not None and accelerator.num_processes > 1:
        shape, origin = broadcast_object_list([None if found is None else tuple(found.shape), origin])
        if shape is not None:
            everywhere = torch.zeros(shape) if found is None else found
            found = broadcast(everywhere.to(accelerator.device)).cpu()
    if found is None:
        mine = share(len(reference), accelerator)
        found = features(extractor, (reference[i] for i in mine), progress)
        found = gathered(found, len(reference), accelerator)
        if main:
            origin += _write(path, found)
    return CachedFeatures(found, origin)


def _read(path: Path, n: int) -> tuple[Tensor | None, str]:
    if not path.is_file():
        return None, "computed"
    try:
        found = load_file(path)["features"]
        if found.ndim != 2 or len(found) != n or not found.isfinite().all():
            raise ValueError("not as written")
    except (SafetensorError, OSError, KeyError, ValueError):
        return None, f"computed again: the cached file {path.name} was damaged"
    return found, "from the cache"


def _write(path: Path, found: Tensor) -> str:
    """Write the file; what to say where that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors({"features": found}, path)
    except (OSError, SafetensorError) as error:
        return f"; not kept: {error}"
    return ""


def share(total: int, accelerator: Accelerator | None) -> range:
    """The indices, of `total`, that this process works on; one run of them. Raises UserError where some have none."""
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
