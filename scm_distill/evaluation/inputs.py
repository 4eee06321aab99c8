"""Turns what a pipeline returns for one sample into the input of a feature extractor.

A sample is a PIL image, the frames of a clip (PIL images, or an array (F, H, W, C)), or a sound (T,), (C, T) or (T, C).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from scm_distill.data.pictures import frames, is_sound, sound

ZEROS, ROLLOFF = 24, 0.99  # of the resampling filter: half its width in zero crossings; its cut-off over Nyquist's


def as_tensor(sample: Any) -> Tensor:
    """A sample as a tensor: an image (C, H, W) or a clip (C, F, H, W) in [-1, 1], a sound (C, T)."""
    if isinstance(sample, Image.Image):
        pixels = torch.from_numpy(np.array(sample, dtype=np.float32)).reshape(sample.height, sample.width, -1)
        return pixels.permute(2, 0, 1) / 127.5 - 1
    if is_sound(sample):
        return torch.from_numpy(np.ascontiguousarray(sound(sample))).float()
    return torch.stack([as_tensor(frame) for frame in frames(sample)], 1)


def squared_errors(samples: Iterable[Any], reference: Iterable[Any]) -> Tensor:
    """The mean squared difference of each of N samples from its `reference`, as tensors; (N,), float64."""
    pairs = zip(samples, reference, strict=True)
    return torch.stack([(as_tensor(a).double() - as_tensor(b).double()).square().mean() for a, b in pairs])


@dataclass(frozen=True)
class Resize:
    """An RGB image as a vision model's preprocessor makes it: covers `fit`, centre `crop`, scaled and normalized."""

    fit: tuple[int, int]  # height, width
    crop: tuple[int, int]
    scale: float = 1 / 255
    shift: float = 0.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @property
    def rule(self) -> str:
        """The rule in words, for reports."""
        side = f"shortest side {self.fit[0]}" if self.fit[0] == self.fit[1] else f"to cover {self.fit[0]}x{self.fit[1]}"
        return f"PIL bicubic (antialiased), {side}, centre crop {self.crop[0]}x{self.crop[1]}"

    def __call__(self, image: Image.Image) -> Tensor:
        """The image as (3, H, W), of the height and width of `crop`."""
        image, (height, width) = image.convert("RGB"), self.crop
        ratio = max(self.fit[0] / image.height, self.fit[1] / image.width)
        size = (int(image.width * ratio + 1e-6), int(image.height * ratio + 1e-6))
        if size != image.size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
        pixels = torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1) * self.scale - self.shift
        return (pixels - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.std)[:, None, None]


def resize_of(settings: Mapping[str, Any]) -> Resize:
    """The rule in a preprocessor_config.json of transformers. Raises KeyError or TypeError where it has no size."""
    size = _height_width(settings["size"])
    crop = settings.get("crop_size") if settings.get("do_center_crop", True) else None
    normal = settings.get("do_normalize", True)
    return Resize(
        fit=size,
        crop=_height_width(crop) if crop else size,
        scale=float(settings.get("rescale_factor", 1 / 255)),
        shift=1.0 if settings.get("offset") else 0.0,
        mean=tuple(settings["image_mean"]) if normal else (0.0, 0.0, 0.0),
        std=tuple(settings["image_std"]) if normal else (1.0, 1.0, 1.0),
    )


def _height_width(size: int | Mapping[str, int]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if "shortest_edge" in size:
        return int(size["shortest_edge"]), int(size["shortest_edge"])
    return int(size["height"]), int(size["width"])


def spread(sample: Any, count: int) -> Sequence[Image.Image]:
    """`count` frames of a clip at even places, its first and last among them; some twice where it has fewer."""
    shown = frames(sample)
    return [shown[i] for i in torch.linspace(0, len(shown) - 1, count).round().int().tolist()]


def mono(sample: Any, rate: int, new_rate: int) -> Tensor:
    """A sound of `rate` Hz as one channel (T,) of `new_rate` Hz."""
    return resample(as_tensor(sample).mean(0, keepdim=True), rate, new_rate)[0]


def resample(x: Tensor, old: int, new: int) -> Tensor:
    """Sounds (C, T) from `old` to `new` Hz by sinc interpolation under a Hann window; (C, ceil(T new / old))."""
    common = math.gcd(old, new)
    if old == new:
        return x
    old, new = old // common, new // common
    cutoff = min(old, new) * ROLLOFF
    width = math.ceil(ZEROS * old / cutoff)
    offsets = torch.arange(-width, width + old, dtype=torch.float64) / old  # of the input samples around each output
    t = ((offsets - torch.arange(new, dtype=torch.float64)[:, None] / new) * cutoff).clamp(-ZEROS, ZEROS)
    kernel = torch.sinc(t) * (math.pi * t / (2 * ZEROS)).cos().square() * (cutoff / old)  # (new, offsets)
    padded = functional.pad(x, (width, width + old))
    y = functional.conv1d(padded[:, None], kernel.to(x)[:, None], stride=old)  # (C, new, T / old)
    return y.mT.flatten(1)[:, : math.ceil(x.shape[1] * new / old)]
