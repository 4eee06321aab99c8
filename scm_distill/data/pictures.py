"""Turns samples into images and grids to look at.

A sample is what a pipeline returns for one: a PIL image, the frames of a clip (PIL images, or an array (F, H, W, C) in
[0, 1]), or a sound (T,), (C, T) or (T, C).
"""

from typing import Any

import numpy as np
from diffusers.utils import make_image_grid
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

SMALLEST = 64  # pixels: smaller pictures are magnified in a grid, by whole factors, to be seen
FRAME, FRAME_COLOR = 2, (64, 64, 64)  # pixels around each picture of a grid


def to_images(x_0: Tensor) -> list[Image.Image]:
    """Pixels (N, C, H, W) in [-1, 1], C = 1 or 3, as N 8-bit images."""
    pixels = ((x_0.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image) for image in pixels]


def to_array(sample: Any) -> Any:
    """A tensor of any dtype and device, or an array, as a float64 or uint8 array."""
    array = sample.detach().float().cpu().numpy() if isinstance(sample, Tensor) else np.asarray(sample)
    return array if array.dtype == np.uint8 else array.astype(np.float64)


def frames(sample: Any) -> list[Image.Image]:
    """The frames of a clip as a pipeline returns it: PIL images, or an array (F, H, W, C) in [0, 1]."""
    if isinstance(sample, list):
        return sample
    array = to_array(sample.permute(0, 2, 3, 1) if isinstance(sample, Tensor) else sample)
    pixels = array if array.dtype == np.uint8 else (array.clip(0, 1) * 255).round().astype(np.uint8)
    return [Image.fromarray(frame) for frame in pixels]


def is_sound(sample: Any) -> bool:
    """Whether a pipeline's sample is audio: an array (T,), (C, T) or (T, C)."""
    return not isinstance(sample, Image.Image | list) and sample.ndim <= 2


def sound(sample: Any) -> Any:
    """A pipeline's sound as an array (C, T)."""
    wave = np.atleast_2d(to_array(sample))
    return wave if wave.shape[0] <= wave.shape[1] else wave.T


def picture(sample: Any) -> Image.Image:
    """One picture of what a pipeline returned for one sample: an image, three frames of a clip, a sound's waveform."""
    if isinstance(sample, Image.Image):
        return sample
    if not is_sound(sample):
        shown = frames(sample)
        chosen = [shown[0], shown[len(shown) // 2], shown[-1]]
        sheet: Image.Image = make_image_grid(chosen, rows=1, cols=3)
        return sheet
    wave = to_array(sample)
    wave = wave if wave.ndim == 1 else wave.mean(int(np.argmin(wave.shape)))
    canvas = Image.new("RGB", (256, 64), "white")
    draw, parts = ImageDraw.Draw(canvas), np.array_split(wave, 256)
    loudest = max(float(np.abs(wave).max()), 1e-9)
    for x, part in enumerate(parts):
        if len(part):
            draw.line([(x, 32 - 30 * part.max() / loudest), (x, 32 - 30 * part.min() / loudest)], fill="black")
    return canvas


def grid(images: list[Image.Image], columns: int) -> Image.Image:
    """The images row by row, framed, magnified if they are tiny; an unfinished last row stays black."""
    width, height = images[0].size
    factor = max(1, SMALLEST // min(width, height))
    size = (width * factor, height * factor)
    large = [image.convert("RGB").resize(size, Image.Resampling.NEAREST) for image in images]
    large = [ImageOps.expand(image, FRAME, FRAME_COLOR) for image in large]
    rows = -(-len(large) // columns)
    blank = Image.new("RGB", large[0].size)
    sheet: Image.Image = make_image_grid(large + [blank] * (rows * columns - len(large)), rows=rows, cols=columns)
    return sheet
