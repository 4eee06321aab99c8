"""Samples as files: PNG, MP4 or GIF by diffusers, WAV; and the index that says what each of them is."""

import json
import wave
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from diffusers.utils import export_to_gif, export_to_video
from PIL import Image

from scm_distill.data.pictures import frames, is_sound, to_array
from scm_distill.errors import UserError
from scm_distill.export.makers import Facts

INDEX = "index.jsonl"
FORMATS = ("mp4", "gif")


def suffix_of(facts: Facts, form: str | None) -> str:
    """The ending of the files. Raises UserError for a format that is unknown, or cannot be written here."""
    if form is not None and (facts.modality != "video" or form not in FORMATS):
        fix = "Leave --format away." if facts.modality != "video" else f"Choose {' or '.join(FORMATS)}."
        raise UserError(f"No {facts.modality} is written as {form}.", fix)
    if facts.modality != "video":
        return {"image": ".png", "audio": ".wav"}[facts.modality]
    if form != "gif" and not all(map(find_spec, ("imageio", "imageio_ffmpeg"))):
        raise UserError(
            "Clips are written as .mp4 by imageio and ffmpeg, which are not installed.",
            "pip install 'scm-distill[teachers]', or choose --format gif.",
        )
    return f".{form or 'mp4'}"


def save(sample: Any, path: Path, facts: Facts, fps: int | None) -> None:
    """Write `path`, complete or not at all."""
    beside = path.with_name("." + path.name)
    try:
        if isinstance(sample, Image.Image):
            sample.save(beside)
        elif is_sound(sample):
            _wav(sample, beside, facts.rate or 44100)
        elif path.suffix == ".gif":
            export_to_gif(frames(sample), str(beside), fps=fps or facts.fps or 10)
        else:  # ffmpeg wants even sizes, and would scale others to multiples of 16
            export_to_video(frames(sample), str(beside), fps=fps or facts.fps or 10, macro_block_size=2)
        beside.rename(path)
    finally:
        beside.unlink(missing_ok=True)


def _wav(sample: Any, path: Path, rate: int) -> None:
    array = np.atleast_2d(to_array(sample))
    array = array if array.shape[0] <= array.shape[1] else array.T
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(array))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((array.T.clip(-1, 1) * 32767).round().astype("<i2").tobytes())


class Index:
    """index.jsonl of a folder, an object a file; entries of earlier calls stay unless their file is written anew."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.path, self._names, self.begun = folder / INDEX, set(names), False

    def add(self, entry: Mapping[str, Any]) -> None:
        """Note a file that is complete."""
        if not self.begun:
            self.begun = True
            kept = [line for line in self._lines() if json.loads(line)["file"] not in self._names]
            beside = self.path.with_name("." + INDEX)
            beside.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
            beside.rename(self.path)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def check(self) -> None:
        """Raise UserError where there is a file of this name that is none of ours."""
        try:
            for line in self._lines():
                json.loads(line)["file"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.path} is no index of samples.", "Choose another folder with -o.") from error

    def _lines(self) -> list[str]:
        return self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
