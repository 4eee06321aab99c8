"""README.md of an export: what it is, how stock diffusers runs it, and the figures of its own run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from huggingface_hub import ModelCard, ModelCardData

from scm_distill import __version__
from scm_distill.export.check import Checked
from scm_distill.training.loop import Trained

UNCONDITIONAL = """\
import torch
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{path}")
generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
images = pipe(batch_size=4, num_inference_steps=2, generator=generators).images
"""

CONDITIONAL = """\
import torch
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{path}")  # this pipeline takes no labels, its parts do
labels = torch.tensor([0, 1, 2, 3]) % {classes}
generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
x = torch.cat([torch.randn(1, {shape}, generator=g) for g in generators])
pipe.scheduler.set_timesteps(2)
with torch.no_grad():
    for k in pipe.scheduler.timesteps:
        x = pipe.scheduler.step(pipe.unet(x, k, class_labels=labels).sample, k, x, generator=generators).prev_sample
images = pipe.numpy_to_pil((x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy())
"""


TRACED = """\
import torch
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{path}")
samples = pipe({arguments}, generator=torch.manual_seed(0))[0]
"""


def _tag(trained: Trained) -> str | None:
    """The Hub's name of the task, by what the samples are."""
    reading = trained.parts.teacher.reading
    if reading is None or reading.stock.driver != "prompt":
        return "unconditional-image-generation" if reading is None or reading.modality == "image" else None
    return f"text-to-{reading.modality}"


def snippet(trained: Trained, path: str, call: Mapping[str, Any]) -> str:
    """The stock call, as code that runs."""
    teacher = trained.parts.teacher
    if teacher.reading is not None:
        driver = teacher.reading.stock.driver
        first = {"prompt": '"a photo of a cat"', "labels": "class_labels=[1]", "none": "batch_size=4"}[driver]
        arguments = ", ".join([first, *(f"{name}={value!r}" for name, value in call.items())])
        return TRACED.format(path=path, arguments=arguments)
    if teacher.classes is None:
        return UNCONDITIONAL.format(path=path)
    return CONDITIONAL.format(path=path, classes=teacher.classes, shape=", ".join(map(str, teacher.sample_shape)))


def _advice(trained: Trained, call: Mapping[str, Any]) -> str:
    """What a user of the stock call must know."""
    if trained.parts.teacher.reading is None:
        return (
            "`num_inference_steps=2` must be given: the pipeline's own default is refused by the scheduler. One\n"
            "generator per image makes image i independent of the batch. One step works too, at lower quality."
        )
    given = ", ".join(f"`{name}={value!r}`" for name, value in call.items())
    text = f"These arguments must be given as they are: {given}."
    scale = trained.recipe.guidance.scale
    if isinstance(scale, tuple):
        text += f" `guidance_scale` may be chosen from {scale[0]:g} to {scale[1]:g}."
    elif scale is not None:
        text += f" Guidance at scale {scale:g} is baked in"
        text += ": more of it, by `guidance_scale` or a negative prompt, is not what the student was trained for."
    return (
        text
        + "\nMany pipelines draw the second step's noise from the global generator: `generator=torch.manual_seed(s)`, "
        "which is that one,\nmakes a call repeatable, `torch.Generator()` may not."
    )


def write(
    folder: Path,
    trained: Trained,
    facts: dict[str, str],
    table: list[dict[str, float | str | int]],
    checked: Checked,
    call: Mapping[str, Any],
) -> None:
    """Write `folder`/README.md. Nothing in it names a path of this machine."""
    teacher, recipe = trained.parts.teacher, trained.recipe
    inherited: dict[str, Any] = dict(teacher.source.license)
    if teacher.source.hub_id:
        inherited |= {"base_model": teacher.source.hub_id, "base_model_relation": "finetune"}
    data = ModelCardData(
        library_name="diffusers",
        pipeline_tag=_tag(trained),
        tags=["diffusers", "consistency-distillation", "scm", "distillation", "few-step"],
        **inherited,
    )
    rows = "\n".join(f"| {row['sampler']} | {row['evaluations']} | {row['distance']:.4g} |" for row in table)
    space = "pixels" if teacher.pixels else "latents"
    text = f"""---
{data.to_yaml().strip()}
---

# Two-step student of {facts["base_model"]}

Distilled by scm-distill {__version__} with sCM ([Lu & Song 2024](https://arxiv.org/abs/2410.11081)):
{trained.step:,} steps, batch {recipe.train.batch_size}, {recipe.objective.velocity} velocity.
It samples in **two network evaluations**.

```python
{snippet(trained, "path/to/this/folder", call)}```

{_advice(trained, call)}

| sampler | network evaluations | distance to the data |
|---|---|---|
{rows}

Distance: Frechet distance on the means and contrasts of blocks of the {space}, {recipe.export.samples} samples,
no extractor; compare within this table only.
Times: t_max {float(facts["t_max"]):.4f}, t_mid {float(facts["t_mid"]):.4f} (searched: t_mid_search.json),
sigma_d {facts["sigma_d"]}. Stock diffusers reproduced scm-distill's own sampler to {checked.relative:.1e}
(torch {torch.__version__}, diffusers {diffusers.__version__}).
"""
    ModelCard(text).save(folder / "README.md")
