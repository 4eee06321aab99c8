"""Reading pixel pipelines of a UNet2DModel and a discrete VP scheduler: DDPMPipeline, DDIMPipeline and their like.

They are read by their configuration, not by their stock call: it takes no labels, so it cannot drive a
class-conditional one.
"""

import functools
from collections.abc import Mapping
from typing import Any

import torch

from scm_distill.autodiff.torch_private import BatchNorm
from scm_distill.teachers import scheduler
from scm_distill.teachers.families import Family
from scm_distill.teachers.stock_call import DENOISERS, refusal
from scm_distill.teachers.teacher import Source, Teacher


def check_parts(index: Mapping[str, Any], repo: str) -> None:
    """Raises UserError where the model_index.json of the pipeline `repo` names no denoiser and scheduler."""
    kinds = _components(index)
    held = ", ".join(f"{name}: {kind}" for name, kind in kinds.items())
    name = index.get("_class_name", "its pipeline")
    if "scheduler" not in kinds or not set(DENOISERS) & set(kinds):
        raise refusal(repo, f"{name} has no scheduler and denoiser that are known ({held})")


def is_pixel(index: Mapping[str, Any]) -> bool:
    """Whether a pipeline is one of these, by its model_index.json or its loaded `config`."""
    kinds = _components(index)
    return set(kinds) == {"unet", "scheduler"} and kinds["unet"] == "UNet2DModel"


def _components(index: Mapping[str, Any]) -> dict[str, str]:
    """The components that an index names, with the names of their classes; those left empty are not among them."""
    entries = {name: kind for name, kind in index.items() if isinstance(kind, list | tuple) and len(kind) == 2}
    return {name: kind for name, (_, kind) in entries.items() if isinstance(kind, str)}


def read(pipeline: Any, source: Source) -> Teacher:
    """The teacher that a loaded pixel pipeline is. Raises UserError for a network or scheduler that cannot be read."""
    refuse = functools.partial(refusal, source.repo)
    net: Any = pipeline.unet
    try:
        if scheduler.kind_of(pipeline.scheduler) != "vp":
            raise refuse(f"{type(pipeline.scheduler).__name__} is no discrete variance-preserving scheduler")
        schedule = scheduler.discrete(pipeline.scheduler)
    except scheduler.Unreadable as error:
        raise refuse(str(error), error.fix) from error
    if net.config["time_embedding_type"] != "positional":
        raise refuse(f"its time embedding is {net.config['time_embedding_type']!r}, not a sinusoid of the step")
    if net.config["out_channels"] != net.config["in_channels"]:
        raise refuse("it predicts a variance beside the mean")
    if net.config.get("class_embed_type") is not None:
        raise refuse(f"its class embedding is {net.config['class_embed_type']!r}, not a table of classes")
    if any(isinstance(m, BatchNorm) for m in net.modules()):
        raise refuse("it has BatchNorm, whose statistics forward AD would disturb")
    if net.config["in_channels"] not in (1, 3):
        raise refuse(f"its images have {net.config['in_channels']} channels, neither grey nor RGB")
    size = net.config["sample_size"]
    if size is None:
        raise refuse("its config has no sample_size")
    height, width = (size, size) if isinstance(size, int) else size
    net.eval().requires_grad_(False)
    zeros = functools.partial(torch.zeros, 1, device=next(net.parameters()).device)
    labels = None if net.config.get("num_class_embeds") is None else zeros(dtype=torch.long)
    with torch.no_grad():  # what does not fit in its configuration fails now
        net(zeros(net.config["in_channels"], height, width), zeros(), labels)
    return Teacher(
        source=source,
        family=Family(),
        net=net,
        scheduler=pipeline.scheduler,
        prediction=schedule.prediction,
        clock=schedule.clock,
        sample_shape=(net.config["in_channels"], height, width),
        classes=net.config.get("num_class_embeds"),
        alphas_cumprod=schedule.alphas_cumprod,
    )
