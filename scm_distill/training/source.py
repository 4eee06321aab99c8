"""Where the samples of a run come from, found and checked before anything is drawn or encoded."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from scm_distill import builtin, config
from scm_distill.data import Data, media, open_images
from scm_distill.errors import UserError
from scm_distill.teachers import Teacher
from scm_distill.teachers.latents import LatentMap, latent_map
from scm_distill.teachers.reading import Reading


@dataclass(frozen=True)
class DataSource:
    """The samples of a run before they are drawn or encoded; one of three kinds.

    * Images of a pixel teacher: `images`, whose ids are their class labels; `prompts` and `ids` are empty.
    * Real files of a latent teacher: `files`, to be encoded by `latent_map`; file i has the condition `ids[i]`.
    * Samples that a latent teacher is to draw: sample i has the condition `ids[i]`.

    `prompts` are the distinct prompts, or class labels where the teacher is driven by labels; `ids` (N,) index them.
    """

    prompts: list[str] | list[int]
    ids: Tensor
    images: Data | None = None
    files: list[Path] | None = None
    latent_map: LatentMap | None = None

    def __len__(self) -> int:
        return len(self.images) if self.images is not None else len(self.ids)


def check_paths(recipe: config.Recipe) -> None:
    """Find missing files before a teacher of gigabytes is loaded. Raises UserError."""
    if recipe.data.prompts is not None:
        media.read_prompts(recipe.data.prompts)
    source = recipe.data.source
    if source != "teacher" and not builtin.path(source) and not Path(source).expanduser().exists():
        raise UserError(
            f"There is no {source}.", "Set data.source to teacher, to a folder of files, to an .npz or to builtin:NAME."
        )


def open_source(recipe: config.Recipe, teacher: Teacher) -> DataSource:
    """Open what recipe.data names and check that it fits the teacher; nothing is drawn or encoded. Raises UserError."""
    if teacher.reading is None:
        return _pixel_source(recipe.data, teacher)
    if recipe.data.flip:
        raise UserError("Latents cannot be mirrored.", "Leave data.flip away.")
    if recipe.data.source == "teacher":
        return _drawn_source(recipe.data, teacher.reading, teacher.classes)
    return _encoded_source(recipe.data, teacher.reading, teacher.classes)


def _pixel_source(settings: config.Data, teacher: Teacher) -> DataSource:
    """Images of a pixel teacher, labelled where it is."""
    if settings.source == "teacher":
        raise UserError("A pixel teacher is distilled on images.", "Set data.source to a folder of images or an .npz.")
    channels, height, width = teacher.sample_shape
    images = open_images(settings.source, (channels, height, width))
    if teacher.classes is not None and not 0 < images.classes <= teacher.classes:
        raise UserError(
            f"The teacher knows {teacher.classes} classes, the data {images.classes or 'no'} classes.",
            "Give data.source one sub-folder per class of the teacher.",
        )
    return DataSource([], torch.empty(0, dtype=torch.long), images=images)


def _drawn_source(settings: config.Data, reading: Reading, classes: int | None) -> DataSource:
    """data.samples samples of the teacher itself, its prompts or classes in turn."""
    prompts: list[str] | list[int]
    if reading.stock.driver != "prompt":
        prompts = list(range(min(classes or 1, settings.samples)))
    elif settings.prompts is None:
        raise UserError("This teacher is driven by prompts.", "Set data.prompts to a text file, a prompt a line.")
    else:
        prompts = media.read_prompts(settings.prompts)
    return DataSource(prompts, torch.arange(settings.samples) % len(prompts))


def _encoded_source(settings: config.Data, reading: Reading, classes: int | None) -> DataSource:
    """Real files of the teacher's modality, with captions or classes where it is driven by them."""
    folder = Path(settings.source).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"There is no folder {folder}.", "Set data.source to teacher, or to a folder of captioned files."
        )
    encoder = latent_map(reading)
    found = media.find(folder, _suffixes(reading, encoder.pixels))
    prompts: list[str] | list[int] = list(range(max(1, len(found.classes))))  # of a teacher without conditions
    ids = torch.tensor(found.labels).clamp_min(0)
    if reading.stock.driver == "prompt":
        prompts, ids = _captions(found, folder)
    elif reading.stock.driver == "labels":
        prompts, ids = _labels(found, folder, classes or 0)
    return DataSource(prompts, ids, files=found.files, latent_map=encoder)


def _suffixes(reading: Reading, shape: tuple[int, ...]) -> tuple[str, ...]:
    """The endings of the files that a VAE of input `shape` (1, C, T), (1, C, F, H, W) or (F, C, H, W) encodes."""
    if len(shape) == 3:
        return media.SOUNDS
    if reading.modality == "audio":
        raise UserError("This teacher's VAE encodes spectrograms, not sounds.", "Set data.source=teacher.")
    frames = shape[2] if len(shape) == 5 else shape[0]
    return media.CLIPS if frames > 1 else media.IMAGES


def _captions(found: media.Media, folder: Path) -> tuple[list[str], Tensor]:
    """The distinct captions, sorted, and the index of each file's."""
    if found.captions is None:
        raise UserError(f"The files of {folder} have no captions.", "Write cat.txt beside cat.png, or metadata.jsonl.")
    prompts = sorted(set(found.captions))
    index = {text: i for i, text in enumerate(prompts)}
    return prompts, torch.tensor([index[text] for text in found.captions])


def _labels(found: media.Media, folder: Path, classes: int) -> tuple[list[int], Tensor]:
    """The classes, one a sub-folder, and the class of each file."""
    if not 0 < len(found.classes) <= classes:
        raise UserError(
            f"The teacher knows {classes} classes, {folder} has {len(found.classes)} sub-folders.",
            "Give data.source one sub-folder per class of the teacher.",
        )
    if -1 in found.labels:
        stray = found.files[found.labels.index(-1)]
        raise UserError(f"{stray} lies beside the classes' folders.", "Move it into one of them, or away.")
    return list(range(len(found.classes))), torch.tensor(found.labels)
