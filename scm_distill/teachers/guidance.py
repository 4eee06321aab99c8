"""A guided step of a stock call: its two halves, and the rule that combines them, found by fitting it."""

import torch
from torch import Tensor

from scm_distill.maths.guidance import GuidanceRule
from scm_distill.teachers.convention import Convention
from scm_distill.teachers.trace import Step

RULES = (
    GuidanceRule(),
    GuidanceRule(offset=1),
    GuidanceRule(renormalize=True),
    GuidanceRule(offset=1, renormalize=True),
)


def fit(first: Tensor, second: Tensor, given: Tensor, w: Tensor) -> tuple[GuidanceRule, bool] | None:
    """The rule that makes `given` of the two halves, and whether the first is the unconditional one; None if none."""
    for unconditional_first in (True, False):
        u, c = (first, second) if unconditional_first else (second, first)
        for rule in RULES:
            if torch.allclose(rule(c, u, w), given, rtol=1e-4, atol=1e-5 * float(given.abs().max())):
                return rule, unconditional_first
    return None


def nfe(convention: Convention, step: Step) -> int:
    """How many samples the denoiser saw in a step."""
    return sum(len(call.arguments[convention.x]) for call in step.calls)


def split(convention: Convention, step: Step) -> list[tuple[dict[str, Tensor], Tensor]] | None:
    """Conditions and native prediction of the two halves of a guided step, in the pipeline's order; None if not two."""
    calls = step.calls
    batches = [len(call.arguments[convention.x]) for call in calls]
    whole = len(step.sample)
    try:
        if len(calls) == 2 and batches == [whole, whole]:
            return [(convention.cond(call.arguments), convention.prediction(call.output, whole)) for call in calls]
        n = batches[0] // 2
        if len(calls) == 1 and batches[0] == 2 * n and (whole in (n, 2 * n)):
            out = convention.prediction(calls[0].output, 2 * n)
            halves = (slice(0, n), slice(n, 2 * n))
            return [(convention.cond(calls[0].arguments, half), out[half]) for half in halves]
    except (KeyError, TypeError, RuntimeError):
        return None
    return None
