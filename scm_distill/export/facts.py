"""What an export says about itself in scm_distill.json: all that its card needs, and no path of this machine."""

import importlib.metadata
from pathlib import Path
from typing import Any

import diffusers
import torch

from scm_distill import __version__, builtin
from scm_distill.artifacts import files, layout
from scm_distill.artifacts.export_record import Distance, Facts, Sample, Searched, TeacherCall, Training
from scm_distill.export.schedulers import Grid
from scm_distill.export.self_check import Checked
from scm_distill.teachers import safety
from scm_distill.training.run import Trained


def collect(
    folder: Path,
    trained: Trained,
    best: Grid,
    table: tuple[Distance, ...],
    search: tuple[Searched, ...],
    checked: Checked,
    gallery: tuple[Sample, ...],
) -> Facts:
    """The facts of a run and of its export in `folder`, where its pipeline is written already."""
    teacher, recipe = trained.loaded.teacher, trained.recipe
    reading, source = teacher.reading, recipe.data.source
    index: Any = files.read_json(folder / layout.INDEX)
    return Facts(
        base_model=teacher.name,
        hub_id=teacher.source.hub_id,
        revision=recipe.teacher.revision if teacher.source.hub_id else None,
        license=dict(teacher.source.license),
        pipeline=index["_class_name"],
        scheduler=index["scheduler"][1],
        modality=reading.modality if reading else "image",
        driver=reading.stock.driver if reading else "none" if teacher.classes is None else "labels",
        classes=teacher.classes,
        sample_shape=tuple(teacher.sample_shape),
        pixels=teacher.pixels,
        trained=Training(
            steps=trained.step,
            batch_size=recipe.train.batch_size,
            velocity=recipe.objective.velocity,
            guidance=trained.data.conditioning.guidance.scale,
            teacher_call=_teacher_call(trained),
            data=source if source == "teacher" or builtin.path(source) else "files",
            samples=len(trained.data.samples),
            optimizer=recipe.optimizer.name,
            lr=recipe.optimizer.lr,
            precision=recipe.train.precision,
            seed=recipe.train.seed,
        ),
        sigma_d=trained.student.sigma_d,
        t_max=best.t_max,
        t_mid=best.t_mid,
        prediction_type=trained.student.prediction,
        table=table,
        search=search,
        samples=recipe.export.samples,
        reference=min(recipe.export.samples, len(trained.data.samples)),
        difference=checked.relative,
        versions={
            "scm-distill": __version__,
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            **({"transformers": importlib.metadata.version("transformers")} if reading else {}),
        },
        example=next((s.label if s.prompt is None else s.prompt for s in gallery), None),
        gallery=gallery,
        safety_checker=(index.get(safety.PART) or (None, None))[1],
        doubts=trained.loaded.doubts,
    )


def _teacher_call(trained: Trained) -> TeacherCall:
    """What of `StockCall.arguments` makes the teacher's own call what the student learnt from."""
    reading, scale = trained.loaded.teacher.reading, trained.data.conditioning.evaluation_scale
    if reading is None:
        return TeacherCall()
    negative = trained.recipe.guidance.negative_prompt or " " * reading.stock.needs_negative
    if reading.stock.embeds_guidance:
        return TeacherCall(embedded=scale, negative=negative)
    return TeacherCall(scale=reading.off if scale is None else scale, negative=negative)
