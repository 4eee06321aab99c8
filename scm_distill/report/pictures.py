"""Previews for the page: cut into their samples and put together anew, as data URIs."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from scm_distill.artifacts.files import Damaged, read_picture
from scm_distill.data.pictures import FRAME_COLOR

SMALL, JPEG = 40_000, 88  # bytes up to which a picture stays lossless; quality of the others
GAP = 6  # pixels between two samples


@dataclass(frozen=True)
class Picture:
    """An image of the page; sizes in CSS pixels, which are half of its own."""

    src: str
    alt: str
    width: int
    height: int


def picture(image: Image.Image, alt: str) -> Picture:
    """An image of the page: as PNG, or as JPEG where that would be large. `alt` says what it shows."""
    file = io.BytesIO()
    image.save(file, "PNG")
    kind = "png"
    if file.tell() > SMALL and "A" not in image.getbands() and image.mode != "P":
        file, kind = io.BytesIO(), "jpeg"
        image.convert("RGB").save(file, "JPEG", quality=JPEG)
    data = base64.b64encode(file.getvalue()).decode()
    return Picture(f"data:image/{kind};base64,{data}", alt, image.width // 2, image.height // 2)


@dataclass(frozen=True)
class Preview:
    """The samples that a run kept at a step, one of each noise in each row."""

    step: int
    teacher: list[Image.Image]  # where its ODE ends
    two_steps: list[Image.Image]  # of the student
    one_step: list[Image.Image]


def preview(step: int, path: Path) -> Preview:
    """Cut the picture of a preview (see `data.pictures.grid`) into its samples.

    Raises Damaged where the file holds no picture, or one that is no grid of three rows.
    """
    image = read_picture(path)
    framed = (np.asarray(image) == FRAME_COLOR).all(-1)
    rows, columns = _between(framed.all(1)), _between(framed.all(0))
    if len(rows) != 3 or not columns:
        raise Damaged(path, "is no preview of a run")
    return Preview(step, *([image.crop((left, top, right, bottom)) for left, right in columns] for top, bottom in rows))


def _between(frame: np.ndarray) -> list[tuple[int, int]]:
    """The ranges (start, end) of lines of pixels that are not of the frame; `frame`: whether each line is."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], frame, [True]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def sheet(rows: list[list[Image.Image]], side: int) -> Image.Image:
    """The samples side by side, row by row, each `side` pixels wide; small ones are magnified by a whole factor."""
    width, height = rows[0][0].size
    scale = side // width if width <= side else side / width
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    filter = Image.Resampling.NEAREST if width <= side else Image.Resampling.LANCZOS
    across, down = len(rows[0]), len(rows)
    canvas = Image.new("RGB", (across * (size[0] + GAP) - GAP, down * (size[1] + GAP) - GAP), (128, 128, 128))
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            canvas.paste(image.resize(size, filter), (x * (size[0] + GAP), y * (size[1] + GAP)))
    return canvas


def abreast(image: Image.Image, most: int) -> int:
    """How many samples such as `image` stand side by side: `most` where it is about square, fewer where it is wide."""
    return max(1, round(most / max(1.0, image.width / image.height)))
