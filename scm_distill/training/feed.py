"""Batches made while the device is busy with the one before, and figures read after it has gone on to the next."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from scm_distill.models.student import Cond

Batch = tuple[Tensor, Tensor, Tensor, Cond]  # x_0, z, t, cond
Item = TypeVar("Item")


def ahead(items: Iterator[Item]) -> Iterator[Item]:
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


class Late:
    """Tensors of the last steps on their way to the host. Reading the oldest waits for no later step."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def put(self, step: int, figures: Tensor) -> None:
        """Start the copy of a step's figures."""
        copied = figures.detach().to("cpu", non_blocking=True)
        event = None
        if figures.is_cuda:
            event = torch.cuda.Event()
            event.record()
        self.waiting.append((step, copied, event))

    def take(self) -> tuple[int, Tensor]:
        """The oldest step and its figures."""
        step, figures, event = self.waiting.popleft()
        if event is not None:
            event.synchronize()
        return step, figures

    def __len__(self) -> int:
        return len(self.waiting)
