"""The adapter of a student as the file that stock pipelines load, where the teacher's class can load one.

`pytorch_lora_weights.safetensors` is written by the class's own `save_lora_weights`, and kept only if the teacher's
stock pipeline with it, and with the student's scheduler, gives the student's two steps.
"""

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
from torch import Tensor

from scm_distill.artifacts.export_record import Adapter, Arguments
from scm_distill.artifacts.layout import ADAPTER
from scm_distill.errors import UserError, one_line
from scm_distill.export import self_check
from scm_distill.export.schedulers import Grid
from scm_distill.memory import out_of_memory
from scm_distill.models import lora
from scm_distill.models.network import Network
from scm_distill.progress import Reporter
from scm_distill.teachers import Teacher
from scm_distill.training.randomness import generator
from scm_distill.training.run import Trained

SAME = 1e-5  # largest relative difference between the teacher with the adapter and the merged student, in float32


def write(
    folder: Path, trained: Trained, merged: Network, best: Grid, call: Arguments, report: Reporter
) -> Adapter | None:
    """Add the adapter's file to a student's folder. None where no adapter was trained.

    `merged` is the student with the adapter in its weights, on the CPU. No file is left where the teacher's stock
    pipeline cannot be made the student by one.
    """
    settings, teacher = trained.recipe.lora, trained.loaded.teacher
    if settings.rank is None:
        return None
    weights = lora.pairs(trained.student.net)
    adapter = Adapter(
        rank=settings.rank,
        alpha=settings.alpha or settings.rank,
        targets=settings.targets if isinstance(settings.targets, str) else tuple(settings.targets),
        modules=len(list(lora.adapters(trained.student.net))),
        file=None,
    )
    driven: Arguments = {**call, **_unguided(teacher, call)}
    if (why := _missing(teacher)) is None:
        _save(folder, teacher, weights)
        why, found = _compare(folder, trained, merged, best, driven)
        if why is None:
            report.say(f"adapter: {ADAPTER}; the teacher's stock pipeline with it is the student to {found:.1e}")
            return adapter.model_copy(update={"file": ADAPTER, "call": driven, "difference": found})
        (folder / ADAPTER).unlink()
    report.say(f"adapter: only the merged folder is written, since {why}")
    return adapter.model_copy(update={"why": why})


def _unguided(teacher: Teacher, call: Arguments) -> Arguments:
    """The arguments that turn guidance off in the teacher's own pipeline; the student's folder needs none of them."""
    reading = teacher.reading
    if reading is None or "guidance_scale" in call or reading.stock.guided_by != "guidance_scale":
        return {}
    return {"guidance_scale": reading.off}


def _missing(teacher: Teacher) -> str | None:
    """Why no file can make the teacher's stock pipeline the student; None where one may."""
    if teacher.reading is None:
        return "pixel pipelines load no adapters"
    pipeline, denoiser = type(teacher.reading.stock.pipeline), teacher.reading.stock.denoiser
    save: Any = getattr(pipeline, "save_lora_weights", None)
    if save is None:
        return f"{pipeline.__name__} loads no adapters"
    wanted = {f"{denoiser}_lora_layers", f"{denoiser}_lora_adapter_metadata"}
    if not wanted <= inspect.signature(save).parameters.keys():
        return f"{pipeline.__name__} loads no adapters of its {denoiser}"
    if teacher.scheduler.config.get("invert_sigmas", False):
        return "the student counts its time from the other end"
    return None


def _save(folder: Path, teacher: Teacher, weights: Mapping[str, Tensor]) -> None:
    """Write the file of ADAPTER with diffusers' own metadata, by which every layer has the scale 1, whatever its rank.

    `weights` are {layer.lora_A.weight: (r, in), layer.lora_B.weight: (out, r)}.
    """
    assert teacher.reading is not None
    ending = ".lora_B.weight"
    ranks = {name.removesuffix(ending): value.shape[1] for name, value in weights.items() if name.endswith(ending)}
    usual = max(ranks.values(), key=list(ranks.values()).count)
    others = {f"^{re.escape(name)}": rank for name, rank in ranks.items() if rank != usual}
    metadata = {
        "r": usual,
        "lora_alpha": usual,
        "target_modules": list(ranks),
        "rank_pattern": others,
        "alpha_pattern": others,
    }
    pipeline: Any = type(teacher.reading.stock.pipeline)
    denoiser = teacher.reading.stock.denoiser
    pipeline.save_lora_weights(
        str(folder), **{f"{denoiser}_lora_layers": weights, f"{denoiser}_lora_adapter_metadata": metadata}
    )


def _compare(
    folder: Path, trained: Trained, merged: Network, best: Grid, call: Mapping[str, Any]
) -> tuple[str | None, float]:
    """Why the teacher's stock pipeline with ADAPTER is not the student, if it is not; and their relative difference."""
    teacher, conditioning = trained.loaded.teacher, trained.data.conditioning
    assert teacher.reading is not None
    stock, name = teacher.reading.stock, type(teacher.reading.stock.pipeline).__name__
    kind: Any = getattr(diffusers, str(self_check.saved_scheduler(folder)["_class_name"]))
    pipeline = teacher.source.load(scheduler=kind.from_pretrained(str(folder), subfolder="scheduler"))
    parts = teacher.parts()
    if changed := [n for n, part in pipeline.components.items() if part is not parts.get(n, part)]:
        return f"the student's {name} differs from the teacher's in {', '.join(changed)} too", float("nan")
    ids = conditioning.draw_ids(1, generator(0, "check"))
    driven = stock.arguments(trained.data.prompts[int(ids[0]) :][:1], 2)
    try:
        pipeline.load_lora_weights(str(folder), weight_name=ADAPTER)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:  # what diffusers and peft have for what they lack
        if out_of_memory(error):
            raise
        return f"{name} does not load it: {one_line(error)}", float("nan")
    try:
        found = self_check.compare(
            pipeline,
            merged,
            (best.t_max, best.t_mid),
            conditioning.for_evaluation(ids),
            {**driven, **call},
            stock,
        )
    except UserError as error:
        return f"with the adapter alone the teacher's {name} is no two-step student: {error.problem}", float("nan")
    if not found.relative <= SAME:
        return f"the teacher's {name} with the adapter differs from the student by {found.relative:.1e}", found.relative
    return None, found.relative
