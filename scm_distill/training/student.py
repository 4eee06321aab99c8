"""The network that is trained: a copy of the teacher with the output, guidance and adapter that the recipe asks for."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from scm_distill import config
from scm_distill.maths.cond import Cond, on_device
from scm_distill.maths.schedules import native
from scm_distill.models import lora, low_pass
from scm_distill.models.network import Network
from scm_distill.progress import Reporter
from scm_distill.training.networks import LoadedTeacher, autocast_dtype, keep_time_exact
from scm_distill.training.randomness import generator


def shares(recipe: config.Recipe) -> bool:
    """Whether an adapter's frozen weights are the teacher's own: nothing narrows, moves or shares those out."""
    alone = recipe.teacher.dtype == "fp32" and recipe.train.shard == "off" and "teacher" not in recipe.train.offload
    return recipe.lora.rank is not None and alone


def kept_by_adapter(recipe: config.Recipe, prediction: str) -> bool:
    """Whether an adapter is why an output stays: on the digits one of the attention could not turn epsilon into v.

    Frechet distance to its endpoints after 300 to 400 steps, rank 16: epsilon 4.7, v 11.6; every convolution adapted
    too: 4.8 and 1.24. Undistilled 13.2, the whole network as v 1.05.
    """
    return recipe.lora.rank is not None and recipe.adapt.output == "auto" and prediction in ("epsilon", "sample")


def new_student(
    loaded: LoadedTeacher,
    recipe: config.Recipe,
    x_t: Tensor,
    t: Tensor,
    cond: Cond,
    report: Reporter,
    *,
    views: bool = False,
) -> Network:
    """A trainable copy of the (smoothed) teacher, unguided by itself; an epsilon or x_0 output is called v if asked.

    It is where the teacher is. With `views` its parameters are views of the teacher's, to be shared out from, and
    must not be changed before. With lora.rank the copy is frozen, and the adapters in it are trainable. `x_t` (B, ...),
    `t` (B,) and `cond` are a probe.
    """
    teacher, F_teacher = loaded.teacher, loaded.F_teacher
    device = next(F_teacher.parameters()).device
    x_t, t, cond = x_t.to(device), t.to(device), on_device(cond, device)
    kept: dict[int, Any] = {}
    if views or shares(recipe):
        kept = {id(p): nn.Parameter(p.detach(), p.requires_grad) if views else p for p in F_teacher.parameters()}
    net = copy.deepcopy(teacher.family.student(F_teacher.net), kept).float()
    convention = teacher.convention
    prediction = F_teacher.prediction
    # |dF / d raw| where sampling starts: what an error of the raw prediction becomes.
    gain = float(native(prediction, torch.tensor(loaded.t_max), F_teacher.sigma_d).a.abs())
    if prediction in ("epsilon", "sample") and recipe.output == "v_prediction":
        report.say(f"output: {prediction} becomes v; at t_max an error of {prediction} is {gain:.3g} times larger in F")
        prediction = "v_prediction"
    else:
        why = " (an adapter keeps it, unless adapt.output=v_prediction)" if kept_by_adapter(recipe, prediction) else ""
        report.say(f"output: {prediction} stays{why}; at t_max its error is {gain:.3g} times larger in F")
    if isinstance(recipe.guidance.scale, tuple) and convention is not None:
        widths = {module.width for module in low_pass.filters(net)}
        told = teacher.family.guidance_input(low_pass.unprepared(net), convention)
        assert told is not None  # load_teacher has asked
        net, convention = told
        told_scale = Network(
            net, F_teacher.clock, prediction, F_teacher.sigma_d, call=convention, chunk=F_teacher.chunk
        )
        low_pass.prepare(told_scale, x_t, t, cond)
        keep_time_exact(told_scale, recipe, x_t, t, cond, report)
        low_pass.set_width(net, max(widths, default=0.0))
    F = Network(
        net, F_teacher.clock, prediction, F_teacher.sigma_d, autocast_dtype(recipe), convention, chunk=F_teacher.chunk
    )
    settings = recipe.lora
    if settings.rank is None:
        return F.requires_grad_(True)
    g = generator(recipe.train.seed, "adapter")
    lora.inject(net, settings.rank, settings.alpha or settings.rank, settings.targets, g)
    adapted, trained = len(list(lora.adapters(net))), sum(p.numel() for p in net.parameters() if p.requires_grad)
    report.say(f"adapter of rank {settings.rank} in {adapted} layers: {trained:,} parameters are trained")
    return F
