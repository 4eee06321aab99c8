"""What a run trains on: images, for a pixel teacher, or latents on disk, drawn from the teacher or encoded."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from scm_distill import config, teachers
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
from scm_distill.training.source import DataSource, origin

FILE, CONDITIONS = "latents.safetensors", "conditions"  # in the run folder
PREVIEWS, DECODED = 16, 4  # samples of a preview; a decoder is slow


class Latents:
    """x_0 and ids of a latents file, read row by row; what shares a bucket of conditions may share a batch."""

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
    """The data of a run and its conditions; `prompts` (or classes) are what an id stands for."""

    samples: Data
    conditioning: Conditioning
    decode: Decoder | None  # latents to what the pipeline returns; None for pixels, and where its call leaves latents
    prompts: list[Any]

    def pictures(self, x_0: Tensor) -> list[Image.Image]:
        """The first few samples (N, ...) to be looked at."""
        if self.conditioning.teacher.pixels:
            return to_images(x_0[:PREVIEWS])
        return [picture(sample) for sample in self.decode(x_0[:DECODED])] if self.decode else []


def prepare(
    recipe: config.Recipe, loaded: LoadedTeacher, out: Path, accelerator: Accelerator, report: Reporter
) -> TrainingData:
    """Record the conditions and write the latents that are not on disk yet, on the main process. Raises UserError."""
    teacher, source = loaded.teacher, origin(recipe, loaded.teacher)
    if source.pixels is not None or teacher.reading is None:
        assert source.pixels is not None
        return TrainingData(source.pixels, Conditioning(teacher, None, recipe.guidance), None, [])
    guided = teacher.rule is not None and recipe.guidance.scale is not None
    reading = teacher.reading
    identity = json.dumps([teacher.source.repo, recipe.teacher.revision, _files(teacher.source.repo)])
    with accelerator.main_process_first():
        report.begin("record conditions", len(source.prompts))
        conditions = teachers.record(
            reading, source.prompts, out / CONDITIONS, guided=guided, negative=recipe.guidance.negative_prompt,
            identity=identity, progress=report.advance,
        )  # fmt: skip
        report.end()
    conditioning = Conditioning(teacher, conditions, recipe.guidance)
    decode = None if reading.stock.extra.get("output_type") == "latent" else Decoder(reading)
    if decode and (gone := decode.drop_encoders()):
        report.say(f"conditions: {len(conditions)} recorded, {', '.join(gone)} out of memory")
    path, key = out / FILE, _key(recipe, identity, source)
    with accelerator.main_process_first():
        if not _holds(path, key):
            if source.mapped is not None:
                x_0 = _encode(source.mapped, source.files or [], report)
            else:
                x_0 = _draw(loaded, conditioning, source.ids, recipe, report)
            beside = path.with_suffix(".writing")
            save_file({"x_0": x_0.contiguous().cpu(), "ids": source.ids}, beside, metadata={"key": key})
            beside.rename(path)
    return TrainingData(Latents(path, conditions), conditioning, decode, source.prompts)


def _files(repo: str) -> list[Any]:
    """Names, sizes and times of the files of a local teacher: another one in its place is another teacher."""
    folder = Path(repo).expanduser()
    return _stats(path for path in sorted(folder.rglob("*")) if path.is_file()) if folder.is_dir() else []


def _stats(files: Iterable[Path]) -> list[Any]:
    return [[str(path), stat.st_size, stat.st_mtime_ns] for path in files for stat in (path.stat(),)]


def _key(recipe: config.Recipe, identity: str, source: DataSource) -> str:
    """What latents on disk must have been made with to be used again."""
    made = [
        identity,
        *(
            s.model_dump(mode="json", exclude={"workers"})
            for s in (recipe.teacher, recipe.data, recipe.guidance, recipe.sampler)
        ),
    ]
    prompts = [[str(one) for one in source.prompts], source.ids.tolist()]
    files = _stats(source.files or ())
    return hashlib.sha256(
        json.dumps([*made, prompts, files, recipe.train.seed], sort_keys=True, default=str).encode()
    ).hexdigest()


def _holds(path: Path, key: str) -> bool:
    if not path.is_file():
        return False
    with safe_open(path, "pt") as file:
        return bool((file.metadata() or {}).get("key") == key)


@torch.no_grad()
def _draw(
    loaded: LoadedTeacher, conditioning: Conditioning, ids: Tensor, recipe: config.Recipe, report: Reporter
) -> Tensor:
    """Samples of the original, guided teacher: endpoints of its ODE from seeded noise."""
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


def _encode(mapped: LatentMap, files: list[Path], report: Reporter) -> Tensor:
    """Real files through the family's own latent map."""
    shape, device = mapped.pixels, mapped.shift.device
    report.begin("encode data", len(files))
    rows = []
    for i, file in enumerate(files):
        if len(shape) == 3:
            rate = int(mapped.vae.config.get("sampling_rate", 44100))
            x = media.sound(file, shape[1:], rate)[None]
        elif len(shape) == 5 and shape[2] > 1:
            x = media.clip(file, shape[1:])[None]
        elif len(shape) == 5:
            x = media.image(file, (shape[1], *shape[3:]))[None, :, None]
        elif shape[0] > 1:
            x = media.clip(file, (shape[1], shape[0], *shape[2:])).movedim(1, 0)
        else:
            x = media.image(file, shape[1:])[None]
        rows.append(mapped.encode(x.to(device)).cpu())
        report.advance(i + 1)
    report.end()
    return torch.cat(rows)
