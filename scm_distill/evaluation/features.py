"""Features of samples: the network that computes them, what identifies it, and how it is applied."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from scm_distill.artifacts.evaluation_record import ExtractorIdentity


@dataclass(frozen=True)
class Extractor:
    """A network that turns samples into features; a sample is what a pipeline returns for one, see inputs.py."""

    identity: ExtractorIdentity  # for people
    prepare: Callable[[Any], Tensor]  # from one sample to the network's input
    net: Callable[[Tensor], Tensor]  # from a batch of inputs to features (B, D)
    device: torch.device
    settings: str = ""  # what else the features depend on, for the cache's key
    batch: int = field(default=64, kw_only=True)  # samples at a time

    @torch.no_grad()
    def __call__(self, samples: Sequence[Any]) -> Tensor:
        """Features (N, D), float32, on the CPU. Raises ValueError where the samples differ in size."""
        inputs = [self.prepare(sample) for sample in samples]
        if len({x.shape for x in inputs}) > 1:
            raise ValueError(f"samples of different sizes: {sorted({tuple(x.shape) for x in inputs})}")
        return self.net(torch.stack(inputs).to(self.device)).float().cpu()


def features(extractor: Extractor, samples: Iterable[Any], progress: Callable[[int], None] | None = None) -> Tensor:
    """Features (N, D) of samples, read batch by batch; `progress` is called with the number that are done.

    Raises ValueError where there are none.
    """
    batches: list[Tensor] = []
    iterator, done = iter(samples), 0
    while batch := list(islice(iterator, extractor.batch)):
        batches.append(extractor(batch))
        done += len(batch)
        if progress:
            progress(done)
    if not batches:
        raise ValueError("no samples")
    return torch.cat(batches)
