"""Samples as files: PNG, GIF and MP4 by diffusers, WAV by the standard library."""

import wave
from pathlib import Path
from typing import Any

from diffusers.utils import export_to_gif, export_to_video
from PIL import Image

from scm_distill.artifacts.files import atomically
from scm_distill.data.pictures import frames, is_sound, sound


def save(sample: Any, path: Path, *, rate: int | None, fps: int | None) -> None:
    """Write what a pipeline returned for one sample to `path`, complete or not at all; its ending says how.

    `rate` are the samples a second of a sound (44100), `fps` the frames a second of a clip (10).
    """
    with atomically(path) as beside:
        if isinstance(sample, Image.Image):
            sample.save(beside)
        elif is_sound(sample):
            _wav(sample, beside, rate or 44100)
        elif path.suffix == ".gif":
            export_to_gif(frames(sample), str(beside), fps=fps or 10)
        else:  # ffmpeg wants even sizes, and would scale others to multiples of 16
            export_to_video(frames(sample), str(beside), fps=fps or 10, macro_block_size=2)


def _wav(sample: Any, path: Path, rate: int) -> None:
    array = sound(sample)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(array))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((array.T.clip(-1, 1) * 32767).round().astype("<i2").tobytes())
