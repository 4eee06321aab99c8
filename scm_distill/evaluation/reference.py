"""Real samples, as a pipeline would return them: 8-bit images, clips and sounds, with no VAE in between.

They come from what data.source of a recipe may name, resized by the rule of the training data: to cover, then a centre
crop.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from scm_distill import builtin
from scm_distill.artifacts.files import sha256_of
from scm_distill.data import media, open_images
from scm_distill.data.pictures import to_images
from scm_distill.errors import UserError

IMAGES = (*media.IMAGES, ".tif", ".tiff")
RULE = "Lanczos to cover, centre crop"


@dataclass(frozen=True)
class Reference:
    """A random subset of a source, in order; `reference[i]` reads sample i as a pipeline would return it."""

    indices: list[int]  # of the samples of the source
    total: int  # samples of the source
    identity: list[object]  # all that the samples depend on, as JSON: modality, shape, files or content, subset
    read: Callable[[int], Any]  # a sample by its index in the source

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Any:
        return self.read(self.indices[i])

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))


def open_reference(
    source: str, modality: str, shape: Sequence[int], *, n: int, seed: int, rate: int | None = None
) -> Reference:
    """`n` random samples of a folder, an .npz or builtin:NAME, or all where there are fewer. Raises UserError.

    `shape` is that of a sample: an image's (C, H, W), a clip's (C, F, H, W), a sound's (C, T) at `rate` Hz. The choice
    depends on `seed` alone.
    """
    path, size = builtin.path(source) or Path(source).expanduser(), tuple(shape)
    if path.suffix == ".npz" and path.is_file():
        if modality != "image":
            raise UserError(f"{source} holds images, and the model makes {modality}.", "Give a folder of such files.")
        total, content, read = _arrays(source, path, size)
    elif path.is_dir():
        total, content, read = _files(path, modality, size, rate or 0)
    else:
        raise UserError(
            f"There are no real samples {source}.", "Give --data a folder of files, an .npz of images, or builtin:NAME."
        )
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    subset = [n, seed] if n < total else []
    return Reference(sorted(order[:n].tolist()), total, [modality, size, rate, RULE, content, subset], read)


def _arrays(source: str, path: Path, size: tuple[int, ...]) -> tuple[int, list[object], Callable[[int], Any]]:
    """How many images an .npz holds, the hash of its content, and a function that reads one by its index."""
    images = open_images(source, (size[0], size[1], size[2]))
    return len(images), [sha256_of(path)], lambda i: to_images(images.__getitems__([i])[0])[0]


def _files(
    folder: Path, modality: str, size: tuple[int, ...], rate: int
) -> tuple[int, list[object], Callable[[int], Any]]:
    """How many files of a modality a folder holds, their names, sizes and times, and a function that reads one."""
    files = media.find(folder, {"image": IMAGES, "video": media.CLIPS, "audio": media.SOUNDS}[modality]).files
    stats: list[object] = [[str(f.relative_to(folder)), f.stat().st_size, f.stat().st_mtime_ns] for f in files]

    def read(i: int) -> Any:
        if modality == "audio":
            return media.sound(files[i], size, rate).numpy()
        if modality == "video":
            return to_images(media.clip(files[i], size).movedim(1, 0))
        return to_images(media.image(files[i], size)[None])[0]

    return len(files), stats, read
