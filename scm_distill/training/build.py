"""From recipe to networks: read the teacher, smooth its time, give the student its output; every change is measured."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scm_distill import config, teachers
from scm_distill.data import Data
from scm_distill.errors import UserError
from scm_distill.maths.schedules import native
from scm_distill.maths.tangent import norm
from scm_distill.maths.trigflow import diffuse
from scm_distill.models import adapt, lora
from scm_distill.models.derivatives import Memory, tangent_pass
from scm_distill.models.student import Cond, Network
from scm_distill.training.compare import Comparison
from scm_distill.training.draws import Draws, generator
from scm_distill.training.given import Given, on
from scm_distill.training.report import Reporter
from scm_distill.training.verify import verify

PROBE = 256  # noised samples on which the teacher's change is measured
TINY = 2**14  # entries of a batch that any machine holds: one latent of Stable Diffusion
LATENT_PROBE = 8  # of latents, which are large


@dataclass(frozen=True)
class Parts:
    """What a run is made of, before the student is wrapped for training."""

    teacher: teachers.Teacher
    F_teacher: Network
    t_max: float
    verified: dict[str, float]


def load_teacher(recipe: config.Recipe, device: torch.device | None = None) -> teachers.Teacher:
    """Read the recipe's teacher. Raises UserError."""
    source = recipe.teacher
    return teachers.load(
        source.repo, revision=source.revision, allow_pickle=source.allow_pickle, pipeline=source.pipeline,
        config=source.config, call=source.call, device=device,
    )  # fmt: skip


def check_packages(recipe: config.Recipe) -> None:
    """Raises UserError where a package that the recipe needs is not installed."""
    if recipe.lora.rank is not None:
        lora.require()


def open_parts(recipe: config.Recipe, device: torch.device | None = None) -> Parts:
    """Read the teacher and hold it against its stock pipeline. Raises UserError; writes nothing."""
    check_packages(recipe)
    return assemble(recipe, load_teacher(recipe, device))


def assemble(recipe: config.Recipe, teacher: teachers.Teacher) -> Parts:
    """The teacher in TrigFlow form, held against its stock pipeline. Raises UserError."""
    sigma_d = recipe.objective.sigma_d
    fixed = teacher.reading.schedule.sigma_data if teacher.reading else None
    if fixed is not None and fixed != sigma_d:
        raise UserError(
            f"The preconditioning of this EDM teacher has sigma_data {fixed:g}, objective.sigma_d is {sigma_d:g}.",
            f"Set objective.sigma_d={fixed:g}.",
        )
    _check_guidance(recipe, teacher)
    clock = teacher.clock(sigma_d)
    # An epsilon teacher stays float32: near t_max its rounding is divided by cos t (bf16: 11 % of F on the digits).
    dtype = None if teacher.prediction == "epsilon" else _autocast(recipe)
    network = Network(teacher.net, clock, teacher.prediction, sigma_d, call=teacher.convention, rule=teacher.rule)
    network.eval().requires_grad_(False)
    verified = verify(network, teacher)
    network.autocast = dtype
    t_max = clock.t_max  # where the teacher's own clock stays, its last step is where sampling starts
    if reclocks(recipe, teacher):
        t_max = min(math.atan(recipe.sampler.sigma_max / sigma_d), t_max)
    outside = [t for t in recipe.export.t_mid if not clock.t_min < t < t_max]
    if outside:
        raise UserError(
            f"export.t_mid {outside[0]} lies outside the teacher's times, {clock.t_min:.4f} to {t_max:.4f}.",
            "Choose t_mid between them.",
        )
    return Parts(teacher, network, t_max, verified)


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
        raise UserError(f"This teacher cannot be guided: {why}.", "Leave guidance.scale away.")
    if recipe.guidance.dropout and teacher.rule is None:
        raise UserError("A denoiser that is told the scale has no unconditional half.", "Set guidance.dropout=0.")
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


def _autocast(recipe: config.Recipe) -> torch.dtype | None:
    return torch.bfloat16 if recipe.train.precision == "bf16" else None


def micro_batch(recipe: config.Recipe, world: int) -> int:
    """The samples that a process takes at a time. Raises UserError when the work cannot be shared out."""
    if recipe.train.shard != "off" and world == 1:
        raise UserError(
            f"train.shard={recipe.train.shard} needs several processes, this is one.",
            "Start them with --num-processes N, or set train.shard=off.",
        )
    batch, micro = recipe.train.batch_size, recipe.train.micro_batch_size
    if batch % (world * (micro or 1)):
        images = f" of {micro} images at a time" if micro else ""
        raise UserError(
            f"train.batch_size {batch} cannot be shared by {world} processes{images}.",
            f"Set train.batch_size to a multiple of {world * (micro or 1)}, or --num-processes to another number.",
        )
    return micro or batch // world


def at_once(micro: int, memory: Memory) -> int:
    """The samples that a network without a graph sees at a time; no activations are kept there."""
    return micro if memory == "lean" else 4 * micro


def at_first(micro: int, shape: Sequence[int]) -> int:
    """The samples of `shape` that the teacher sees at a time before memory is planned: more if they are tiny."""
    return max(micro, TINY // math.prod(shape))


def draws(recipe: config.Recipe, parts: Parts, rank: int, world: int) -> Draws:
    """How this process's share of every step is drawn. Raises UserError when the batch cannot be shared out."""
    settings, objective = recipe.train, recipe.objective
    return Draws(
        seed=settings.seed, shape=parts.teacher.sample_shape, batch=settings.batch_size,
        micro=micro_batch(recipe, world),
        rank=rank, world=world, P_mean=objective.P_mean, P_std=objective.P_std, sigma_d=objective.sigma_d,
        t_min=parts.F_teacher.clock.t_min, t_max=parts.t_max, flip=recipe.data.flip,
    )  # fmt: skip


def comparison(recipe: config.Recipe, parts: Parts, given: Given, device: torch.device) -> Comparison:
    """The yardstick of the run, from noise that only the seed decides."""
    n, g = recipe.train.evaluate_samples, generator(recipe.train.seed, "evaluate")
    eps = torch.randn(2, n, *parts.teacher.sample_shape, generator=g)
    cond = on(given.typical(given.some(n, g)), device)
    times = (parts.t_max, recipe.export.t_mid[len(recipe.export.t_mid) // 2])
    return Comparison(parts.F_teacher, eps.to(device), cond, times, recipe.sampler.teacher_steps)


def probe(parts: Parts, data: Data, given: Given, draws: Draws, device: torch.device) -> tuple[Tensor, Tensor, Cond]:
    """x_t (B, ...), t (B,) where the teacher was trained, and cond."""
    n = PROBE if parts.teacher.pixels else LATENT_PROBE  # whatever the number of processes and of micro-batches
    together = torch.arange(len(data)) if data.groups is None else (data.groups == data.groups.mode().values).nonzero()
    indices = torch.randint(len(together), (n,), generator=generator(draws.seed, "probe images"))
    x_0, ids = data.__getitems__(together.flatten()[indices].tolist())
    whole = replace(draws, batch=n, micro=n, rank=0, world=1)
    z, t, _, _ = next(whole.step("probe", 0))
    t = parts.F_teacher.clock.snap(t)
    x_t = diffuse(x_0, z, t.float()).to(device)
    return x_t, t.to(device), on(given.typical(ids), device)


def smooth(parts: Parts, x_t: Tensor, t: Tensor, cond: Cond, recipe: config.Recipe, report: Reporter) -> float:
    """Choose and set the teacher's low-pass; say what it changed. Returns its width in native steps."""
    F, wanted = parts.F_teacher, recipe.adapt.smooth_time
    if not adapt.filters(F.net):
        if wanted not in ("auto", 0):
            raise UserError("No time embedding of sinusoids was found to smooth.", "Set adapt.smooth_time=auto.")
        report.say("time smoothing: none, since no layer of this network reads sinusoids of its time")
        return 0.0
    width = adapt.widest(F, x_t, t, cond, recipe.adapt.tolerance) if wanted == "auto" else wanted
    changed = adapt.change(F, x_t, t, cond, width)
    before = _derivative_norm(F, x_t, t, cond)
    adapt.set_width(F.net, width)
    after = _derivative_norm(F, x_t, t, cond)
    report.say(
        f"time smoothing: {width:g} steps change the teacher's F by {changed:.2%}; "
        f"rms of cos t sin t dF/dt {before:.3g} -> {after:.3g}"
    )
    return width


def difference_step(parts: Parts, objective: config.Objective) -> float:
    """Of the central difference, in ln(tan t): flows and EDM networks know any time, so theirs may be short."""
    if objective.difference_step != "auto":
        return objective.difference_step
    return 0.02 if parts.teacher.alphas_cumprod is not None else 0.002


def _derivative_norm(F: Network, x_t: Tensor, t: Tensor, cond: Cond) -> float:
    """Root-mean-square of cos t sin t dF/dt of a network along its own ODE; nan where it has no forward derivative."""
    with torch.no_grad():
        v = F(x_t / F.sigma_d, t, cond)
    try:
        _, cs_dF = tangent_pass(F, x_t / F.sigma_d, t, cond, v)
    except NotImplementedError:
        return float("nan")
    return float(norm(cs_dF, "rms").square().mean().sqrt())


def keep_time_exact(F: Network, recipe: config.Recipe, x_t: Tensor, t: Tensor, cond: Cond, report: Reporter) -> None:
    """Under bf16, see to it that no network rounds its time. Raises UserError where one does all the same."""
    if (dtype := _autocast(recipe)) is None or not adapt.filters(F.net):
        return
    left = adapt.exact_time(F, x_t, t, cond, dtype)
    report.say(f"bf16: the sinusoids of the time are off by {left:.1e}")
    if left > adapt.ROUNDED:
        raise UserError(
            f"In bf16 this network rounds its time: its sinusoids are off by {left:.1e}.", "Set train.precision=fp32."
        )


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


def new_student(parts: Parts, recipe: config.Recipe, x_t: Tensor, t: Tensor, cond: Cond, report: Reporter) -> Network:
    """A trainable copy of the (smoothed) teacher, unguided by itself; an epsilon or x_0 output is called v if asked.

    With lora.rank the copy is frozen, and the adapters in it are trainable.
    """
    teacher, F_teacher = parts.teacher, parts.F_teacher
    device = next(F_teacher.parameters()).device
    x_t, t, cond = x_t.to(device), t.to(device), on(cond, device)
    kept: dict[int, Any] = {id(p): p for p in F_teacher.parameters() if shares(recipe)}
    net, convention = copy.deepcopy(teacher.family.student(F_teacher.net), kept).float(), teacher.convention
    prediction = F_teacher.prediction
    # |dF / d raw| where sampling starts: what an error of the raw prediction becomes.
    gain = float(native(prediction, torch.tensor(parts.t_max), F_teacher.sigma_d).a.abs())
    if prediction in ("epsilon", "sample") and recipe.output == "v_prediction":
        report.say(f"output: {prediction} becomes v; at t_max an error of {prediction} is {gain:.3g} times larger in F")
        prediction = "v_prediction"
    else:
        why = " (an adapter keeps it, unless adapt.output=v_prediction)" if kept_by_adapter(recipe, prediction) else ""
        report.say(f"output: {prediction} stays{why}; at t_max its error is {gain:.3g} times larger in F")
    if isinstance(recipe.guidance.scale, tuple) and convention is not None:
        widths = {module.width for module in adapt.filters(net)}
        adapt.set_width(net, 0.0)
        told = teacher.family.guidance_input(adapt.fold(net), convention)
        assert told is not None  # open_parts has asked
        net, convention = told
        adapt.prepare(Network(net, F_teacher.clock, prediction, F_teacher.sigma_d, call=convention), x_t, t, cond)
        keep_time_exact(
            Network(net, F_teacher.clock, prediction, F_teacher.sigma_d, call=convention), recipe, x_t, t, cond, report
        )
        adapt.set_width(net, max(widths, default=0.0))
    F = Network(net, F_teacher.clock, prediction, F_teacher.sigma_d, _autocast(recipe), convention)
    F.chunk = F_teacher.chunk
    settings = recipe.lora
    if settings.rank is None:
        return F.requires_grad_(True)
    g = generator(recipe.train.seed, "adapter")
    lora.inject(net, settings.rank, settings.alpha or settings.rank, settings.targets, g)
    adapted, trained = len(list(lora.adapters(net))), sum(p.numel() for p in net.parameters() if p.requires_grad)
    report.say(f"adapter of rank {settings.rank} in {adapted} layers: {trained:,} parameters are trained")
    return F
