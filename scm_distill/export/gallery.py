"""Pictures of an export: its own stock call, run a few times and written beside it."""

import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import export_to_gif
from PIL import Image

from scm_distill.data.pictures import frames, is_sound, picture, to_array
from scm_distill.evaluation import stock
from scm_distill.teachers import Teacher
from scm_distill.training.loop import Trained
from scm_distill.training.report import Reporter

FOLDER = "samples"  # in an export
PIXELS, TRACED = 8, 4  # pictures; a decoder is slow
ENOUGH = 300.0  # seconds, after which no further one is begun: on a CPU a clip may take as long
SMALLEST = 128  # pixels: smaller pictures are magnified, by whole factors
FPS = 8


@torch.no_grad()
def write(folder: Path, trained: Trained, call: dict[str, Any], report: Reporter) -> list[dict[str, Any]]:
    """Draw `folder`/samples by stock diffusers on the CPU; what each file shows: its seed, and its prompt or label.

    Sample i is drawn from seed i, the way the card's snippet draws it. Empty where the pipeline's call leaves latents.
    """
    teacher = trained.parts.teacher
    pipeline: Any = DiffusionPipeline.from_pretrained(str(folder))
    pipeline.set_progress_bar_config(disable=True)
    if teacher.reading is None:
        samples, told = _pixel(pipeline, teacher)
    elif call.get("output_type") == "latent":
        return []
    else:
        samples, told = _traced(pipeline, teacher, trained.prepared.prompts, call, report)
    (folder / FOLDER).mkdir()
    rate = sampling_rate(pipeline)
    return [
        {**_save(sample, folder / FOLDER / str(seed), rate), "seed": seed, **about}
        for seed, (sample, about) in enumerate(zip(samples, told, strict=True))
    ]


def _pixel(pipeline: Any, teacher: Teacher) -> tuple[list[Any], list[dict[str, Any]]]:
    """Images, by the pipeline or, where that takes no labels, by the loop of its parts."""
    generators = [torch.Generator().manual_seed(seed) for seed in range(PIXELS)]
    if teacher.classes is None:
        images = pipeline(batch_size=PIXELS, num_inference_steps=2, generator=generators).images
        return images, [{} for _ in images]
    labels = torch.arange(PIXELS) % teacher.classes
    x = torch.cat([torch.randn(1, *teacher.sample_shape, generator=g) for g in generators])
    x_0 = stock.loop(pipeline.unet, pipeline.scheduler, x, teacher.cond(labels), 2, generators)
    images = pipeline.numpy_to_pil((x_0 / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy())
    return images, [{"label": label} for label in labels.tolist()]


def _traced(
    pipeline: Any, teacher: Teacher, recorded: list[Any], call: dict[str, Any], report: Reporter
) -> tuple[list[Any], list[dict[str, Any]]]:
    """What the pipeline returns for recorded prompts or classes, spread over all of them."""
    reading = teacher.reading
    assert reading is not None
    driver = reading.stock.driver
    n = TRACED if driver == "none" else min(TRACED, len(recorded))
    chosen = [recorded[i * len(recorded) // n] for i in range(n)] if driver != "none" else [0] * n
    samples: list[Any] = []
    begin = time.monotonic()
    with torch.random.fork_rng([]):
        for seed, one in enumerate(chosen):
            arguments = {**reading.stock.arguments([one], 2), **call}
            if reading.modality != "audio":
                arguments.pop("output_type", None)  # PIL
            samples.append(pipeline(**arguments, generator=torch.random.manual_seed(seed))[0][0])
            if time.monotonic() - begin > ENOUGH and len(samples) < n:
                report.say(f"gallery: {len(samples)} of {n} samples, since each takes long on the CPU")
                break
    key = {"prompt": "prompt", "labels": "label", "none": None}[driver]
    return samples, [{key: one} if key else {} for one in chosen[: len(samples)]]


def _save(sample: Any, path: Path, rate: int) -> dict[str, Any]:
    """Write one sample as .png, .gif or .wav (with a picture of its waveform)."""
    if isinstance(sample, Image.Image):
        factor = max(1, SMALLEST // min(sample.size))
        size = (sample.width * factor, sample.height * factor)
        sample.resize(size, Image.Resampling.NEAREST).save(path.with_suffix(".png"))
        return {"file": f"{FOLDER}/{path.name}.png", "magnified": factor}
    if not is_sound(sample):
        export_to_gif(frames(sample), str(path.with_suffix(".gif")), fps=FPS)
        return {"file": f"{FOLDER}/{path.name}.gif"}
    picture(sample).save(path.with_suffix(".png"))
    array = np.atleast_2d(to_array(sample))
    array = array if array.shape[0] <= array.shape[1] else array.T
    with wave.open(str(path.with_suffix(".wav")), "wb") as file:
        file.setnchannels(len(array))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((array.T.clip(-1, 1) * 32767).round().astype("<i2").tobytes())
    return {"file": f"{FOLDER}/{path.name}.wav"}


def sampling_rate(pipeline: Any) -> int:
    """Samples a second of what an audio pipeline returns."""
    for part in ("vae", "vocoder"):
        if rate := getattr(getattr(getattr(pipeline, part, None), "config", None), "sampling_rate", None):
            return int(rate)
    return 44100
