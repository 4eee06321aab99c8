"""Images of a folder (class sub-folders) or of an .npz, resized to cover and cropped to the teacher's size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from scm_distill import builtin
from scm_distill.errors import UserError, one_line


class Data(Protocol):
    """N samples, read by their indices, each with the id of its condition.

    `groups` (N,) are numbers: samples of one number may share a batch. None: all may.
    """

    groups: Tensor | None

    def __len__(self) -> int:
        """The number of samples, N."""
        ...

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """x_0 (B, ...) of these indices, and the ids (B,) of their conditions, -1 where unknown. Raises UserError."""
        ...


class Images(Data, Protocol):
    """Images (B, C, H, W) in [-1, 1]; their ids are class labels."""

    classes: int  # how many there are; 0 without labels


def open_images(source: str, shape: tuple[int, int, int]) -> Images:
    """The images of a folder, an .npz file or `builtin:NAME`, each of `shape` (C, H, W).

    Raises UserError where there are none, or the first one is damaged.
    """
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
    """The arrays `images` (N, H, W) or (N, H, W, C) uint8 and, optionally, `labels` (N,) of an .npz, kept in memory."""

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
        self.label_of = {index: label for label, index in enumerate(order)}  # from the index of `datasets`
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
