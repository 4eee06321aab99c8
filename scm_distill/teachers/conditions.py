"""Prompts and labels as a denoiser's arguments: recorded from the pipeline's own call, once, and kept on disk.

A condition file holds one prompt's arguments, batch first, as safetensors; with guidance also those of the negative
prompt, under u/. Prompts whose arguments differ in shape fall into buckets, and a batch is drawn from one bucket.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from scm_distill.artifacts.files import is_tensors, save_tensors
from scm_distill.errors import UserError
from scm_distill.maths.cond import NONE, with_unconditional
from scm_distill.teachers.convention import first_tensor
from scm_distill.teachers.guidance import split
from scm_distill.teachers.reading import PROBE_SCALE, Reading

KEPT = 2 * 2**30  # bytes of conditions kept in memory


class Conditions:
    """The recorded conditions of a list of prompts or classes: `conditions(ids)` are a batch's, ids (B,) indices.

    `bucket` (N,) says which bucket each belongs to; `shared` arguments are equal within one.
    """

    def __init__(self, files: Sequence[Path], shared: Collection[str] = ()) -> None:
        self.files = list(files)
        largest = max((file.stat().st_size for file in self.files), default=1)
        self._load = lru_cache(max(1, KEPT // largest))(load_file)
        signatures: dict[str, int] = {}
        buckets = []
        for file in self.files:
            with safe_open(file, "pt") as opened:
                shapes: dict[str, Any] = {n: opened.get_slice(n).get_shape() for n in opened.keys()}  # noqa: SIM118
                for name in shared:  # one value for a whole batch
                    shapes[f"{name} itself"] = opened.get_tensor(name).tolist()
            buckets.append(signatures.setdefault(json.dumps(shapes, sort_keys=True), len(signatures)))
        self.bucket = torch.tensor(buckets)

    def __len__(self) -> int:
        return len(self.files)

    def __call__(self, ids: Tensor) -> dict[str, Tensor]:
        """{path: (B, ...)}; `ids` (B,) belong to one bucket."""
        rows = [self._load(self.files[i]) for i in ids.tolist()]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def record(
    reading: Reading,
    ids: Sequence[Any],
    folder: Path,
    *,
    guided: bool,
    negative: str,
    identity: str,
    progress: Callable[[int], None] = lambda _: None,
) -> Conditions:
    """Run what is missing in `folder` through the pipeline's encoders, one prompt at a time. Raises UserError."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for i, one in enumerate(ids):
        key = json.dumps([identity, reading.stock.extra, str(one), negative, guided], sort_keys=True, default=str)
        file = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"
        if not is_tensors(file):
            save_tensors(_one(reading, one, guided=guided, negative=negative), file)
        files.append(file)
        progress(i + 1)
    return Conditions(files, reading.convention.shared)


def _one(reading: Reading, one: Any, *, guided: bool, negative: str) -> dict[str, Tensor]:
    stock, convention = reading.stock, reading.convention
    scale = PROBE_SCALE if guided else reading.off
    seen = stock.watch(stock.arguments([one], 2, scale=scale, negative=negative), fake=True, steps=1)
    step = seen.steps[0]
    if not guided:
        cond = convention.cond(step.calls[0].arguments)
    else:
        halves = split(convention, step)
        if halves is None:
            raise UserError(f"The prompt {one!r} cannot be guided.", "Check it, and guidance.negative_prompt.")
        (u, _), (c, _) = halves if reading.unconditional_first else halves[::-1]
        cond = with_unconditional(c, u)
    if not cond:
        cond = {NONE: first_tensor(step.calls[0].output).new_zeros(1)}
    return cond
