"""Where the samples of a run come from, found and checked before anything is drawn or encoded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scm_distill import builtin, config
from scm_distill.data import Data, media, open_images
from scm_distill.errors import UserError
from scm_distill.teachers import Teacher
from scm_distill.teachers.latents import LatentMap, latent_map


@dataclass(frozen=True)
class DataSource:
    """Where samples come from: `prompts` are the prompts or classes, `ids` (N,) says which one each sample has.

    `pixels` is set where they are images of a pixel teacher, `files` and `mapped` where they are to be encoded.
    """

    prompts: list[Any]
    ids: Tensor
    pixels: Data | None = None
    files: list[Path] | None = None
    mapped: LatentMap | None = None

    def __len__(self) -> int:
        return len(self.pixels) if self.pixels is not None else len(self.ids)


def check_paths(recipe: config.Recipe) -> None:
    """Find missing files before a teacher of gigabytes is loaded. Raises UserError."""
    if recipe.data.prompts is not None:
        media.read_prompts(recipe.data.prompts)
    source = recipe.data.source
    if source != "teacher" and not builtin.path(source) and not Path(source).expanduser().exists():
        raise UserError(
            f"There is no {source}.", "Set data.source to teacher, to a folder of files, to an .npz or to builtin:NAME."
        )


def origin(recipe: config.Recipe, teacher: Teacher) -> DataSource:
    """Open what recipe.data names, and check that it fits the teacher. Raises UserError; draws and encodes nothing."""
    if teacher.reading is None:
        return _pixels(recipe, teacher)
    if recipe.data.flip:
        raise UserError("Latents cannot be mirrored.", "Leave data.flip away.")
    driver = teacher.reading.stock.driver
    if recipe.data.source == "teacher":
        n = recipe.data.samples
        if driver == "prompt":
            if recipe.data.prompts is None:
                raise UserError(
                    "This teacher is driven by prompts.", "Set data.prompts to a text file, a prompt a line."
                )
            prompts: list[Any] = media.read_prompts(recipe.data.prompts)
        else:
            prompts = list(range(min(teacher.classes or 1, n)))
        return DataSource(prompts, torch.arange(n) % len(prompts))
    folder = Path(recipe.data.source).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"There is no folder {folder}.", "Set data.source to teacher, or to a folder of captioned files."
        )
    mapped = latent_map(teacher.reading)
    pixels = mapped.pixels
    if teacher.reading.modality == "audio" and len(pixels) != 3:
        raise UserError("This teacher's VAE encodes spectrograms, not sounds.", "Set data.source=teacher.")
    frames = pixels[2] if len(pixels) == 5 else pixels[0]
    kind = media.SOUNDS if len(pixels) == 3 else media.CLIPS if frames > 1 else media.IMAGES
    found = media.find(folder, kind)
    if driver == "prompt":
        if found.captions is None:
            raise UserError(
                f"The files of {folder} have no captions.", "Write cat.txt beside cat.png, or metadata.jsonl."
            )
        prompts = sorted(set(found.captions))
        index = {text: i for i, text in enumerate(prompts)}
        return DataSource(
            prompts, torch.tensor([index[text] for text in found.captions]), files=found.files, mapped=mapped
        )
    if driver == "labels" and (not found.classes or len(found.classes) > (teacher.classes or 0)):
        raise UserError(
            f"The teacher knows {teacher.classes} classes, {folder} has {len(found.classes)} sub-folders.",
            "Give data.source one sub-folder per class of the teacher.",
        )
    if driver == "labels" and -1 in found.labels:
        stray = found.files[found.labels.index(-1)]
        raise UserError(f"{stray} lies beside the classes' folders.", "Move it into one of them, or away.")
    prompts = list(range(max(1, len(found.classes))))
    return DataSource(prompts, torch.tensor(found.labels).clamp_min(0), files=found.files, mapped=mapped)


def _pixels(recipe: config.Recipe, teacher: Teacher) -> DataSource:
    if recipe.data.source == "teacher":
        raise UserError("A pixel teacher is distilled on images.", "Set data.source to a folder of images or an .npz.")
    channels, height, width = teacher.sample_shape
    images = open_images(recipe.data.source, (channels, height, width))
    if teacher.classes is not None and not 0 < images.classes <= teacher.classes:
        raise UserError(
            f"The teacher knows {teacher.classes} classes, the data {images.classes or 'no'} classes.",
            "Give data.source one sub-folder per class of the teacher.",
        )
    return DataSource([], torch.empty(0, dtype=torch.long), pixels=images)
