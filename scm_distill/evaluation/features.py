"""Features of samples: a network, what identifies it in a report, and how it is applied."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Extractor:
    """`prepare` makes the input of one sample, `net` the features (B, D) of a batch of them.

    `identity` goes into reports: name, id, sha256 (of the weights), revision, resize, features. `settings` is what
    else the features depend on, for the cache.
    """

    identity: dict[str, str | None]
    prepare: Callable[[Any], Tensor]
    net: Callable[[Tensor], Tensor]
    device: torch.device
    settings: str = ""
    batch: int = field(default=64, kw_only=True)

    @torch.no_grad()
    def __call__(self, samples: Sequence[Any]) -> Tensor:
        """Features (N, D), float32, on the CPU. Raises ValueError where samples of one batch differ in size."""
        inputs = [self.prepare(sample) for sample in samples]
        if len({x.shape for x in inputs}) > 1:
            raise ValueError(f"samples of different sizes: {sorted({tuple(x.shape) for x in inputs})}")
        return self.net(torch.stack(inputs).to(self.device)).float().cpu()


def features(extractor: Extractor, samples: Iterable[Any], progress: Callable[[int], None] | None = None) -> Tensor:
    """Features (N, D) of samples, one batch in memory at a time; `progress` hears how many are done."""
    rows: list[Tensor] = []
    waiting: list[Any] = []
    done = 0

    def work() -> None:
        nonlocal done
        rows.append(extractor(waiting))
        done += len(waiting)
        waiting.clear()
        if progress:
            progress(done)

    for sample in samples:
        waiting.append(sample)
        if len(waiting) == extractor.batch:
            work()
    if waiting:
        work()
    if not rows:
        raise ValueError("no samples")
    return torch.cat(rows)
