"""Prompts and labels as conditions: recorded from the pipeline's own call, once, and kept on disk.

A file holds the conditions of one prompt or label (maths/cond.py) as safetensors, with guidance also the unconditional
ones. Prompts whose conditions differ in shape are in different buckets, and a batch is drawn from one bucket.
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
from scm_distill.teachers.guidance import PROBE_SCALE, split
from scm_distill.teachers.reading import Reading

KEPT = 2 * 2**30  # bytes of conditions in memory


class Conditions:
    """The recorded conditions of N prompts or labels, one file each: `conditions(ids)` are those of a batch.

    `bucket` (N,) is the number of the bucket of each; the arguments `shared` are equal within a bucket.
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
        """The `cond` of the prompts or labels with indices `ids` (B,), all of one bucket."""
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
    """The conditions of the prompts or labels `ids`, from files in `folder`; missing ones are recorded and written.

    With `guided` they include the unconditional conditions of the prompt `negative`. `identity` is a text on which the
    files depend beside this, such as the teacher's name. `progress` is called with the number of ids done. Raises
    UserError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for i, prompt in enumerate(ids):
        key = json.dumps([identity, reading.stock.extra, str(prompt), negative, guided], sort_keys=True, default=str)
        file = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"
        if not is_tensors(file):
            save_tensors(_record_one(reading, prompt, guided=guided, negative=negative), file)
        files.append(file)
        progress(i + 1)
    return Conditions(files, reading.convention.shared)


def _record_one(reading: Reading, prompt: Any, *, guided: bool, negative: str) -> dict[str, Tensor]:
    stock, convention = reading.stock, reading.convention
    scale = PROBE_SCALE if guided else reading.off
    trace = stock.watch(stock.arguments([prompt], 2, scale=scale, negative=negative), fake=True, steps=1)
    step = trace.steps[0]
    if not guided:
        cond = convention.cond(step.calls[0].arguments)
    else:
        halves = split(convention, step)
        if halves is None:
            raise UserError(f"The prompt {prompt!r} cannot be guided.", "Check it, and guidance.negative_prompt.")
        (u, _), (c, _) = halves if reading.unconditional_first else halves[::-1]
        cond = with_unconditional(c, u)
    if not cond:
        cond = {NONE: first_tensor(step.calls[0].output).new_zeros(1)}
    return cond
