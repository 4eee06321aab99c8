"""The generic reading of a pipeline: record its stock call, and learn from it how its denoiser is called.

What was learnt is kept with reference steps, the inputs and outputs of steps of the stock call itself, and
`training/verify.py` compares the network that is built from it with them before anything is trained.
"""

import inspect
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from scm_distill.artifacts.export_record import Modality
from scm_distill.errors import UserError
from scm_distill.maths.cond import SCALE, with_unconditional
from scm_distill.maths.guidance import GuidanceRule
from scm_distill.memory import out_of_memory
from scm_distill.teachers import conversion, failures, guidance, told_scale, witness
from scm_distill.teachers import scheduler as schedules
from scm_distill.teachers.convention import (
    Convention,
    Unclear,
    first_tensor,
    learn,
    learn_optional,
    learn_shared,
    learn_times,
)
from scm_distill.teachers.guidance import ANOTHER, PROMPT, ids_of, unguided
from scm_distill.teachers.reference_steps import Recorder, ReferenceStep, with_scale
from scm_distill.teachers.scheduler import Schedule
from scm_distill.teachers.stock_call import TIMES, StockCall, modality_of, refusal
from scm_distill.teachers.trace import Call, Trace

POINTS = 12  # stock steps from which the time map is read
CONVERTED = 100  # stock steps from which a conversion of the output is read: small times are clipped in it


USUAL = (1.0, 0.5)  # sigmas of two steps


@dataclass
class Reading:
    """How a pipeline works: its stock call, the calling convention, schedule and guidance of its denoiser."""

    stock: StockCall
    convention: Convention
    schedule: Schedule
    rule: GuidanceRule | None
    no_guidance: str  # why there is no rule
    off: float | None  # the guidance scale at which the pipeline calls its denoiser once, None without guidance
    unconditional_first: bool  # whether the unconditional half of a guided step comes first
    guidance_fix: str = ""  # what to do where there is no rule
    own_sigmas: tuple[float, float] = USUAL  # of a two-step call under a flow scheduler that shifts none
    reference_steps: list[ReferenceStep] = field(default_factory=list)

    @property
    def modality(self) -> Modality:
        """The kind of the pipeline's samples."""
        return modality_of(self.stock.pipeline)

    def guidance_difference(self, w: float) -> float:
        """How far the stock call at scale `w` is from the rule, relative, with a stand-in for the denoiser."""
        assert self.rule is not None
        return guidance.difference_at(self.stock, self.convention, self.rule, self.schedule.sign, w)


def read(stock: StockCall) -> Reading:
    """Read a pipeline by probing its stock call. Raises UserError, which says what was not understood."""
    try:
        return _read(stock)
    except Unclear as error:
        raise refusal(stock.pipeline, str(error)) from error
    except schedules.Unreadable as error:
        raise refusal(stock.pipeline, str(error), error.fix) from error
    except UserError:
        raise
    except Exception as error:  # whatever a pipeline raises that does not like its call
        if out_of_memory(error):
            raise
        name = type(stock.pipeline).__name__
        raise UserError(f"{name} cannot be read: {_failed(stock, error)}.", failures.SETTINGS) from error


def _failed(stock: StockCall, error: Exception) -> str:
    """An exception while the stock call was watched, as a clause: where it came from, and why."""
    if not failures.by_a_library(error):
        return f"what its stock call shows is not understood ({failures.reason_of(error)})"
    return f"its stock call fails with {failures.cause(error, stock.pipeline.components)}"


def _read(stock: StockCall) -> Reading:
    """As `read`. Raises Unclear, Unreadable, and whatever the pipeline raises."""
    scheduler = stock.pipeline.scheduler
    kind = schedules.kind_of(scheduler)
    discrete = schedules.discrete(scheduler) if kind == "vp" else None
    off, plain = _first_calls(stock, witness.stand_in(scheduler, kind, discrete))
    _check_finite(plain)
    first = plain.steps[0].calls[0]
    x, time = _names(stock)
    two = stock.watch(stock.arguments(ids_of(stock, 2), 2, scale=off), fake=True, steps=1)
    arguments, pair = first.arguments, two.steps[0].calls[0].arguments
    shape = tuple(plain.steps[0].sample.shape[1:])
    convention = learn(arguments, pair, x, time, shape)
    learn_times(convention, arguments, plain.steps[1].calls[0].arguments)
    if stock.driver == "prompt":
        if (unequal := _unequal(stock, off)) is not None:
            learn_optional(convention, arguments, unequal.steps[0].calls[0].arguments)
        other = stock.watch(stock.arguments(["sky"], 2, scale=off), fake=True, steps=1)
        learn_shared(convention, arguments, other.steps[0].calls[0].arguments)
    _learn_output(convention, first, plain.steps[0].model_output)
    if not convention.sign:
        _learn_conversion(convention, stock, off)
    told_scale.learn(convention, stock, arguments)
    if discrete is not None:
        schedule = discrete
    else:
        taus, sigmas = _time_map(stock, off, time)
        schedule = (schedules.flow if kind == "flow" else schedules.edm)(scheduler, taus, sigmas)
    convention.sign *= schedule.sign
    _check_noise(convention.sample(arguments))
    _check_fractions(convention, stock, plain)
    reading = Reading(stock, convention, schedule, None, "", off, unconditional_first=True)
    recorder = Recorder(stock, convention, schedule, off)
    reading.reference_steps = [recorder.step(plain.steps, i, convention.cond(arguments)) for i in range(2)]
    ids = [PROMPT, ANOTHER] if stock.driver == "prompt" else [1, 0]
    pairs: list[Any] = [[one] for one in ids] if stock.alone else [ids]
    two_samples = [stock.watch(stock.arguments(pair, 2, scale=off), steps=1).steps[0] for pair in pairs]
    reading.reference_steps.append(recorder.pair(two_samples))
    if kind == "flow":
        reading.own_sigmas = _own_sigmas(stock, off)
    if convention.scale_of is not None and convention.scale_of[0] == told_scale.EMBEDDED:  # and at another scale
        told = stock.watch(stock.arguments(ids_of(stock), 2, scale=guidance.PROBE_SCALE), steps=1).steps
        cond = convention.cond(told[0].calls[0].arguments)
        reading.reference_steps.append(replace(recorder, off=guidance.PROBE_SCALE).step(told, 0, cond, "guided"))
    _learn_guidance(reading, recorder)
    return reading


def _own_sigmas(stock: StockCall, off: float | None) -> tuple[float, float]:
    """The sigmas of a two-step call under a scheduler that shifts none: 1 and 0.5, or what the pipeline brings."""
    before, stock.stand_in = stock.stand_in, witness.unshifted(stock.pipeline.scheduler)
    try:
        steps = stock.watch(stock.arguments(ids_of(stock), 2, scale=off), fake=True, steps=2).steps
        first, second = (step.sigma for step in steps)
    except Exception as error:  # whatever a pipeline raises that wants a scheduler of another class
        if out_of_memory(error):
            raise
        return USUAL
    finally:
        stock.stand_in = before
    return (first, second) if first is not None and second is not None and first > second else USUAL


def _unequal(stock: StockCall, off: float | None) -> Trace | None:
    """A step of a call for two prompts of unequal lengths; None where the call takes no two such prompts."""
    if stock.alone:
        return None
    try:
        return stock.watch(stock.arguments([PROMPT, "sky"], 2, scale=off), fake=True, steps=1)
    except (ValueError, RuntimeError, TypeError, IndexError) as error:
        if out_of_memory(error):
            raise
        return None


def _first_calls(stock: StockCall, stand_in: Any) -> tuple[float | None, Trace]:
    """As `unguided`, under the scheduler `stand_in`, or under the pipeline's own where its call refuses that."""
    if stand_in is stock.pipeline.scheduler:
        return unguided(stock)
    stock.stand_in = stand_in
    try:
        return unguided(stock)
    except Exception as error:  # whatever a pipeline raises that wants a scheduler of another class
        if out_of_memory(error) or isinstance(error, schedules.Unreadable | UserError):
            raise
    stock.stand_in = None
    return unguided(stock)


def _check_finite(trace: Trace) -> None:
    """Raises Unclear where a call gives its scheduler NaN or infinity."""
    if not all(step.model_output.isfinite().all() for step in trace.steps):
        raise Unclear("its denoiser gives NaN or infinity in the stock call itself")


def _names(stock: StockCall) -> tuple[str, str]:
    """The names of the denoiser's arguments for the sample (always the first one) and the time. Raises Unclear."""
    parameters = list(inspect.signature(stock.net.forward).parameters)
    time = next((name for name in TIMES if name in parameters), None)
    if time is None:
        raise Unclear(
            f"its {type(stock.net).__name__} takes no time called {', '.join(TIMES)}, but {', '.join(parameters[:6])}"
        )
    return parameters[0], time


def _learn_output(convention: Convention, call: Call, model_output: Tensor) -> None:
    """Note which part of the denoiser's output becomes the scheduler's model output, and its sign, 0 if it is neither.

    Raises Unclear.
    """
    raw, shape = first_tensor(call.output), model_output.shape
    if raw.numel() != model_output.numel():
        if raw.ndim != model_output.ndim or any(a < b for a, b in zip(raw.shape, shape, strict=True)):
            raise Unclear(f"its denoiser gives {tuple(raw.shape)} where its scheduler is given {tuple(shape)}")
        convention.narrow = tuple(shape[1:])
    prediction = convention.prediction(call.output, 1, call.arguments)
    for sign in (1.0, -1.0):
        if torch.allclose(sign * prediction.float(), model_output.float(), rtol=1e-5, atol=1e-6):
            convention.sign = sign
            return
    convention.sign = 0.0


def _learn_conversion(convention: Convention, stock: StockCall, off: float | None) -> None:
    """Note how the pipeline turns its denoiser's x_0 into the velocity for its scheduler. Raises Unclear."""
    convention.sign = 1.0
    arguments = stock.arguments(ids_of(stock), CONVERTED, scale=off)
    steps = [s for s in stock.watch(arguments, fake="noise", steps=CONVERTED).steps if len(s.calls) == 1]
    calls = [step.calls[0] for step in steps]
    raw = [convention.prediction(call.output, 1, call.arguments) for call in calls]
    x = [convention.sample(call.arguments) for call in calls]
    tau = [float(call.arguments[convention.time].flatten()[0]) for call in calls]
    v = [step.model_output.reshape(sample.shape) for step, sample in zip(steps, x, strict=True)]
    convention.conversion = conversion.learn(raw, x, tau, v)
    if convention.conversion is None:
        raise Unclear(
            "what its scheduler is given is not its denoiser's output, nor the negative of it, nor the velocity to an "
            "x_0 that the denoiser predicts"
        )


def _check_noise(x: Tensor) -> None:
    """Raises Unclear where the first input of the denoiser is no noise of standard deviation 1.

    The stock schedulers of an export draw such noise only.
    """
    deviation = float(x.float().std())
    if not 0.5 < deviation < 1.5:
        raise Unclear(f"its first sample is noise of standard deviation {deviation:.2g} and not 1")


def _time_map(stock: StockCall, off: float | None, time: str) -> tuple[list[float], list[float]]:
    """The denoiser's times and the scheduler's sigmas over a stock call. Raises Unreadable without sigmas."""
    trace = stock.watch(stock.arguments(ids_of(stock), POINTS, scale=off), fake=True, steps=POINTS)
    pairs = [(float(s.calls[0].arguments[time].flatten()[0]), s.sigma) for s in trace.steps if s.calls]
    both = [(tau, sigma) for tau, sigma in pairs if sigma is not None]
    if len(both) < 2:
        raise schedules.Unreadable("its scheduler keeps no sigmas")
    taus, sigmas = zip(*both, strict=True)
    return list(taus), list(sigmas)


@torch.no_grad()
def _check_fractions(convention: Convention, stock: StockCall, plain: Trace) -> None:
    """Raises Unclear where the denoiser refuses times between those of its stock call, or rounds them."""
    calls = [step.calls[0] for step in plain.steps]
    call = max(calls, key=lambda c: abs(float(c.arguments[convention.time].flatten()[0])))  # some start at 0
    tau = call.arguments[convention.time].float().flatten()[:1]
    step = 0.5 if abs(float(tau)) > 2 else 5e-4
    x, cond = convention.sample(call.arguments), convention.cond(call.arguments)
    values = []
    for shift in (0.0, step, 2 * step):
        try:
            values.append(convention(stock.net, x, tau - shift, with_scale(convention, cond, 1.0)))
        except (RuntimeError, IndexError, TypeError) as error:
            if out_of_memory(error):
                raise
            raise Unclear(f"its denoiser takes no fractional time: {str(error).splitlines()[0]}") from error
    if torch.equal(values[0], values[1]) or torch.equal(values[1], values[2]):
        raise Unclear("its denoiser rounds its time to integers, so it has no derivative in time")


def _learn_guidance(reading: Reading, recorder: Recorder) -> None:
    """Note the rule by which the pipeline combines its two predictions, or why none was found, and guided steps."""
    found = guidance.learn(reading.stock, reading.convention, reading.schedule.sign, reading.off)
    reading.rule, reading.no_guidance, reading.guidance_fix = found.rule, found.why, found.fix
    reading.unconditional_first = found.unconditional_first
    for i, half in enumerate(found.halves):
        (u, _), (c, _) = half if found.unconditional_first else half[::-1]
        cond = {**with_unconditional(c, u), SCALE: torch.tensor([guidance.PROBE_SCALE])}
        reading.reference_steps.append(recorder.step(found.steps, i, cond, "guided"))
