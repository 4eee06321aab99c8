"""Samples (N, C, H, W) in [-1, 1] become images and grids."""

from diffusers.utils import make_image_grid
from PIL import Image, ImageOps
from torch import Tensor

SMALLEST = 64  # pixels: smaller pictures are magnified in a grid, by whole factors, to be seen
FRAME, FRAME_COLOR = 2, (64, 64, 64)  # pixels around each picture of a grid


def to_images(x_0: Tensor) -> list[Image.Image]:
    """One 8-bit image per sample."""
    pixels = ((x_0.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image) for image in pixels]


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
