"""From recipe to networks: read the teacher, smooth its time, give the student its output; every change is measured."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scm_distill import config, ranks, teachers
from scm_distill.autodiff.derivatives import tangent_pass
from scm_distill.autodiff.forward_ad import without_tf32
from scm_distill.errors import UserError
from scm_distill.maths.cond import Cond
from scm_distill.maths.guidance import GuidanceRule
from scm_distill.maths.tangent import norm
from scm_distill.models import exact_time, lora, low_pass
from scm_distill.models.network import Network
from scm_distill.progress import Reporter
from scm_distill.teachers.reading import Reading
from scm_distill.training import few_step
from scm_distill.training.batches import probe_batch
from scm_distill.training.verify import AGREE, verify


@dataclass(frozen=True)
class LoadedTeacher:
    """A teacher in TrigFlow form, as a run, a dry run and `inspect` have it.

    `F_teacher` is frozen and shares its weights with `teacher`. `t_max` is where sampling starts, in radians.
    `verified` are the relative differences to the stock pipeline, by what was compared. `doubts` are sentences about
    what makes it a poor teacher.
    """

    teacher: teachers.Teacher
    F_teacher: Network
    t_max: float
    verified: dict[str, float]
    doubts: tuple[str, ...] = ()


def check_packages(recipe: config.Recipe) -> None:
    """Raises UserError where a package that the recipe needs is not installed."""
    if recipe.lora.rank is not None:
        lora.require()


@without_tf32()
def load_teacher(
    recipe: config.Recipe,
    device: torch.device | None = None,
    micro: int | None = None,
    *,
    own_sigma_d: bool = False,
    teacher: teachers.Teacher | None = None,
    report: Reporter | None = None,
) -> LoadedTeacher:
    """Read the recipe's teacher, put it on `device`, and hold it against its stock pipeline. Writes nothing.

    It sees about `micro` samples at a time. With `own_sigma_d` the sigma_data of an EDM teacher takes the place of
    objective.sigma_d. A `teacher` that was read already is not read again. Raises UserError.
    """
    check_packages(recipe)
    source = recipe.teacher
    if teacher is None:
        few_step.refuse(recipe)
    teacher = teacher or teachers.load(
        source.repo, revision=source.revision, allow_pickle=source.allow_pickle, pipeline=source.pipeline,
        config=source.config, call=source.call, variant=source.variant, device=device, report=report,
    )  # fmt: skip
    sigma_d = recipe.objective.sigma_d
    fixed = teacher.reading.schedule.sigma_data if teacher.reading else None
    if fixed is not None and own_sigma_d:
        sigma_d = fixed
    if fixed is not None and fixed != sigma_d:
        raise UserError(
            f"The preconditioning of this EDM teacher has sigma_data {fixed:g}, objective.sigma_d is {sigma_d:g}.",
            f"Set objective.sigma_d={fixed:g}.",
        )
    _check_guidance(recipe, teacher)
    clock = teacher.clock(sigma_d)
    exact = Network(teacher.net, clock, teacher.prediction, sigma_d, call=teacher.convention, rule=teacher.rule)
    exact.eval().requires_grad_(False)
    verified = verify(exact, teacher)
    t_max = clock.t_max  # where the teacher's own clock stays, its last step is where sampling starts
    if reclocks(recipe, teacher):
        t_max = min(math.atan(recipe.sampler.sigma_max / sigma_d), t_max)
    outside = [t for t in recipe.export.t_mid if not clock.t_min < t < t_max]
    if outside:
        raise UserError(
            f"export.t_mid {outside[0]} lies outside the teacher's times, {clock.t_min:.4f} to {t_max:.4f}.",
            "Choose t_mid between them.",
        )
    # An epsilon teacher stays float32: near t_max its rounding is divided by cos t (bf16: 11 % of F on the digits).
    F_teacher = exact.with_autocast(None if teacher.prediction == "epsilon" else autocast_dtype(recipe))
    if micro is not None:
        F_teacher = F_teacher.with_chunk(probe_batch(micro, teacher.sample_shape))
    F_teacher = F_teacher.to(device) if device else F_teacher
    return LoadedTeacher(teacher, F_teacher, t_max, verified, few_step.judge(recipe, teacher, F_teacher, t_max))


def reclocks(recipe: config.Recipe, teacher: teachers.Teacher) -> bool:
    """Whether the student gets a clock of its own. Raises UserError where that is asked for and impossible."""
    if recipe.adapt.reclock is True and not teacher.pixels:
        raise UserError(
            f"A {type(teacher.net).__name__} keeps its teacher's clock: only pixel UNets are re-clocked.",
            "Set adapt.reclock=auto.",
        )
    return teacher.pixels and recipe.adapt.reclock is not False


def _check_guidance(recipe: config.Recipe, teacher: teachers.Teacher) -> None:
    scale, reading = recipe.guidance.scale, teacher.reading
    if scale is None:
        return
    why = "it is unconditional or takes labels only" if reading is None else reading.no_guidance
    told = reading is not None and reading.convention.scale_of is not None
    if teacher.rule is None and not told:
        fix = reading.guidance_fix if reading else "Leave guidance.scale away."
        raise UserError(f"This teacher cannot be guided: {why}.", fix)
    if recipe.guidance.dropout and teacher.rule is None:
        raise UserError("A denoiser that is told the scale has no unconditional half.", "Set guidance.dropout=0.")
    if recipe.guidance.dropout and teacher.in_effect(recipe.guidance) != recipe.guidance:
        raise UserError(
            f"At guidance.scale {scale:g} the teacher's own call does not guide, so there is no unconditional half.",
            "Set guidance.dropout=0, or a higher guidance.scale.",
        )
    if reading is not None and teacher.rule is not None:
        _check_scale(reading, teacher.rule, scale)
    if not isinstance(scale, tuple) or teacher.convention is None:
        return
    net = teacher.family.student(teacher.net)
    wider = teacher.family.guidance_input(net, teacher.convention)
    if wider is None:
        raise UserError(
            f"A {type(teacher.net).__name__} has no input for a range of guidance scales.",
            "Set one guidance.scale; it is baked into the student.",
        )
    if recipe.lora.rank is not None and wider[0] is not net:
        raise UserError(
            f"A {type(net).__name__} is told a range of guidance scales by a layer of its own, which no adapter has.",
            "Set one guidance.scale, or leave lora.rank away.",
        )


def _check_scale(reading: Reading, rule: GuidanceRule, scale: float | tuple[float, float]) -> None:
    """Raises UserError where the teacher's own call at `scale` is not what its rule makes of it."""
    if isinstance(scale, tuple) and rule.turned_off(scale[1]):
        raise UserError(
            f"Of guidance.scale {list(scale)} the teacher's own call guides at none.",
            "Set a higher guidance.scale, or leave it away.",
        )
    for w in scale if isinstance(scale, tuple) else (scale,):
        difference = reading.guidance_difference(w)
        if not difference <= AGREE:
            raise UserError(
                f"At scale {w:g} the teacher's own call does not guide by {rule}: it differs by {difference:.1e}.",
                "Set another guidance.scale.",
            )


def autocast_dtype(recipe: config.Recipe) -> torch.dtype | None:
    """The dtype of the products that train.precision asks for; None is float32."""
    return torch.bfloat16 if recipe.train.precision == "bf16" else None


@without_tf32()
def smooth(loaded: LoadedTeacher, x_t: Tensor, t: Tensor, cond: Cond, recipe: config.Recipe, report: Reporter) -> float:
    """Choose and set the teacher's low-pass; say what it changed. Returns its width in native steps."""
    F, wanted = loaded.F_teacher, recipe.adapt.smooth_time
    if not low_pass.filters(F.net):
        if wanted not in ("auto", 0):
            raise UserError("No time embedding of sinusoids was found to smooth.", "Set adapt.smooth_time=auto.")
        report.say("time smoothing: none, since no layer of this network reads sinusoids of its time")
        return 0.0
    width = low_pass.widest(F, x_t, t, cond, recipe.adapt.tolerance) if wanted == "auto" else wanted
    (width,) = ranks.of_first("choosing the low-pass", width)  # rounding may differ between kinds of GPU
    changed = low_pass.change(F, x_t, t, cond, width)
    before = _derivative_norm(F, x_t, t, cond)
    low_pass.set_width(F.net, width)
    after = _derivative_norm(F, x_t, t, cond)
    report.say(
        f"time smoothing: {width:g} steps change the teacher's F by {changed:.2%}; "
        f"rms of cos t sin t dF/dt {before:.3g} -> {after:.3g}"
    )
    return width


def difference_step(loaded: LoadedTeacher, objective: config.Objective) -> float:
    """Of the central difference, in ln(tan t): flows and EDM networks know any time, so theirs may be short."""
    if objective.difference_step != "auto":
        return objective.difference_step
    return 0.02 if loaded.teacher.alphas_cumprod is not None else 0.002


def _derivative_norm(F: Network, x_t: Tensor, t: Tensor, cond: Cond) -> float:
    """Root-mean-square of cos t sin t dF/dt of a network along its own ODE; nan where it has no forward derivative."""
    with torch.no_grad():
        v = F(x_t / F.sigma_d, t, cond)
    try:
        _, cs_dF = tangent_pass(F, x_t / F.sigma_d, t, cond, v)
    except NotImplementedError:
        return float("nan")
    return float(norm(cs_dF, "rms").square().mean().sqrt())


@without_tf32()
def keep_time_exact(F: Network, recipe: config.Recipe, x_t: Tensor, t: Tensor, cond: Cond, report: Reporter) -> None:
    """Under bf16, see to it that no network rounds its time. Raises UserError where one does all the same."""
    if (dtype := autocast_dtype(recipe)) is None or not low_pass.filters(F.net):
        return
    left = exact_time.exact_time(F, x_t, t, cond, dtype)
    report.say(f"bf16: the sinusoids of the time are off by {left:.1e}")
    if not left <= exact_time.ROUNDED:
        raise UserError(
            f"In bf16 this network rounds its time: its sinusoids are off by {left:.1e}.", "Set train.precision=fp32."
        )
