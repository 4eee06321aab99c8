"""Student and teacher on the same seeds, side by side: distances, network evaluations and time, by steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from scm_distill.artifacts.evaluation_record import Ratios, Row
from scm_distill.evaluation import metrics
from scm_distill.evaluation.features import Extractor
from scm_distill.evaluation.inputs import squared_errors
from scm_distill.progress import Reporter
from scm_distill.sampling.sampler import Sampler

MOST_PAIRS = (
    10_000  # samples whose pairs are compared, for precision, recall and diversity: all pairs of more take hours
)
TWO = 2  # steps of the student that the ratios are about

Condition = str | int | None
Score = Callable[[Sequence[Any], Sequence[str]], Tensor]  # CLIP score (N,) of samples and their prompts


@dataclass(frozen=True)
class Contender:
    """A sampler at a number of steps."""

    who: Literal["student", "teacher"]
    sampler: Sampler
    steps: int


@dataclass(frozen=True)
class Measurement:
    """What one contender did: features (N, D), CLIP scores (N,) or (0,), and rounds (R, 4).

    A round is a batch: samples, seconds, evaluations a sample, and squared errors to the teacher's endpoints, summed.
    """

    features: Tensor
    scores: Tensor
    rounds: Tensor


def contenders(student: Sampler, teacher: Sampler, steps: Sequence[int]) -> list[Contender]:
    """The teacher at its default first, then it and the student at `steps`; one step is for the student only."""
    full = teacher.facts.default_steps
    few = [k for k in steps if 1 < k < full]
    return [
        Contender("teacher", teacher, full),
        *(Contender("student", student, k) for k in steps),
        *(Contender("teacher", teacher, k) for k in few),
    ]


def measure(
    them: Sequence[Contender],
    batches: Sequence[tuple[Sequence[int], Sequence[Condition]]],
    extractor: Extractor,
    score: Score | None,
    report: Reporter,
) -> list[Measurement]:
    """Let all contenders draw each batch of seeds and conditions in turn: what else the machine does strikes all alike.

    The first contender is the teacher at its default steps; the others' distance to its samples is taken.
    """
    features: list[list[Tensor]] = [[] for _ in them]
    scores: list[list[Tensor]] = [[] for _ in them]
    rounds: list[list[list[float]]] = [[] for _ in them]
    report.begin("evaluate", len(batches) * len(them))
    for r, (seeds, conditions) in enumerate(batches):
        endpoint: list[Any] | None = None
        for i, one in enumerate(them):
            drawn = one.sampler.draw(seeds, conditions, one.steps)
            endpoint = drawn.samples if endpoint is None else endpoint
            errors = squared_errors(drawn.samples, endpoint)
            features[i].append(extractor(drawn.samples).double().cpu())
            if score is not None:
                scores[i].append(score(drawn.samples, [str(c) for c in conditions]).double().cpu())
            rounds[i].append([len(seeds), drawn.seconds, drawn.nfe, float(errors.sum())])
            report.advance(r * len(them) + i + 1)
    report.end()
    none = torch.zeros(0, dtype=torch.float64)
    return [
        Measurement(torch.cat(f), torch.cat(s) if s else none, torch.tensor(k, dtype=torch.float64))
        for f, s, k in zip(features, scores, rounds, strict=True)
    ]


def rows(
    them: Sequence[Contender],
    tallies: Sequence[Measurement],
    reference: Tensor,
    report: Reporter,
    *,
    seed: int,
    device: torch.device | None,
) -> list[Row]:
    """A line of the table for each contender, against the features of the reference (M, D), computed on `device`."""
    real = _some(reference, seed)
    table: list[Row] = []
    spread = metrics.diversity(real, device)
    report.begin("distances", len(them))
    for i, (one, tally) in enumerate(zip(them, tallies, strict=True)):
        a = tally.features
        samples, seconds, evaluations, errors = tally.rounds.T
        kid, kid_std = metrics.kid(reference, a, seed=seed, device=device)
        some = _some(a, seed)
        found = {
            "fd": metrics.frechet(reference, a, device),
            "kid": kid,
            "precision": metrics.precision(real, some, device=device),
            "recall": metrics.recall(real, some, device=device),
            "diversity": metrics.diversity(some, device) / spread,
        }
        if them[0].sampler.deterministic:
            found["endpoint"] = float((errors.sum() / samples.sum()).sqrt())
        if len(tally.scores):
            found["clip_score"] = float(tally.scores.mean())
        table.append(
            Row(
                who=one.who,
                scheduler=one.sampler.facts.scheduler,
                steps=one.steps,
                nfe=float((evaluations * samples).sum() / samples.sum()),
                batch=one.sampler.size,
                ms_per_sample=1000 * float((seconds / samples).median()),
                metrics=found,
                kid_std=kid_std,
            )
        )
        report.advance(i + 1)
    report.end()
    return table


def _some(features: Tensor, seed: int) -> Tensor:
    """At most MOST_PAIRS rows, drawn at random: those of a folder come class by class."""
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    return features[order[:MOST_PAIRS]]


def ratios(them: Sequence[Contender], tallies: Sequence[Measurement], table: Sequence[Row]) -> Ratios | None:
    """The two-step student against the teacher at its default: fd student / teacher, the others teacher / student.

    The wall clock is compared round by round, and the median taken. None where the student did not take two steps.
    """
    two = next((i for i, one in enumerate(them) if one.who == "student" and one.steps == TWO), None)
    if two is None:
        return None
    full, few = table[0], table[two]
    return Ratios(
        fd=few.metrics["fd"] / full.metrics["fd"],
        nfe=full.nfe / few.nfe,
        wall_clock=float((tallies[0].rounds[:, 1] / tallies[two].rounds[:, 1]).median()),
    )
