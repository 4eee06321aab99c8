"""The batches of a run: how many samples a process takes at a time, and what each micro-batch is made of.

All of it is a function of (seed, step) alone, so that a resumed run needs no state of a loader or generator.

x_0, z   data and noise, both of standard deviation sigma_d                    (B, ...)
t        time in radians, float64                                              (B,)
cond     what the network is given beside them, see models/network.py          {name: (B, ...)}
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from scm_distill import config
from scm_distill.autodiff.derivatives import Memory
from scm_distill.data import Data
from scm_distill.errors import UserError
from scm_distill.maths.cond import Cond
from scm_distill.training.conditioning import Conditioning
from scm_distill.training.randomness import Draws

Batch = tuple[Tensor, Tensor, Tensor, Cond]  # x_0, z, t, cond
Item = TypeVar("Item")


@dataclass(frozen=True)
class BatchSource:
    """The micro-batches of one process: data, noise, times and conditions, each a function of seed and step alone.

    `workers` are processes that read the data; `pin` puts batches into memory that a GPU copies from without waiting.
    """

    draws: Draws
    samples: Data
    conditioning: Conditioning
    workers: int
    pin: bool

    def steps(self, purpose: str, seed: int, first: int) -> Iterator[list[Batch]]:
        """The micro-batches, on the host, of steps `first`, `first` + 1, ..., without end, each made ahead by a thread.

        `purpose` and `first` decide noise, times and flips, `seed` the order of the data.
        """
        return prefetch(self._steps(purpose, seed, first))

    def _steps(self, purpose: str, seed: int, step: int) -> Iterator[list[Batch]]:
        d = self.draws
        loader = read_samples(
            self.samples, batch=d.batch, micro=d.micro, rank=d.rank, world=d.world,
            seed=seed, first=step, workers=self.workers,
        )  # fmt: skip
        while True:
            micro_batches: list[Batch] = []
            for z, t, flip, chance in d.step(purpose, step):
                x_0, ids = next(loader)
                if flip.any():
                    x_0 = torch.where(flip[:, None, None, None], x_0.flip(-1), x_0)
                batch: Batch = (x_0, z, t, self.conditioning(ids, chance))
                micro_batches.append(pinned(batch) if self.pin else batch)
            yield micro_batches
            step += 1


def prefetch(items: Iterator[Item]) -> Iterator[Item]:
    """`items`, each made by a thread while the one before is in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        coming = pool.submit(next, items)
        while True:
            item = coming.result()
            coming = pool.submit(next, items)
            yield item


def pinned(batch: Batch) -> Batch:
    """A batch whose copy to a GPU need not wait."""
    x_0, z, t, cond = batch
    return x_0.pin_memory(), z.pin_memory(), t.pin_memory(), {k: v.pin_memory() for k, v in cond.items()}


def to_device(batch: Batch, device: torch.device) -> Batch:
    """A batch on a device."""
    x_0, z, t = (x.to(device, non_blocking=True) for x in batch[:3])
    return x_0, z, t, {k: v.to(device, non_blocking=True) for k, v in batch[3].items()}


TINY = 2**14  # entries of a batch that any machine holds: one latent of Stable Diffusion


def micro_batch(recipe: config.Recipe, world: int) -> int:
    """The samples that a process takes at a time. Raises UserError when the work cannot be shared out."""
    if recipe.train.shard != "off" and world == 1:
        raise UserError(
            f"train.shard={recipe.train.shard} needs several processes, this is one.",
            "Start them with --num-processes N, or set train.shard=off.",
        )
    batch, micro = recipe.train.batch_size, recipe.train.micro_batch_size
    if batch % (world * (micro or 1)):
        images = f" of {micro} images at a time" if micro else ""
        raise UserError(
            f"train.batch_size {batch} cannot be shared by {world} processes{images}.",
            f"Set train.batch_size to a multiple of {world * (micro or 1)}, or --num-processes to another number.",
        )
    return micro or batch // world


def evaluation_batch(micro: int, memory: Memory) -> int:
    """The samples that a network without a graph sees at a time; no activations are kept there."""
    return micro if memory == "lean" else 4 * micro


def probe_batch(micro: int, shape: Sequence[int]) -> int:
    """The samples of `shape` that the teacher sees at a time before memory is planned: more if they are tiny."""
    return max(micro, TINY // math.prod(shape))


class _Order(Sampler[list[int]]):
    """The indices of micro-batch after micro-batch: this process's share of the global batch, from step `first` on.

    With groups, a step stays in the group of its first sample: the others give way to members of that group, whatever
    the number of processes.
    """

    def __init__(self, data: Data, batch: int, micro: int, rank: int, world: int, seed: int, first: int) -> None:
        self.size, self.batch, self.micro, self.rank, self.world = len(data), batch, micro, rank, world
        self.seed, self.first, self.groups = seed, first, data.groups
        self.epoch = lru_cache(2)(self._epoch)

    def _epoch(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(self.size, generator=generator)

    def _at(self, position: int) -> int:
        return int(self.epoch(position // self.size)[position % self.size])

    def __iter__(self) -> Iterator[list[int]]:
        step = self.first
        while True:
            share = range(step * self.batch + self.rank, (step + 1) * self.batch, self.world)
            indices = [self._at(position) for position in share]
            if self.groups is not None:
                group = self.groups[self._at(step * self.batch)]
                members = (self.groups == group).nonzero().flatten()
                others = [int(members[position * 2_654_435_761 % len(members)]) for position in share]
                indices = [i if self.groups[i] == group else o for i, o in zip(indices, others, strict=True)]
            for i in range(0, len(indices), self.micro):
                yield indices[i : i + self.micro]
            step += 1


def _as_it_is(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return pair


def read_samples(
    samples: Data, *, batch: int, micro: int, rank: int, world: int, seed: int, first: int, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless micro-batches (x_0, ids) of optimizer steps `first`, `first` + 1, ...

    `batch` is global; sample j of it belongs to rank j mod `world`. Every epoch is a fresh permutation.
    """
    order = _Order(samples, batch, micro, rank, world, seed, first)
    return iter(DataLoader(samples, batch_sampler=order, num_workers=workers, collate_fn=_as_it_is))  # type: ignore[arg-type]
