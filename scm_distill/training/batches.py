"""Batches made while the device is busy with the one before, and figures read after it has gone on to the next."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from scm_distill import config
from scm_distill.autodiff.derivatives import Memory
from scm_distill.errors import UserError
from scm_distill.maths.cond import Cond

Batch = tuple[Tensor, Tensor, Tensor, Cond]  # x_0, z, t, cond
Item = TypeVar("Item")


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
