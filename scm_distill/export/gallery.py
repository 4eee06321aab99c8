"""Pictures of an export: its own stock call, run a few times and written beside it."""

import time
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from PIL import Image

from scm_distill.artifacts import layout
from scm_distill.artifacts.export_record import Arguments, Sample
from scm_distill.data.pictures import is_sound, picture
from scm_distill.data.saving import save
from scm_distill.progress import Reporter
from scm_distill.sampling import pixel_student
from scm_distill.sampling.backends import Facts, PipelineBackend, PixelBackend
from scm_distill.teachers import Teacher, safety
from scm_distill.training.run import Trained

OF_PIXELS, OF_LATENTS = 8, 4  # samples; a decoder is slow
TIME_LIMIT = 300.0  # seconds, after which no further sample is begun: on a CPU a clip may take as long
SMALLEST = 128  # pixels along a side: smaller pictures are magnified, by whole factors


@torch.no_grad()
def write(folder: Path, trained: Trained, call: Arguments, report: Reporter) -> tuple[Sample, ...]:
    """Draw `folder`/samples by stock diffusers on the CPU.

    Sample i is drawn from seed i, the way the card's snippet draws it. Empty where the pipeline's call leaves latents.
    """
    teacher = trained.loaded.teacher
    if call.get("output_type") == "latent":
        return ()
    if teacher.reading is None:
        student = pixel_student.load(str(folder))
        pixels = PixelBackend(student.pipeline, student)
        conditions = [None if teacher.classes is None else i % teacher.classes for i in range(OF_PIXELS)]
        facts, samples = pixels.facts, pixels.draw_batch(range(OF_PIXELS), conditions, 2)
        flags = [False] * OF_PIXELS
    else:
        conditions = _spread(teacher, trained.data.prompts)
        facts, samples, flags = _traced(folder, teacher, conditions, call, report)
    (folder / layout.GALLERY).mkdir()
    key = {"prompt": "prompt", "labels": "label", "none": None}[facts.driver]
    written = []
    for seed, (sample, condition, flagged) in enumerate(zip(samples, conditions, flags, strict=False)):
        file, magnified = _save(sample, folder / layout.GALLERY / str(seed), facts)
        drawn_for = ({key: condition} if key else {}) | ({"flagged": True} if flagged else {})
        written.append(Sample(file=f"{layout.GALLERY}/{file}", magnified=magnified, seed=seed, **drawn_for))
    return tuple(written)


def _spread(teacher: Teacher, recorded: list[Any]) -> list[Any]:
    """OF_LATENTS of the recorded prompts or classes, or fewer, evenly spaced; None for each where there are none."""
    assert teacher.reading is not None
    if teacher.reading.stock.driver == "none":
        return [None] * OF_LATENTS
    n = min(OF_LATENTS, len(recorded))
    return [recorded[i * len(recorded) // n] for i in range(n)]


def _traced(
    folder: Path, teacher: Teacher, conditions: list[Any], call: Arguments, report: Reporter
) -> tuple[Facts, list[Any], list[bool]]:
    """What the reloaded pipeline returns for each condition, one call each, as far as TIME_LIMIT allows.

    Also which of it the pipeline's safety checker flagged.
    """
    assert teacher.reading is not None
    if teacher.reading.modality != "audio":
        call = {name: value for name, value in call.items() if name != "output_type"}  # PIL
    backend = PipelineBackend(DiffusionPipeline.from_pretrained(str(folder)), call, 2)
    samples, flags = list[Any](), list[bool]()
    begin = time.monotonic()
    for seed, condition in enumerate(conditions):
        samples.append(backend.draw_one(seed, condition, 2))
        flags += backend.flagged[:1]
        if time.monotonic() - begin > TIME_LIMIT and len(samples) < len(conditions):
            report.say(f"gallery: {len(samples)} of {len(conditions)} samples, since each takes long on the CPU")
            break
    if any(flags):
        report.say(f"gallery: {safety.count_text(flags, 'student')}")
    return backend.facts, samples, flags


def _save(sample: Any, path: Path, facts: Facts) -> tuple[str, int]:
    """Write one sample as .png, .gif or .wav (with a picture of its waveform); its file's name, and its magnification.

    `path` has no ending yet.
    """
    factor = 1
    if isinstance(sample, Image.Image):
        factor = max(1, SMALLEST // min(sample.size))
        sample = sample.resize((sample.width * factor, sample.height * factor), Image.Resampling.NEAREST)
        ending = ".png"
    elif is_sound(sample):
        picture(sample).save(path.with_suffix(".png"))
        ending = ".wav"
    else:
        ending = ".gif"
    save(sample, path.with_suffix(ending), rate=facts.rate, fps=facts.fps)
    return path.name + ending, factor
