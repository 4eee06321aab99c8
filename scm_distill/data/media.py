"""Finds images, clips and sounds with captions or classes in a folder, and reads them as a teacher's VAE takes them.

A caption lies beside its file (cat.png, cat.txt), or in metadata.jsonl as {"file_name": ..., "text": ...}.
"""

import json
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageSequence
from torch import Tensor

from scm_distill.data.images import to_tensor
from scm_distill.errors import UserError

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
CLIPS = (".gif", ".webp", ".mp4", ".webm", ".mov", ".mkv")
SOUNDS = (".wav",)


@dataclass(frozen=True)
class Media:
    """The files of one kind under a folder, sorted by path."""

    files: list[Path]
    captions: list[str] | None  # of each file; None where none has one
    classes: list[str]  # names of sub-folders, sorted by number where all are numbers
    labels: list[int]  # of each file, the index of its class; -1 for a file in the folder itself


def find(folder: Path, suffixes: tuple[str, ...]) -> Media:
    """The files of a folder and its sub-folders with these endings.

    Raises UserError where there are none, or only some have captions.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    if not files:
        raise UserError(f"{folder} holds no file of {', '.join(suffixes)}.", "Check data.source.")
    listed = _metadata(folder)
    names = [str(file.relative_to(folder)) for file in files]
    texts = [listed[name] if name in listed else _caption(file) for name, file in zip(names, files, strict=True)]
    missing = [file for file, text in zip(files, texts, strict=True) if text is None]
    if missing and len(missing) < len(files):
        raise UserError(f"{missing[0]} has no caption, but others have.", "Write one, or remove the file.")
    classes = sorted({file.parent.name for file in files if file.parent != folder})
    if all(name.isdigit() for name in classes):
        classes.sort(key=int)
    labels = [classes.index(file.parent.name) if file.parent != folder else -1 for file in files]
    return Media(files, None if missing else [text or "" for text in texts], classes, labels)


def _metadata(folder: Path) -> dict[str, str]:
    """The captions in a folder's metadata.jsonl, by relative path; empty without one. Raises UserError."""
    path = folder / "metadata.jsonl"
    if not path.is_file():
        return {}
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if any(not isinstance(row["text"], str) for row in rows):
            raise ValueError("a text that is no string")
        return {row["file_name"]: row["text"] for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read: {error!r}.", 'Each line is {"file_name": "a.png", "text": "a caption"}.'
        ) from error


def _caption(file: Path) -> str | None:
    """The text of the .txt beside a file; None without one. Raises UserError."""
    path = file.with_suffix(".txt")
    try:
        return path.read_text(encoding="utf-8").strip() if path.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The caption {path} cannot be read: {error}.", "Save it as UTF-8.") from error


def read_prompts(source: str) -> list[str]:
    """The lines of a text file that are not empty. Raises UserError where there are none, or it cannot be read."""
    path = Path(source).expanduser()
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"The prompts {source} cannot be read: {error}.", "Give a text file, a prompt a line."
        ) from error
    if not any(lines):
        raise UserError(f"{source} holds no prompts.", "Write one a line.")
    return [line for line in lines if line]


def image(file: Path, shape: tuple[int, ...]) -> Tensor:
    """An image file as `shape` (C, H, W) in [-1, 1]. Raises UserError where it cannot be decoded."""
    try:
        with Image.open(file) as picture:
            return to_tensor(picture, (shape[0], shape[1], shape[2]))
    except Exception as error:  # a damaged file raises one of many kinds
        raise UserError(f"{file} cannot be decoded: {error}.", "Remove or mend it.") from error


def clip(file: Path, shape: tuple[int, ...]) -> Tensor:
    """The first F frames of a clip as `shape` (C, F, H, W) in [-1, 1]. Raises UserError where there are fewer."""
    channels, count, height, width = shape
    try:
        if file.suffix.lower() in (".gif", ".webp"):
            with Image.open(file) as animation:
                frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(animation)]
        else:
            from diffusers.utils import load_video

            frames = load_video(str(file))
    except Exception as error:  # as above
        raise UserError(
            f"{file} cannot be decoded: {error}.", "Remove it; .mp4 needs `pip install imageio[ffmpeg]`."
        ) from error
    if len(frames) < count:
        raise UserError(f"{file} has {len(frames)} frames, and the teacher's clips {count}.", "Remove it.")
    return torch.stack([to_tensor(frame, (channels, height, width)) for frame in frames[:count]], 1)


def sound(file: Path, shape: tuple[int, ...], rate: int) -> Tensor:
    """The beginning of a PCM .wav of `rate` Hz as `shape` (C, T) in [-1, 1].

    Raises UserError where its rate is another, or it is shorter.
    """
    channels, length = shape
    try:
        with wave.open(str(file)) as reader:
            width, own_rate, own_channels = reader.getsampwidth(), reader.getframerate(), reader.getnchannels()
            raw = reader.readframes(length)
            if len(raw) % (width * own_channels):
                raise EOFError("it ends within a sample")
    except Exception as error:  # as above
        raise UserError(f"{file} cannot be decoded: {error}.", "Give PCM .wav files.") from error
    if own_rate != rate or width not in (2, 4):
        raise UserError(
            f"{file} has {own_rate} Hz and {8 * width} bits, and the teacher wants {rate} Hz, 16 or 32 bits.",
            f"Convert it, for example: ffmpeg -i {file.name} -ar {rate} -sample_fmt s16 out.wav",
        )
    integers = np.frombuffer(raw, np.int16 if width == 2 else np.int32).reshape(-1, own_channels)
    samples = integers.T / 2.0 ** (8 * width - 1)
    if samples.shape[1] < length:
        raise UserError(f"{file} lasts {samples.shape[1]} samples, and the teacher's sounds {length}.", "Remove it.")
    fitting = samples[:channels] if own_channels >= channels else samples[:1].repeat(channels, 0)
    return torch.from_numpy(np.ascontiguousarray(fitting, np.float32))
