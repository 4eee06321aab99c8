"""Safety checkers: parts of a pipeline that look at its samples and return black in place of some."""

import dataclasses
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import diffusers
import numpy as np
from PIL import Image
from torch import Tensor

from scm_distill.errors import UserError

PART, EYES = "safety_checker", "feature_extractor"


def checker_of(pipeline: Any) -> str | None:
    """The class of a pipeline's safety checker; None where it has none."""
    part = getattr(pipeline, PART, None)
    return None if part is None else type(part).__name__


def check(index: Mapping[str, object], repo: str) -> None:
    """Raise UserError where the model_index.json of `repo` has a safety checker that nothing prepares pictures for."""
    kind: Any = getattr(diffusers, str(index.get("_class_name")), None)
    if kind is None or EYES not in inspect.signature(kind.__init__).parameters:
        return
    if _present(index.get(PART)) and not _present(index.get(EYES)):
        raise UserError(
            f"{repo} has a safety checker, and no {EYES} that prepares pictures for it.",
            f'Add the {EYES} that it was published with, or write "{PART}": [null, null] in model_index.json.',
        )


def _present(entry: object) -> bool:
    """Whether an entry of a model_index.json names a part."""
    return isinstance(entry, list | tuple) and all(entry)


def flagged(pipeline: Any, output: Any) -> tuple[bool, ...]:
    """Which of the samples in the `output` of a stock call its safety checker flagged, and so took away.

    By the output's own fields (`nsfw_content_detected`, `nsfw_detected`, `watermark_detected`), and where a checker has
    left none, by what is black throughout.
    """
    samples = output[0]
    told = [value for name, value in _fields(output) if name.endswith("_detected") and value is not None]
    if told:
        each = [[value] * len(samples) if isinstance(value, bool) else value for value in told]
        return tuple(any(bool(flags[i]) for flags in each if i < len(flags)) for i in range(len(samples)))
    checked = checker_of(pipeline) is not None
    return tuple(checked and _black(sample) for sample in samples)


def count_text(flags: Sequence[bool], who: str) -> str:
    """A sentence that says how many samples of `who` were flagged."""
    return f"{sum(flags)} of {len(flags)} samples of the {who} were flagged by its safety checker, and are black"


def _fields(output: Any) -> Iterable[tuple[str, Any]]:
    if not dataclasses.is_dataclass(output):
        return []
    return [(field.name, getattr(output, field.name)) for field in dataclasses.fields(output)]


def _black(sample: Any) -> bool:
    """Whether a picture or clip is zero throughout."""
    if isinstance(sample, list | tuple):
        return len(sample) > 0 and all(_black(frame) for frame in sample)
    if isinstance(sample, Tensor):
        return not bool(sample.any())
    return isinstance(sample, Image.Image | np.ndarray) and not np.asarray(sample).any()
