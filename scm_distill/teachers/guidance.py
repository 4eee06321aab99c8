"""A step of a stock call with classifier-free guidance: its two predictions, and the rule that combines them.

The pipeline's order of the two is not known beforehand, so the rule is fitted for both.
"""

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


def fit(first: Tensor, second: Tensor, guided: Tensor, w: Tensor) -> tuple[GuidanceRule, bool] | None:
    """The rule that makes `guided` of two predictions at scale `w`, and whether the first is the unconditional one.

    None if no rule of RULES does. All predictions are (1, ...), `w` (1,).
    """
    for unconditional_first in (True, False):
        u, c = (first, second) if unconditional_first else (second, first)
        for rule in RULES:
            if torch.allclose(rule(c, u, w), guided, rtol=1e-4, atol=1e-5 * float(guided.abs().max())):
                return rule, unconditional_first
    return None


def nfe(convention: Convention, step: Step) -> int:
    """The samples that the denoiser evaluated in a step (number of function evaluations)."""
    return sum(len(call.arguments[convention.x]) for call in step.calls)


def split(convention: Convention, step: Step) -> list[tuple[dict[str, Tensor], Tensor]] | None:
    """Conditions and native prediction of each half of a guided step, in the pipeline's order.

    The halves are two calls of the denoiser or one of twice the batch; None where a step is neither.
    """
    calls = step.calls
    batches = [len(call.arguments[convention.x]) for call in calls]
    batch = len(step.sample)
    try:
        if len(calls) == 2 and batches == [batch, batch]:
            return [(convention.cond(call.arguments), convention.prediction(call.output, batch)) for call in calls]
        n = batches[0] // 2
        if len(calls) == 1 and batches[0] == 2 * n and batch in (n, 2 * n):
            out = convention.prediction(calls[0].output, 2 * n)
            halves = (slice(0, n), slice(n, 2 * n))
            return [(convention.cond(calls[0].arguments, half), out[half]) for half in halves]
    except (KeyError, TypeError, RuntimeError):
        return None
    return None
