"""From recipe to networks: read the teacher, smooth its time, give the student its output; every change is measured."""

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scm_distill import config, teachers
from scm_distill.data import Images, open_images
from scm_distill.errors import UserError
from scm_distill.maths.schedules import DiscreteSchedule
from scm_distill.maths.tangent import norm
from scm_distill.maths.trigflow import diffuse
from scm_distill.models import adapt
from scm_distill.models.student import Cond, Network
from scm_distill.training import derivative
from scm_distill.training.compare import Comparison
from scm_distill.training.draws import Draws, generator
from scm_distill.training.report import Reporter

PROBE = 256  # noised samples on which the teacher's change is measured


@dataclass(frozen=True)
class Parts:
    """What a run is made of, before the student is wrapped for training."""

    teacher: teachers.Teacher
    images: Images
    F_teacher: Network
    t_max: float


def open_parts(recipe: config.Recipe) -> Parts:
    """Read teacher and data and check that they fit. Raises UserError; writes nothing."""
    source, sigma_d = recipe.teacher, recipe.objective.sigma_d
    teacher = teachers.load(source.repo, revision=source.revision, allow_pickle=source.allow_pickle)
    images = open_images(recipe.data.source, teacher.sample_shape)
    if teacher.classes is not None and not 0 < images.classes <= teacher.classes:
        raise UserError(
            f"The teacher knows {teacher.classes} classes, the data {images.classes or 'no'} classes.",
            "Give data.source one sub-folder per class of the teacher.",
        )
    adapt.prepare(teacher.net)
    clock = DiscreteSchedule(teacher.alphas_cumprod, sigma_d)
    # An epsilon teacher stays float32: near t_max its rounding is divided by cos t (bf16: 11 % of F on the digits).
    dtype = None if teacher.prediction == "epsilon" else _autocast(recipe)
    network = Network(teacher.net, clock, teacher.prediction, sigma_d, dtype).eval().requires_grad_(False)
    t_max = clock.t_max  # where the teacher's own clock stays, its last step is where sampling starts
    if recipe.adapt.reclock:
        t_max = min(math.atan(recipe.sampler.sigma_max / sigma_d), t_max)
    outside = [t for t in recipe.export.t_mid if not clock.t_min < t < t_max]
    if outside:
        raise UserError(
            f"export.t_mid {outside[0]} lies outside the teacher's times, {clock.t_min:.4f} to {t_max:.4f}.",
            "Choose t_mid between them.",
        )
    return Parts(teacher, images, network, t_max)


def _autocast(recipe: config.Recipe) -> torch.dtype | None:
    return torch.bfloat16 if recipe.train.precision == "bf16" else None


def draws(recipe: config.Recipe, parts: Parts, rank: int, world: int) -> Draws:
    """How this process's share of every step is drawn. Raises UserError when the batch cannot be shared out."""
    settings, objective = recipe.train, recipe.objective
    micro = settings.micro_batch_size or settings.batch_size // world
    if micro == 0 or settings.batch_size % (world * micro):
        raise UserError(
            f"train.batch_size {settings.batch_size} is no multiple of {world} processes x {micro} images.",
            "Change train.batch_size or train.micro_batch_size.",
        )
    return Draws(
        seed=settings.seed, shape=parts.teacher.sample_shape, batch=settings.batch_size, micro=micro,
        rank=rank, world=world, P_mean=objective.P_mean, P_std=objective.P_std, sigma_d=objective.sigma_d,
        t_min=parts.F_teacher.clock.t_min, t_max=parts.t_max, flip=recipe.data.flip,
    )  # fmt: skip


def comparison(recipe: config.Recipe, parts: Parts, device: torch.device) -> Comparison:
    """The yardstick of the run, from noise that only the seed decides."""
    n, g = recipe.train.evaluate_samples, generator(recipe.train.seed, "evaluate")
    eps = torch.randn(2, n, *parts.teacher.sample_shape, generator=g)
    labels = torch.randint(parts.teacher.classes or 1, (n,), generator=g)
    cond = {k: v.to(device) for k, v in parts.teacher.cond(labels).items()}
    times = (parts.t_max, recipe.export.t_mid[len(recipe.export.t_mid) // 2])
    return Comparison(parts.F_teacher, eps.to(device), cond, times, recipe.sampler.teacher_steps)


def probe(parts: Parts, draws: Draws, device: torch.device) -> tuple[Tensor, Tensor, Cond]:
    """x_t (B, ...), t (B,) on the teacher's own grid, where it was trained, and cond."""
    indices = torch.randint(len(parts.images), (PROBE,), generator=generator(draws.seed, "probe images"))
    x_0, labels = parts.images.__getitems__(indices.tolist())
    whole = replace(draws, batch=PROBE, micro=PROBE, rank=0, world=1)
    z, t, _ = next(whole.step("probe", 0))
    clock = parts.F_teacher.clock
    t = clock.phi[clock.index(t).round().long()]
    x_t = diffuse(x_0, z, t.float()).to(device)
    return x_t, t.to(device), {k: v.to(device) for k, v in parts.teacher.cond(labels).items()}


def smooth(parts: Parts, x_t: Tensor, t: Tensor, cond: Cond, recipe: config.Recipe, report: Reporter) -> float:
    """Choose and set the teacher's low-pass; say what it changed. Returns its width in native steps."""
    F, wanted = parts.F_teacher, recipe.adapt.smooth_time
    width = adapt.widest(F, x_t, t, dict(cond), recipe.adapt.tolerance) if wanted == "auto" else wanted
    changed = adapt.change(F, x_t, t, dict(cond), width)
    before = _derivative_norm(F, x_t, t, cond)
    adapt.set_width(F.net, width)
    after = _derivative_norm(F, x_t, t, cond)
    report.say(
        f"time smoothing: {width:g} native steps change the teacher's F by {changed:.2%}; "
        f"rms of cos t sin t dF/dt {before:.3g} -> {after:.3g}"
    )
    return width


def _derivative_norm(F: Network, x_t: Tensor, t: Tensor, cond: Cond) -> float:
    """Root-mean-square of cos t sin t dF/dt of a network along its own ODE; nan where it has no forward derivative."""
    with torch.no_grad():
        dxdt = F.sigma_d * F(x_t / F.sigma_d, t, cond)
    try:
        _, cs_dF = derivative.exact(F.sigma_d)(F, x_t, dxdt, t, cond)
    except NotImplementedError:
        return float("nan")
    return float(norm(cs_dF, "rms").square().mean().sqrt())


def new_student(parts: Parts, recipe: config.Recipe) -> Network:
    """A trainable copy of the (smoothed) teacher, whose output is called v where the recipe asks for it."""
    F: Any = copy.deepcopy(parts.F_teacher)
    if recipe.adapt.output == "v_prediction":
        F.prediction = "v_prediction"
    F.autocast = _autocast(recipe)
    return F.requires_grad_(True)  # type: ignore[no-any-return]
