"""The stock call of an export, as code that runs without this package."""

import json
from collections.abc import Mapping

from scm_distill.artifacts.export_record import Adapter, Arguments, Facts

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
samples = pipe({arguments})[0]
"""

ADAPTER = """\
import diffusers
import torch

pipe = diffusers.DiffusionPipeline.from_pretrained("{teacher}")
pipe.load_lora_weights("{path}", weight_name="{file}")
pipe.scheduler = diffusers.{scheduler}.from_pretrained("{path}", subfolder="scheduler")
samples = pipe({arguments})[0]
"""

WIDTH = 100  # characters of a call's arguments on one line; longer ones take a line each


def snippet(path: str, call: Arguments, facts: Facts) -> str:
    """Code that loads the export from `path` (a folder or Hub id) and draws the first samples of its gallery.

    `call` are the arguments of the two-step call beside prompt or label.
    """
    if facts.pixels and facts.classes is None:
        return UNCONDITIONAL.format(path=path)
    if facts.pixels:
        return CONDITIONAL.format(path=path, classes=facts.classes, shape=", ".join(map(str, facts.sample_shape)))
    return TRACED.format(path=path, arguments=_arguments(call, facts))


def adapter(path: str, lora: Adapter, facts: Facts) -> str:
    """Code that draws the same sample by the teacher's own pipeline, with the adapter and scheduler in `path`."""
    return ADAPTER.format(
        path=path,
        file=lora.file,
        teacher=facts.hub_id or "path/to/the/teacher",
        scheduler=facts.scheduler,
        arguments=_arguments(lora.call, facts),
    )


def _arguments(call: Mapping[str, object], facts: Facts) -> str:
    """The arguments of a call, as code: prompt or label, then `call`, then a generator."""
    condition = {
        "prompt": [f"prompt={json.dumps(facts.example or 'a photo of a cat', ensure_ascii=False)}"],
        "labels": [f"class_labels=[{facts.example or 0}]"],
        "none": [],
    }[facts.driver]
    arguments = [*condition, *(f"{name}={value!r}" for name, value in call.items()), "generator=torch.manual_seed(0)"]
    line = ", ".join(arguments)
    return line if len(line) <= WIDTH else "\n" + "".join(f"    {argument},\n" for argument in arguments)
