"""What a run trains on: images, for a pixel teacher, or latents on disk, drawn from the teacher or encoded."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from scm_distill import config, ranks, teachers
from scm_distill.artifacts.files import is_tensors, save_tensors
from scm_distill.data import Data, media
from scm_distill.data.pictures import picture, to_images
from scm_distill.errors import UserError
from scm_distill.maths.clocks import spaced
from scm_distill.maths.cond import on_device
from scm_distill.maths.sampling import ode
from scm_distill.models import low_pass
from scm_distill.progress import Reporter
from scm_distill.teachers.latents import Decoder, LatentMap
from scm_distill.training.conditioning import Conditioning
from scm_distill.training.networks import LoadedTeacher
from scm_distill.training.randomness import generator
from scm_distill.training.source import DataSource, open_source

FILE, CONDITIONS = "latents.safetensors", "conditions"  # in the run folder
PREVIEWS, DECODED = 16, 4  # samples of a preview: of pixels, and of latents, whose decoder is slow

FileStat = tuple[str, int, int]  # path, size in bytes, time of the last change in ns


class Latents:
    """The samples of a latents file, a `data.Data`: x_0 (B, ...) and the ids (B,) of their conditions, read on demand.

    `groups` (N,) are the buckets of their conditions: samples of two buckets cannot share a batch. None for one bucket.
    """

    def __init__(self, path: Path, conditions: teachers.Conditions) -> None:
        with safe_open(path, "pt") as file:
            self.ids = file.get_tensor("ids")
        self.path, bucket = path, conditions.bucket[self.ids]
        self.groups = bucket if (bucket != bucket[0]).any() else None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        with safe_open(self.path, "pt") as file:
            x_0 = file.get_slice("x_0")
            return torch.cat([x_0[i : i + 1] for i in indices]), self.ids[list(indices)]


@dataclass(frozen=True)
class TrainingData:
    """The samples of a run and the conditions that their ids stand for."""

    samples: Data
    conditioning: Conditioning
    decode: Decoder | None  # latents to what the pipeline returns; None for pixels, and where its call leaves latents
    prompts: list[str] | list[int]  # of which an id is the index: prompts, or class labels; empty for pixels

    def pictures(self, x_0: Tensor) -> list[Image.Image]:
        """Previews of the first few samples of x_0 (N, ...); none where latents cannot be decoded."""
        if self.conditioning.teacher.pixels:
            return to_images(x_0[:PREVIEWS])
        return [picture(sample) for sample in self.decode(x_0[:DECODED])] if self.decode else []

    def flagged(self) -> list[bool]:
        """Whether each preview since the last call was flagged by the teacher's safety checker, and is black."""
        if self.decode is None:
            return []
        flags = list(self.decode.flagged)
        self.decode.flagged.clear()
        return flags


def prepare(recipe: config.Recipe, loaded: LoadedTeacher, out: Path, report: Reporter) -> TrainingData:
    """The training data of a run in the folder `out`. Raises UserError.

    For a latent teacher the main process records the conditions, and draws or encodes the latents, unless `out` holds
    those of the same teacher, data and settings; the other processes wait, and read them.
    """
    teacher, source = loaded.teacher, open_source(recipe, loaded.teacher)
    reading = teacher.reading
    if reading is None:
        assert source.images is not None
        return TrainingData(source.images, Conditioning(teacher, None, recipe.guidance), None, [])
    guidance = teacher.in_effect(recipe.guidance)
    if guidance != recipe.guidance:
        report.say(f"guidance: off, as it is at scale {recipe.guidance.scale:g} in the teacher's own call")
    guided = teacher.rule is not None and guidance.scale is not None
    variant = [recipe.teacher.variant] if recipe.teacher.variant else []
    identity = json.dumps([teacher.source.repo, recipe.teacher.revision, files_of(teacher.source.repo), *variant])
    with ranks.first("recording the conditions"):
        report.begin("record conditions", len(source.prompts))
        conditions = teachers.record(
            reading, source.prompts, out / CONDITIONS, guided=guided, negative=guidance.negative_prompt,
            identity=identity, progress=report.advance,
        )  # fmt: skip
        report.end()
    conditioning = Conditioning(teacher, conditions, guidance)
    decode = None if reading.stock.extra.get("output_type") == "latent" else Decoder(reading)
    if decode:
        decode.check()
    if decode and (gone := decode.drop_encoders()):
        report.say(f"conditions: {len(conditions)} recorded, {', '.join(gone)} out of memory")
    path, key = out / FILE, _key(recipe, identity, source)
    with ranks.first("drawing or encoding the latents"):
        if path.is_file() and not is_tensors(path):
            report.say(f"{FILE} is damaged: it is made again")
        if not _made_with(path, key):
            if source.latent_map is not None:
                x_0 = _encode(source.latent_map, source.files or [], report)
            else:
                x_0 = _draw(loaded, conditioning, source.ids, recipe, report)
            save_tensors({"x_0": x_0, "ids": source.ids}, path, {"key": key})
    return TrainingData(Latents(path, conditions), conditioning, decode, source.prompts)


def files_of(repo: str) -> list[FileStat]:
    """The files of a local teacher: a changed one in the same place is another teacher. Empty for a Hub id."""
    folder = Path(repo).expanduser()
    return _stats(path for path in sorted(folder.rglob("*")) if path.is_file()) if folder.is_dir() else []


def _stats(files: Iterable[Path]) -> list[FileStat]:
    return [(str(path), stat.st_size, stat.st_mtime_ns) for path in files for stat in (path.stat(),)]


def _key(recipe: config.Recipe, identity: str, source: DataSource) -> str:
    """A hash of all that latents depend on: teacher, data, guidance, sampler, prompts, files and seed."""
    sections = (recipe.teacher, recipe.data, recipe.guidance, recipe.sampler)
    settings = [section.model_dump(mode="json", exclude={"workers"}) for section in sections]
    prompts = [[str(prompt) for prompt in source.prompts], source.ids.tolist()]
    made_with = [identity, *settings, prompts, _stats(source.files or ()), recipe.train.seed]
    return hashlib.sha256(json.dumps(made_with, sort_keys=True, default=str).encode()).hexdigest()


def _made_with(path: Path, key: str) -> bool:
    """Whether there is a latents file at `path` whose metadata carries `key`."""
    if not is_tensors(path):
        return False
    with safe_open(path, "pt") as file:
        return bool((file.metadata() or {}).get("key") == key)


@torch.no_grad()
def _draw(
    loaded: LoadedTeacher, conditioning: Conditioning, ids: Tensor, recipe: config.Recipe, report: Reporter
) -> Tensor:
    """x_0 (N, ...) of the original, guided teacher for the conditions `ids` (N,): endpoints of its ODE.

    Sample i starts from noise that depends on the seed and on i alone. Raises UserError where one is not finite.
    """
    F = loaded.F_teacher
    assert conditioning.conditions is not None
    bucket_of = conditioning.conditions.bucket[ids]
    device = next(F.parameters()).device
    times = spaced(F.clock, loaded.t_max, recipe.sampler.teacher_steps)
    x_0 = torch.empty(len(ids), *loaded.teacher.sample_shape)
    report.begin("draw teacher samples", len(ids))
    done = 0
    for bucket in bucket_of.unique().tolist():
        members = (bucket_of == bucket).nonzero().flatten()
        for rows in members.split(max(1, recipe.train.micro_batch_size or 8)):
            noise = [
                F.sigma_d * torch.randn(loaded.teacher.sample_shape, generator=generator(recipe.train.seed, "draw", i))
                for i in rows.tolist()
            ]
            cond = on_device(conditioning.for_evaluation(ids[rows]), device)
            with low_pass.original(F.net):
                x_0[rows] = ode(lambda x, t, c=cond: F(x, t, c), torch.stack(noise).to(device), times, F.sigma_d).cpu()  # type: ignore[misc]
            done += len(rows)
            report.advance(done)
    report.end()
    if not x_0.isfinite().all():
        raise UserError(
            "The teacher's own samples are not finite.", "Check guidance.scale and train.precision.", code=1
        )
    return x_0


def _encode(latent_map: LatentMap, files: list[Path], report: Reporter) -> Tensor:
    """x_0 (N, ...) of real files, by the encoder of the teacher's VAE. Raises UserError where a file does not fit."""
    report.begin("encode data", len(files))
    latents = []
    for i, file in enumerate(files):
        latents.append(latent_map.encode(_read(file, latent_map).to(latent_map.shift.device)).cpu())
        report.advance(i + 1)
    report.end()
    return torch.cat(latents)


def _read(file: Path, latent_map: LatentMap) -> Tensor:
    """A file as the VAE's input: sound (1, C, T), clip or image (1, C, F, H, W), frames (F, C, H, W), in [-1, 1]."""
    shape = latent_map.pixels
    if len(shape) == 3:
        rate = int(latent_map.vae.config.get("sampling_rate", 44100))
        return media.sound(file, shape[1:], rate)[None]
    if len(shape) == 5 and shape[2] > 1:
        return media.clip(file, shape[1:])[None]
    if len(shape) == 5:
        return media.image(file, (shape[1], *shape[3:]))[None, :, None]
    if shape[0] > 1:
        return media.clip(file, (shape[1], shape[0], *shape[2:])).movedim(1, 0)
    return media.image(file, shape[1:])[None]
