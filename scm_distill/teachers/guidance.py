"""Classifier-free guidance of a stock call: at which scales it guides, and the rule that combines its two predictions.

The pipeline's order of the two is not known beforehand, so the rule is fitted for both.
"""

import inspect
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scm_distill.errors import UserError, one_line
from scm_distill.maths.guidance import GuidanceRule
from scm_distill.memory import out_of_memory
from scm_distill.teachers import guider, halves
from scm_distill.teachers.convention import Convention
from scm_distill.teachers.scheduler import Unreadable
from scm_distill.teachers.stock_call import StockCall
from scm_distill.teachers.trace import Step, Trace

PROMPT, ANOTHER = "a photo of a cat", "a photo of a dog"  # of the same length, in most tokenizers
NEGATIVE = "blurry"
PROBE_SCALE = 3.0  # of guidance, in the probe
POINTS = 12  # stock steps over which the rule is held against the call

UNGUIDED = "Leave guidance.scale away."
RULES = (
    GuidanceRule(),
    GuidanceRule(offset=1),
    GuidanceRule(renormalize=True),
    GuidanceRule(offset=1, renormalize=True),
)


def ids_of(stock: StockCall, n: int = 1) -> list[Any]:
    """`n` prompts or class labels for a probe; they are equal."""
    return [PROMPT] * n if stock.driver == "prompt" else [1] * n


def unguided(stock: StockCall) -> tuple[float | None, Trace]:
    """A scale at which the pipeline calls its denoiser once for one sample, and two steps of that call.

    The scale is None for a call without guidance. Raises Unreadable where there is none.
    """
    _refuse_perturbed(stock)
    traces: dict[float | None, Trace] = {}
    for off in (1.0, 0.0) if stock.guided_by else (None,):
        trace = stock.watch(stock.arguments(ids_of(stock), 2, scale=off), steps=2)
        if len(trace.steps) < 2:
            raise Unreadable(f"two steps of its call are {len(trace.steps)} of its scheduler")
        if not all(step.calls for step in trace.steps):
            raise Unreadable("its call steps its scheduler more than once for each prediction of its denoiser")
        if _once(trace.steps[0]):
            return off, trace
        traces[off] = trace
    if halves.SCALE in traces and (found := _both_halves(stock, traces[halves.SCALE])):
        stock.both = found
        return halves.SCALE, found.conditional(traces[halves.SCALE])
    scales = f" with {stock.guided_by} 1 or 0" if stock.guided_by else ""
    raise Unreadable(f"its call{scales} does not evaluate its denoiser once a step for one sample")


def _refuse_perturbed(stock: StockCall) -> None:
    """Raises UserError for a call with perturbed-attention guidance, whose third prediction no rule here has."""
    parameter = inspect.signature(stock.pipeline.__call__).parameters.get("pag_scale")
    if parameter is not None and (scale := stock.extra.get("pag_scale", parameter.default)):
        raise UserError(
            f"{type(stock.pipeline).__name__} cannot be read: at pag_scale {scale:g} it adds perturbed attention.",
            "Set teacher.call={pag_scale: 0.0}: without it, it is the plain pipeline, which guidance.scale guides.",
        )


def _both_halves(stock: StockCall, one: Trace) -> halves.Halves | None:
    """Where the halves are in a call that evaluates both at the scale 1; None where it does something else."""
    two = stock.watch(stock.arguments(ids_of(stock, 2), 2, scale=halves.SCALE), fake=True, steps=1)
    return halves.find(one, two)


def _once(step: Step) -> bool:
    """Whether a step of a call for one sample evaluates the denoiser for one sample, once."""
    return len(step.calls) == 1 and len(next(iter(step.calls[0].arguments.values()))) == 1


@dataclass(frozen=True)
class Guidance:
    """What a stock call shows of its guidance.

    Without a `rule`, `why` says why there is none and `fix` what to do. `unconditional_first` is whether the
    unconditional half of a step comes first; `steps` are two steps at PROBE_SCALE, and `halves` their conditions and
    predictions.
    """

    rule: GuidanceRule | None
    why: str = ""
    fix: str = UNGUIDED
    unconditional_first: bool = True
    steps: tuple[Step, ...] = ()
    halves: tuple[list[tuple[dict[str, Tensor], Tensor]], ...] = ()


def learn(stock: StockCall, convention: Convention, sign: float, off: float | None) -> Guidance:
    """The guidance of a call that is unguided at the scale `off`; `sign` is that of the scheduler's model output."""
    if convention.scale_of or stock.guided_by is None:
        return Guidance(None, "the denoiser is told the scale") if convention.scale_of else _no_guidance(stock)
    if why := guider.partial(stock.pipeline) if stock.guided_by == guider.ARGUMENT else "":
        return Guidance(None, why, f"Set start 0 and stop 1 in the configuration of its guider, or l{UNGUIDED[1:]}")
    arguments = stock.arguments(ids_of(stock), 2, scale=PROBE_SCALE, negative=NEGATIVE)
    steps = stock.watch(arguments, steps=2).steps
    both = [split(convention, step) for step in steps]
    if both[0] is None:
        return Guidance(None, f"{stock.guided_by} changes nothing that could be read")
    found = [_fitted(convention, step, PROBE_SCALE, sign, _rescale(stock)) for step in steps]
    if found[0] is None:
        known = "u + w (c - u), c + w (c - u), renormalised or not"
        return Guidance(None, f"its rule is none that is known ({known})")
    stock.needs_negative = _needs_negative(stock)
    arguments = stock.arguments(ids_of(stock), POINTS, scale=PROBE_SCALE)
    to_end = stock.watch(arguments, fake="noise", steps=POINTS).steps
    found += [_fitted(convention, step, PROBE_SCALE, sign, found[0][0].rescale) for step in to_end]
    if any(other != found[0] for other in found):
        return Guidance(None, "its guidance changes from step to step")
    rule, unconditional_first = found[0]
    rule = replace(rule, off=_threshold(stock, off))
    return Guidance(rule, "", "", unconditional_first, tuple(steps), tuple(half for half in both if half is not None))


def _needs_negative(stock: StockCall) -> bool:
    """Whether a guided call fails where it is given no negative prompt."""
    try:
        stock.watch(stock.arguments(ids_of(stock), 2, scale=PROBE_SCALE), fake=True, steps=1)
    except (TypeError, ValueError, AttributeError):
        return True
    return False


def _no_guidance(stock: StockCall) -> Guidance:
    """Why a call has no guidance that could be read."""
    if not (kinds := guider.other_kinds(stock.pipeline)):
        return Guidance(None, "its call has none")
    why = f"its {' and '.join(kinds)} is no plain classifier-free guidance, and is turned off"
    return Guidance(None, why, f"Leave guidance.scale away, or put a {guider.PLAIN} in its place in the folder.")


def _rescale(stock: StockCall) -> float:
    """The share of guidance_rescale in the stock call, 0 where it has none."""
    if stock.guided_by == guider.ARGUMENT:
        return float(next(iter(guider.guiders(stock.pipeline).values())).config.guidance_rescale)
    parameter = inspect.signature(stock.pipeline.__call__).parameters.get("guidance_rescale")
    value = stock.extra.get("guidance_rescale", parameter.default if parameter else 0)
    return float(value) if isinstance(value, int | float) else 0.0


def _threshold(stock: StockCall, off: float | None) -> float:
    """The scale up to which the call is unguided, where it is unguided at `off`; -inf where it is so at `off` alone."""
    try:
        half = _once(stock.watch(stock.arguments(ids_of(stock), 2, scale=0.5), fake=True, steps=1).steps[0])
    except Exception as error:  # whatever a pipeline raises that refuses such a scale
        if out_of_memory(error):
            raise
        half = False
    if off == 1.0:
        return 1.0 if half else -math.inf
    return math.nextafter(1.0, 0.0) if half else 0.0


def _result(convention: Convention, step: Step, sign: float) -> Tensor:
    """The native prediction (1, ...) of a step's first sample, as its scheduler is given it."""
    return sign * step.model_output[:1].reshape(1, *convention.sample_shape)


def _fitted(
    convention: Convention, step: Step, w: float, sign: float, rescale: float
) -> tuple[GuidanceRule, bool] | None:
    """The rule of a guided step and whether its unconditional half comes first; None if no known rule fits."""
    halves = split(convention, step)
    if halves is None:
        return None
    (_, first), (_, second) = halves
    return fit(first, second, _result(convention, step, sign), torch.tensor([w]), rescale)


def difference_at(stock: StockCall, convention: Convention, rule: GuidanceRule, sign: float, w: float) -> float:
    """How far the stock call at scale `w` is from `rule`, relative; infinite where one of them guides and one does not.

    A stand-in that returns noise takes the denoiser's place, so this costs no network evaluation. Raises UserError
    where the call refuses the scale.
    """
    arguments = stock.arguments(ids_of(stock), 2, scale=w, negative=NEGATIVE)
    try:
        step = stock.watch(arguments, fake="noise", steps=1).steps[0]
    except Exception as error:  # whatever a pipeline raises that refuses such a scale
        if out_of_memory(error):
            raise
        raise UserError(
            f"At scale {w:g} the teacher's own call fails: {one_line(error)}.", "Set another guidance.scale."
        ) from error
    if _once(step):
        return 0.0 if rule.turned_off(w) else math.inf
    halves = split(convention, step)
    if halves is None:
        return math.inf
    made = _result(convention, step, sign)
    both = [p for _, p in halves]
    ours = [rule(c, u, torch.tensor([w], device=c.device)) for c, u in (both, both[::-1])]
    return min(float((made - guess).norm() / made.norm()) for guess in ours)


def fit(
    first: Tensor, second: Tensor, guided: Tensor, w: Tensor, rescale: float = 0.0
) -> tuple[GuidanceRule, bool] | None:
    """The rule that makes `guided` of two predictions at scale `w`, and whether the first is the unconditional one.

    None if no rule of RULES does, with or without the share `rescale`. All predictions are (1, ...), `w` (1,).
    """
    rules = [replace(rule, rescale=rescale) for rule in RULES if rescale and not rule.renormalize] + list(RULES)
    for unconditional_first in (True, False):
        u, c = (first, second) if unconditional_first else (second, first)
        for rule in rules:
            if torch.allclose(rule(c, u, w), guided, rtol=1e-4, atol=1e-5 * float(guided.abs().max())):
                return rule, unconditional_first
    return None


def split(convention: Convention, step: Step) -> list[tuple[dict[str, Tensor], Tensor]] | None:
    """Conditions and native prediction of each half of a guided step, in the pipeline's order.

    The halves are two calls of the denoiser or one of twice the batch; None where a step is neither.
    """
    calls = step.calls
    batches = [len(call.arguments[convention.x]) for call in calls]
    batch = len(step.sample)
    try:
        if len(calls) == 2 and batches == [batch, batch]:
            return [
                (convention.cond(call.arguments), convention.prediction(call.output, batch, call.arguments))
                for call in calls
            ]
        n = batches[0] // 2
        if len(calls) == 1 and batches[0] == 2 * n and batch in (n, 2 * n):
            out = convention.prediction(calls[0].output, 2 * n, calls[0].arguments)
            halves = (slice(0, n), slice(n, 2 * n))
            return [(convention.cond(calls[0].arguments, half), out[half]) for half in halves]
    except (KeyError, TypeError, RuntimeError):
        return None
    return None
