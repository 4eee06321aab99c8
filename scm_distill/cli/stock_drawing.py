"""`sample` for everything but pixel UNets: the stock call itself, with the arguments that the export wrote down."""

import inspect
import json
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from scm_distill.cli.folders import claimed
from scm_distill.data.pictures import frames, grid, is_sound, picture, to_array
from scm_distill.errors import UserError
from scm_distill.export.bundle import CALL
from scm_distill.teachers import load_pipeline

OF_THE_STUDENT = (
    "num_inference_steps",
    "guidance_scale",
    "timesteps",
    "sigmas",
)  # arguments that a teacher goes without


def call_of(folder: str) -> dict[str, Any] | None:
    """The arguments of an export's two-step call; None for a pixel UNet, and for what is no export of a denoiser's."""
    try:
        index = DiffusionPipeline.load_config(folder)
    except Exception:  # the reader of pixel UNets says what is wrong
        return None
    if {name for name, kind in index.items() if isinstance(kind, list | tuple) and kind[1]} == {"unet", "scheduler"}:
        return None
    path = Path(folder) / CALL
    if not path.is_file() and not Path(folder).is_dir():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            path = Path(hf_hub_download(folder, CALL))
        except (HfHubHTTPError, LocalEntryNotFoundError):
            path = Path(CALL + " of the Hub")
    try:
        return dict(json.loads(path.read_text())["call"])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder} is no few-step student: it has no {CALL}.", "Give a run folder, or the export folder in it."
        ) from error


def sample(
    folder: str,
    call: dict[str, Any],
    *,
    prompts: list[str],
    classes: list[int],
    n: int,
    seed: int,
    steps: int,
    make_grid: bool,
    compare: str | None,
    out: Path,
) -> dict[str, Any]:
    """Draw `n` samples in turn over the prompts or classes, sample i from seed + i. Raises UserError."""
    pipeline = _open(folder)
    known = inspect.signature(pipeline.__call__).parameters
    key = "prompt" if "prompt" in known else "class_labels" if "class_labels" in known else None
    for given, wanted, name in ((prompts, "prompt", "--prompt"), (classes, "class_labels", "--classes")):
        if given and key != wanted:
            raise UserError(f"{folder} takes no {name.removeprefix('--')}.", f"Leave {name} away.")
    driven_by: list[Any] = prompts or classes
    if key == "class_labels":
        most = int(pipeline.transformer.config.get("num_embeds_ada_norm") or 1000)
        if any(label >= most for label in classes):
            raise UserError(f"The classes of {folder} are 0 to {most - 1}.", "Choose among them.")
    if key and not driven_by:
        raise UserError(
            f"{folder} wants {'a prompt' if key == 'prompt' else 'classes'}.",
            "Give --prompt 'a photo of a cat'." if key == "prompt" else "Give --classes 0-9.",
        )
    if steps < 2 and type(pipeline.scheduler).__name__.startswith("FlowMatch"):
        raise UserError("A flow student samples in two steps or more.", "Two is what it is for.")
    summary: dict[str, Any] = {"folder": str(out)}
    sheets = []
    with claimed(out):
        makers = {"student": (pipeline, {**call, "num_inference_steps": steps})}
        if compare:
            shared = {name: v for name, v in call.items() if name not in OF_THE_STUDENT}
            makers["teacher"] = (_open(compare), shared)
        for who, (maker, arguments) in makers.items():
            samples, ms = [], []
            for i in range(n):
                driven = {key: [driven_by[i % len(driven_by)]]} if key and driven_by else {}
                begin = time.perf_counter()
                samples.append(_one(maker, {**driven, **arguments}, seed + i))
                ms.append(1000 * (time.perf_counter() - begin))
                _save(samples[-1], out / f"seed-{seed + i:05d}{'' if who == 'student' else '-teacher'}", maker)
            count = arguments.get("num_inference_steps", "its default")
            summary[who] = {"steps": count, "ms_per_image": float(np.median(ms))}
            sheets += [picture(sample) for sample in samples]
        if make_grid:
            summary["grid"] = str(out / "grid.png")
            grid(sheets, min(n, 8)).save(out / "grid.png")
    return summary


def _open(folder: str) -> Any:
    pipeline = load_pipeline(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to("cuda" if torch.cuda.is_available() else "cpu")


def _one(pipeline: Any, arguments: dict[str, Any], seed: int) -> Any:
    """One sample; the global generator is used, since many pipelines draw their second noise from it."""
    generator = torch.random.manual_seed(seed)
    if "generator" in inspect.signature(pipeline.__call__).parameters:
        arguments = {**arguments, "generator": generator}
    try:
        return pipeline(**arguments)[0][0]
    except (ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"Stock diffusers refuses this call of {type(pipeline).__name__}: {reason}",
            "Give --steps 2, and to --compare the teacher that the student came from.",
        ) from error


def _save(sample: Any, path: Path, pipeline: Any) -> None:
    """As .png, .gif or .wav."""
    if isinstance(sample, Image.Image):
        sample.save(path.with_suffix(".png"))
    elif is_sound(sample):
        array = np.atleast_2d(to_array(sample))
        array = array if array.shape[0] <= array.shape[1] else array.T
        with wave.open(str(path.with_suffix(".wav")), "wb") as file:
            file.setnchannels(len(array))
            file.setsampwidth(2)
            file.setframerate(_rate(pipeline))
            file.writeframes((array.T.clip(-1, 1) * 32767).round().astype("<i2").tobytes())
    else:
        shown = frames(sample)
        shown[0].save(path.with_suffix(".gif"), save_all=True, append_images=shown[1:], duration=125, loop=0)


def _rate(pipeline: Any) -> int:
    """Samples a second of what an audio pipeline returns."""
    for part, setting in (("vae", "sampling_rate"), ("vocoder", "sampling_rate")):
        config = getattr(getattr(pipeline, part, None), "config", None)
        rate = getattr(config, setting, None)
        if rate:
            return int(rate)
    return 44100
