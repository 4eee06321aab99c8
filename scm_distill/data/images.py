"""A folder of images (class sub-folders) or an .npz of arrays, resized to cover and cropped to the teacher's size.

Which images a step sees is a function of (seed, step) alone, so that a resumed run needs no state of the loader.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from scm_distill import builtin
from scm_distill.errors import UserError, one_line


class Data(Protocol):
    """A sized set; `__getitems__` returns x_0 (B, ...) and the ids (B,) of their conditions, -1 where unknown.

    `groups` (N,) says which samples may share a batch; None: all may.
    """

    groups: Tensor | None

    def __len__(self) -> int:
        """How many."""
        ...

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The samples of these indices, and their ids."""
        ...


class Images(Data, Protocol):
    """Images (B, C, H, W) in [-1, 1]; their ids are class labels."""

    classes: int


def open_images(source: str, shape: tuple[int, int, int]) -> Images:
    """Open a folder, an .npz file or `builtin:NAME`. Raises UserError when there is nothing fit to read."""
    path = builtin.path(source) or Path(source).expanduser()
    if path.is_dir():
        return Folder(path, shape)
    if path.suffix == ".npz" and path.is_file():
        return Arrays(path, shape)
    raise UserError(
        f"There is no image folder or .npz file {source}.",
        "Set data.source to a folder of images, one sub-folder per class, or to an .npz with images and labels.",
    )


def to_tensor(image: Image.Image, shape: tuple[int, int, int]) -> Tensor:
    """An image as (C, H, W) in [-1, 1]: resized to cover, centre crop; alpha is dropped."""
    channels, height, width = shape
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grey: convert() would clip it at 255
        image = Image.fromarray((np.asarray(image) / 257).round().clip(0, 255).astype(np.uint8))
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(image, dtype=np.float32)).reshape(height, width, channels)
    return pixels.permute(2, 0, 1) / 127.5 - 1


class Arrays:
    """`images` (N, H, W) or (N, H, W, C) uint8 and optional `labels` (N,) of an .npz; held in memory."""

    groups: Tensor | None = None

    def __init__(self, path: Path, shape: tuple[int, int, int]) -> None:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                pixels = arrays["images"]
                labels = arrays["labels"] if "labels" in arrays else np.full(len(pixels), -1)
        except Exception as error:  # a damaged zip raises one of many kinds
            raise UserError(f"{path} cannot be read: {error}.", "It needs an array `images` of uint8.") from error
        if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or len(pixels) == 0 or len(labels) != len(pixels):
            raise UserError(
                f"{path} holds images of shape {pixels.shape} and type {pixels.dtype}, and {len(labels)} labels.",
                "Store uint8 images (N, H, W) or (N, H, W, C), and as many labels.",
            )
        self.x_0 = torch.stack([to_tensor(Image.fromarray(image.squeeze()), shape) for image in pixels])
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.classes = int(self.labels.max()) + 1

    def __len__(self) -> int:
        return len(self.x_0)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        i = torch.as_tensor(indices)
        return self.x_0[i], self.labels[i]


class Folder:
    """Images of a folder, through `datasets`, decoded on demand.

    Its sub-folders are the classes, sorted by name, or by number where all names are numbers.
    """

    groups: Tensor | None = None

    def __init__(self, path: Path, shape: tuple[int, int, int]) -> None:
        import datasets

        datasets.disable_progress_bars()
        try:
            self.rows: Any = datasets.load_dataset("imagefolder", data_dir=str(path), split="train")
            self.rows = self.rows.cast_column("image", datasets.Image(decode=True))
        except Exception as error:  # `datasets` has no common error of its own
            reason = one_line(error, 300)
            raise UserError(f"{path} cannot be read as a folder of images: {reason}.", "Check data.source.") from error
        self.path, self.shape = path, shape
        names = self.rows.features["label"].names if "label" in self.rows.features else []
        self.classes = len(names)
        numbered = all(name.isdigit() for name in names)
        order = sorted(range(len(names)), key=lambda i: int(names[i]) if numbered else i)
        self.label_of = {name: label for label, name in enumerate(order)}  # of the index that `datasets` gave
        self.__getitems__([0])  # a damaged first image shows now, not in step 1

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        try:
            rows = self.rows[list(indices)]
            x_0 = torch.stack([to_tensor(image, self.shape) for image in rows["image"]])
        except (UnidentifiedImageError, OSError) as error:
            raise UserError(f"An image in {self.path} cannot be decoded: {error}.", "Remove or mend it.") from error
        return x_0, torch.tensor([self.label_of.get(label, -1) for label in rows.get("label", [-1] * len(x_0))])


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


def batches(
    images: Data, *, batch: int, micro: int, rank: int, world: int, seed: int, first: int, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless micro-batches (x_0, labels) of optimizer steps `first`, `first` + 1, ...

    `batch` is global; sample j of it belongs to rank j mod `world`. Every epoch is a fresh permutation.
    """
    order = _Order(images, batch, micro, rank, world, seed, first)
    return iter(DataLoader(images, batch_sampler=order, num_workers=workers, collate_fn=_as_it_is))  # type: ignore[arg-type]
