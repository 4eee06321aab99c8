"""The one generic reading: watch the stock call of a pipeline, and learn from it how its denoiser is to be called.

Nothing is taken on trust: what was learnt is kept together with reference steps, the samples and model outputs of the
stock call itself, and `training/verify.py` holds the network built from it against them before anything is trained.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from scm_distill.errors import UserError, one_line
from scm_distill.maths.cond import SCALE, with_unconditional
from scm_distill.maths.guidance import GuidanceRule
from scm_distill.teachers import scheduler as schedules
from scm_distill.teachers.convention import Convention, Unclear, at, first_tensor, learn, learn_shared
from scm_distill.teachers.guidance import fit, nfe, split
from scm_distill.teachers.scheduler import Schedule
from scm_distill.teachers.stock_call import TIMES, Modality, StockCall, modality_of, refusal
from scm_distill.teachers.trace import ReferenceStep, Step, Trace

PROMPT, ANOTHER = "a photo of a cat", "a photo of a dog"  # of the same length, in most tokenizers
PROBE_SCALE = 3.0  # of guidance, in the probe
POINTS = 12  # stock steps from which the time map is read


@dataclass
class Reading:
    """What was learnt from a pipeline."""

    stock: StockCall
    convention: Convention
    schedule: Schedule
    rule: GuidanceRule | None
    no_guidance: str  # why there is no rule
    off: float | None  # the scale at which the pipeline calls its denoiser once
    unconditional_first: bool
    reference_steps: list[ReferenceStep] = field(default_factory=list)

    @property
    def modality(self) -> Modality:
        """By the arguments of its call."""
        return modality_of(self.stock.pipeline)


def ids_of(stock: StockCall, n: int = 1) -> list[Any]:
    """Something to drive a probe with."""
    return [PROMPT] * n if stock.driver == "prompt" else [1] * n


def read(stock: StockCall) -> Reading:
    """Probe the pipeline. Raises UserError, naming what is not understood."""
    try:
        return _read(stock)
    except (Unclear, schedules.Unreadable) as error:
        raise refusal(stock.pipeline, str(error)) from error
    except UserError:
        raise
    except Exception as error:  # whatever a pipeline raises that does not like its call
        reason = one_line(error)
        raise refusal(stock.pipeline, f"its stock call fails with {type(error).__name__}: {reason}") from error


def _read(stock: StockCall) -> Reading:
    scheduler = stock.pipeline.scheduler
    kind = schedules.kind_of(scheduler)
    off, plain = _unguided(stock)
    first = plain.steps[0].calls[0]
    x, time = _names(stock)
    two = stock.watch(stock.arguments(ids_of(stock, 2), 2, scale=off), fake=True, steps=1)
    arguments, pair = first.arguments, two.steps[0].calls[0].arguments
    shape = tuple(plain.steps[0].sample.shape[1:])
    convention = learn(arguments, pair, x, time, shape)
    if stock.driver == "prompt":
        other = stock.watch(stock.arguments(["sky"], 2, scale=off), fake=True, steps=1)
        learn_shared(convention, arguments, other.steps[0].calls[0].arguments)
    _learn_output(convention, first.output, plain.steps[0].model_output)
    _learn_scale(convention, stock, arguments)
    if kind == "vp":
        schedule = schedules.discrete(scheduler)
    else:
        taus, sigmas = _time_map(stock, off, time)
        schedule = (schedules.flow if kind == "flow" else schedules.edm)(scheduler, taus, sigmas)
    convention.sign *= schedule.sign
    _check_fractions(convention, stock, plain)
    reading = Reading(stock, convention, schedule, None, "", off, unconditional_first=True)
    reading.reference_steps = [_witness(reading, plain.steps, i, convention.cond(arguments)) for i in range(2)]
    reading.reference_steps.append(_pair(reading))
    _learn_guidance(reading)
    return reading


def _unguided(stock: StockCall) -> tuple[float | None, Trace]:
    """A scale at which the pipeline calls its denoiser once for one sample, and two real steps of that call."""
    for off in (1.0, 0.0) if stock.guided_by else (None,):
        seen = stock.watch(stock.arguments(ids_of(stock), 2, scale=off), steps=2)
        if len(seen.steps) < 2:
            raise schedules.Unreadable(f"two steps of its call are {len(seen.steps)} of its scheduler")
        calls = seen.steps[0].calls
        if len(calls) == 1 and len(next(iter(calls[0].arguments.values()))) == 1:
            return off, seen
    asked = f" with {stock.guided_by} 1 or 0" if stock.guided_by else ""
    raise schedules.Unreadable(f"its call{asked} does not evaluate its denoiser once a step for one sample")


def _names(stock: StockCall) -> tuple[str, str]:
    """The arguments that take the sample, always the first one, and the time."""
    parameters = list(inspect.signature(stock.net.forward).parameters)
    time = next((name for name in TIMES if name in parameters), None)
    if time is None:
        raise Unclear(
            f"its {type(stock.net).__name__} takes no time called {', '.join(TIMES)}, but {', '.join(parameters[:6])}"
        )
    return parameters[0], time


def _learn_output(convention: Convention, output: Any, given: Tensor) -> None:
    """The part of the denoiser's output that the scheduler is given, and its sign."""
    raw, shape = first_tensor(output), given.shape
    if raw.numel() != given.numel():
        if raw.ndim != given.ndim or any(a < b for a, b in zip(raw.shape, shape, strict=True)):
            raise Unclear(f"its denoiser gives {tuple(raw.shape)} where its scheduler is given {tuple(shape)}")
        convention.narrow = tuple(shape[1:])
    found = convention.prediction(output, 1)
    for sign in (1.0, -1.0):
        if torch.allclose(sign * found.float(), given.float(), rtol=1e-5, atol=1e-6):
            convention.sign = sign
            return
    raise Unclear("what its scheduler is given is not its denoiser's output, nor the negative of it")


def _learn_scale(convention: Convention, stock: StockCall, arguments: dict[str, Any]) -> None:
    """Where a denoiser is told the guidance scale, and in which unit."""
    if not stock.embeds_guidance or not isinstance(arguments.get("guidance"), Tensor):
        return
    one, two = (
        float(stock.watch(stock.arguments(ids_of(stock), 2, embedded=w), fake=True, steps=1)
              .steps[0].calls[0].arguments["guidance"].flatten()[0])
        for w in (1.0, 2.0)
    )  # fmt: skip
    if abs(two - 2 * one) > 1e-4 * abs(two) or one == 0:
        raise Unclear(f"its denoiser is told the guidance scale in a way that is not a multiple of it ({one}, {two})")
    unit, dtype = one, arguments["guidance"].dtype
    convention.batched.pop("guidance", None)
    convention.scale_of = ("guidance", lambda w: (unit * w).to(dtype))


def _time_map(stock: StockCall, off: float | None, time: str) -> tuple[list[float], list[float]]:
    """Pairs of the denoiser's time and the scheduler's sigma over a stock call."""
    seen = stock.watch(stock.arguments(ids_of(stock), POINTS, scale=off), fake=True, steps=POINTS)
    pairs = [(float(s.calls[0].arguments[time].flatten()[0]), s.sigma) for s in seen.steps if s.calls]
    known = [(tau, sigma) for tau, sigma in pairs if sigma is not None]
    if len(known) < 2:
        raise schedules.Unreadable("its scheduler keeps no sigmas")
    taus, sigmas = zip(*known, strict=True)
    return list(taus), list(sigmas)


@torch.no_grad()
def _check_fractions(convention: Convention, stock: StockCall, plain: Trace) -> None:
    """The denoiser must take times between those of its stock call, and tell them apart."""
    calls = [step.calls[0] for step in plain.steps]
    call = max(calls, key=lambda c: abs(float(c.arguments[convention.time].flatten()[0])))  # some start at 0
    tau = call.arguments[convention.time].float().flatten()[:1]
    step = 0.5 if abs(float(tau)) > 2 else 5e-4
    x, cond = sample_of(convention, call.arguments), convention.cond(call.arguments)
    values = []
    for shift in (0.0, step, 2 * step):
        try:
            values.append(convention(stock.net, x, tau - shift, with_scale(convention, cond, 1.0)))
        except (RuntimeError, IndexError, TypeError) as error:
            raise Unclear(f"its denoiser takes no fractional time: {str(error).splitlines()[0]}") from error
    if torch.equal(values[0], values[1]) or torch.equal(values[1], values[2]):
        raise Unclear("its denoiser rounds its time to integers, so it has no derivative in time")


def sample_of(convention: Convention, arguments: dict[str, Any], part: slice = slice(0, 1)) -> Tensor:
    """x_nat of one call."""
    x = arguments[convention.x]
    x = torch.stack(x) if isinstance(x, list) else x
    if convention.extra:
        dim = convention.extra[0]
        x = x.narrow(dim, 0, convention.sample_shape[dim - 1])
    return x[part].reshape(-1, *convention.sample_shape)


def with_scale(convention: Convention, cond: dict[str, Tensor], w: float) -> dict[str, Tensor]:
    """`cond` with a guidance scale where the denoiser is told one."""
    if convention.scale_of is None:
        return cond
    return {**cond, SCALE: torch.full((1,), w)}


def _witness(
    reading: Reading, steps: Sequence[Step], i: int, cond: dict[str, Tensor], what: str = "plain"
) -> ReferenceStep:
    """Step i as evidence."""
    stock, convention, schedule = reading.stock, reading.convention, reading.schedule
    step, call = steps[i], steps[i].calls[0]
    if convention.scale_of:
        told = float(at(call.arguments, convention.scale_of[0]).flatten()[0])
        cond = {**cond, SCALE: torch.tensor([told / float(convention.scale_of[1](torch.ones(1)))])}
    tau = float(call.arguments[convention.time].flatten()[0])
    x = sample_of(convention, call.arguments)
    native = schedule.sign * step.model_output[:1].reshape(1, *convention.sample_shape)
    _check_scaling(step, x)
    next_x = times = None
    name, sigma = type(stock.pipeline.scheduler).__name__, _noise(schedule, stock, step.sigma)
    if what == "plain" and i + 1 < len(steps) and name in schedules.FIRST_STEP_IS_DDIM:
        after = steps[i + 1].calls[0].arguments
        next_tau, next_sigma = float(after[convention.time].flatten()[0]), _noise(schedule, stock, steps[i + 1].sigma)
        # DDIM steps to tau - K / steps, whatever comes next: with linspace spacing that is another time.
        if sigma is not None or abs(tau - next_tau - (stock.pipeline.scheduler.config.num_train_timesteps // 2)) < 1:
            next_x = sample_of(convention, after)

        def times(d: float) -> tuple[float, float]:
            return schedule.t_of(tau, sigma, d), schedule.t_of(next_tau, next_sigma, d)

    config = stock.pipeline.scheduler.config
    plainly = what == "plain" and not (config.get("clip_sample") or config.get("thresholding"))
    return ReferenceStep(
        what,
        x,
        lambda d: schedule.t_of(tau, None, d),
        cond,
        native,
        next_x,
        times,
        tau,
        None if sigma is None or schedule.kind == "vp" else lambda d: schedule.t_of(tau, sigma, d),
        step.x_0[:1].reshape(1, *convention.sample_shape) if plainly and step.x_0 is not None else None,
    )


def _pair(reading: Reading) -> ReferenceStep:
    """Two samples of different conditions: how the batch is arranged."""
    stock, convention = reading.stock, reading.convention
    ids = [PROMPT, ANOTHER] if stock.driver == "prompt" else [1, 0]
    step = stock.watch(stock.arguments(ids, 2, scale=reading.off), steps=1).steps[0]
    arguments = step.calls[0].arguments
    reference_step = _witness(reading, [step], 0, convention.cond(arguments), "two samples")
    native = reading.schedule.sign * step.model_output.reshape(2, *convention.sample_shape)
    cond = {name: value.expand(2) if name == SCALE else value for name, value in reference_step.cond.items()}
    return replace(reference_step, x_nat=sample_of(convention, arguments, slice(0, 2)), cond=cond, native=native)


def _noise(schedule: Schedule, stock: StockCall, sigma: float | None) -> float | None:
    """Sigma as noise, whichever way the scheduler counts."""
    inverted = schedule.kind == "flow" and stock.pipeline.scheduler.config.get("invert_sigmas", False)
    return 1 - sigma if inverted and sigma is not None else sigma


def _check_scaling(step: Step, x: Tensor) -> None:
    """The denoiser must be given a multiple of the scheduler's sample."""
    sample = step.sample[:1].reshape(x.shape).double()
    ratio = (x.double() * sample).sum() / sample.square().sum()
    if (x.double() - ratio * sample).abs().max() > 1e-4 * x.abs().max():
        raise Unclear("its denoiser is not given a multiple of the scheduler's sample")


def _learn_guidance(reading: Reading) -> None:
    """The rule by which the pipeline combines its conditional and unconditional predictions, by fitting it."""
    stock, convention = reading.stock, reading.convention
    if convention.scale_of or stock.guided_by is None:
        reading.no_guidance = "the denoiser is told the scale" if convention.scale_of else "its call has none"
        return
    seen = stock.watch(stock.arguments(ids_of(stock), 2, scale=PROBE_SCALE, negative="blurry"), steps=2)
    whole = stock.watch(stock.arguments(ids_of(stock), POINTS, scale=PROBE_SCALE), fake=True, steps=POINTS)
    w = torch.tensor([PROBE_SCALE])
    halves = [split(convention, step) for step in seen.steps]
    if halves[0] is None:
        reading.no_guidance = f"{stock.guided_by} changes nothing that could be read"
        return
    rules = []
    for half, step in zip(halves, seen.steps, strict=True):
        given = reading.schedule.sign * step.model_output[:1].reshape(1, *convention.sample_shape)
        rules.append(None if half is None else fit(half[0][1], half[1][1], given, w))
    if rules[0] is None:
        reading.no_guidance = "its rule is none that is known (u + w (c - u), c + w (c - u), renormalised or not)"
        return
    if rules[0] != rules[1] or len({nfe(convention, step) for step in whole.steps}) != 1:
        reading.no_guidance = "its guidance changes from step to step"
        return
    reading.rule, reading.unconditional_first = rules[0]
    for i, half in enumerate(halves):
        assert half is not None
        (u, _), (c, _) = half if reading.unconditional_first else half[::-1]
        cond = {**with_unconditional(c, u), SCALE: w}
        reading.reference_steps.append(_witness(reading, seen.steps, i, cond, "guided"))
