"""Real samples of a `data.source`, as a pipeline would return them: 8-bit images, clips, sounds; no VAE in between.

They are resized by the rule of the training data: to cover, then a centre crop.
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
    """A random subset of a source. `found` are the samples of the whole source, `labels` -1 where unknown.

    `identity` is what the samples depend on: names, sizes and times of files, or an array's content; shape and seed.
    """

    indices: list[int]
    labels: list[int]
    found: int
    identity: list[Any]
    read: Callable[[int], Any]

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

    `shape` is that of a sample: an image's (C, H, W), a clip's (C, F, H, W), a sound's (C, T) at `rate` Hz.
    """
    path = builtin.path(source) or Path(source).expanduser()
    size = tuple(shape)
    read: Callable[[int], Any]
    if path.suffix == ".npz" and path.is_file():
        if modality != "image":
            raise UserError(f"{source} holds images, and the model makes {modality}.", "Give a folder of such files.")
        data = open_images(source, (size[0], size[1], size[2]))
        labels = data.__getitems__(range(len(data)))[1].tolist()
        what: list[Any] = [sha256_of(path)]

        def read(i: int) -> Any:
            return to_images(data.__getitems__([i])[0])[0]

    elif path.is_dir():
        kind = {"image": IMAGES, "video": media.CLIPS, "audio": media.SOUNDS}[modality]
        files = media.find(path, kind)
        labels = files.labels
        what = [[str(f.relative_to(path)), f.stat().st_size, f.stat().st_mtime_ns] for f in files.files]

        def read(i: int) -> Any:
            file = files.files[i]
            if modality == "audio":
                return media.sound(file, size, rate or 0).numpy()
            if modality == "video":
                return to_images(media.clip(file, size).movedim(1, 0))
            return to_images(media.image(file, size)[None])[0]

    else:
        raise UserError(
            f"There are no real samples {source}.", "Give --data a folder of files, an .npz of images, or builtin:NAME."
        )
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    indices = sorted(order[:n].tolist())
    subset = [n, seed] if n < len(labels) else []
    identity = [modality, size, rate, RULE, what, subset]
    return Reference(indices, [labels[i] for i in indices], len(labels), identity, read)
