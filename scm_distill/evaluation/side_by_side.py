"""Student and teacher on the same seeds, side by side: distances, NFE and time, by numbers of steps.

NFE are network function evaluations a sample; classifier-free guidance counts twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from scm_distill.artifacts.evaluation_record import Ratios, Row
from scm_distill.errors import UserError
from scm_distill.evaluation import metrics
from scm_distill.evaluation.features import Extractor
from scm_distill.evaluation.inputs import squared_errors
from scm_distill.progress import Reporter
from scm_distill.sampling.backends import Condition
from scm_distill.sampling.sampler import Sampler

MOST_PAIRS = 10_000  # samples whose pairs are compared, for precision, recall and diversity: more would take hours
FEWEST = 8  # samples of each, and of the reference
TWO = 2  # steps of the student that the ratios are about

Score = Callable[[Sequence[Any], Sequence[str]], Tensor]  # CLIP score (N,) of samples and their prompts


@dataclass(frozen=True)
class Contender:
    """A sampler at a number of steps."""

    who: Literal["student", "teacher"]
    sampler: Sampler
    steps: int


@dataclass(frozen=True)
class Measurement:
    """The samples of one contender as features (N, D), with CLIP scores (N,) or (0,), and their costs.

    `errors` (N,) are squared distances to the teacher's endpoints; `flagged` (N,) is 1 where a safety checker took a
    sample away, and 0 elsewhere. `rounds` (R, 3) has a row a batch: number of samples, seconds, and NFE a sample.
    """

    features: Tensor
    scores: Tensor
    rounds: Tensor
    errors: Tensor
    flagged: Tensor

    def only(self, kept: Tensor) -> "Measurement":
        """The samples where `kept` (N,) is true; the costs are those of all."""
        scores = self.scores[kept] if len(self.scores) else self.scores
        return Measurement(self.features[kept], scores, self.rounds, self.errors[kept], self.flagged[kept])


def contenders(student: Sampler, teacher: Sampler, steps: Sequence[int]) -> list[Contender]:
    """The teacher at its default steps first, then student and teacher at each of `steps`.

    The teacher takes those between one and its default only.
    """
    full = teacher.facts.default_steps
    return [
        Contender("teacher", teacher, full),
        *(Contender("student", student, k) for k in steps),
        *(Contender("teacher", teacher, k) for k in steps if 1 < k < full),
    ]


def measure(
    compared: Sequence[Contender],
    batches: Sequence[tuple[Sequence[int], Sequence[Condition]]],
    extractor: Extractor,
    score: Score | None,
    report: Reporter,
) -> list[Measurement]:
    """Let each contender draw every batch of seeds and conditions, in turn, so that a busy machine slows all alike.

    The first contender is the teacher at its default steps; errors are distances to its samples. Without `score` no
    CLIP scores are taken. Raises UserError where a sample cannot be drawn.
    """
    features: list[list[Tensor]] = [[] for _ in compared]
    scores: list[list[Tensor]] = [[] for _ in compared]
    rounds: list[list[list[float]]] = [[] for _ in compared]
    errors: list[list[Tensor]] = [[] for _ in compared]
    flags: list[list[bool]] = [[] for _ in compared]
    report.begin("evaluate", len(batches) * len(compared))
    for r, (seeds, conditions) in enumerate(batches):
        endpoints: list[Any] | None = None
        for i, contender in enumerate(compared):
            drawn = contender.sampler.draw(seeds, conditions, contender.steps)
            endpoints = drawn.samples if endpoints is None else endpoints
            errors[i].append(squared_errors(drawn.samples, endpoints))
            flags[i] += drawn.flagged
            if len(flags[i]) >= FEWEST and all(flags[i]):  # before hours are spent on black
                raise all_flagged(contender.who, len(flags[i]))
            features[i].append(extractor(drawn.samples).double().cpu())
            if score is not None:
                scores[i].append(score(drawn.samples, [str(c) for c in conditions]).double().cpu())
            rounds[i].append([len(seeds), drawn.seconds, drawn.nfe])
            report.advance(r * len(compared) + i + 1)
    report.end()
    none = torch.zeros(0, dtype=torch.float64)
    return [
        Measurement(
            torch.cat(f), torch.cat(s) if s else none, torch.tensor(k, dtype=torch.float64), torch.cat(e),
            torch.tensor(b, dtype=torch.float64),
        )
        for f, s, k, e, b in zip(features, scores, rounds, errors, flags, strict=True)
    ]  # fmt: skip


def all_flagged(who: str, n: int) -> UserError:
    """The error for `n` samples of student or teacher that a safety checker took away, all of them."""
    return UserError(
        f"The safety checker of the {who} flagged all {n} samples that were drawn, so there is nothing to measure.",
        "Give other prompts with --prompts, or another --seed.",
        code=1,
    )


def unflagged(
    compared: Sequence[Contender], measurements: Sequence[Measurement]
) -> tuple[list[Measurement], Sequence[str]]:
    """The samples of those seeds of which no contender's was flagged, and notes that say how many were left out.

    Raises UserError where fewer than FEWEST seeds are left.
    """
    flags = torch.stack([measured.flagged for measured in measurements]) > 0  # (contenders, N)
    kept = ~flags.any(0)
    if kept.all():
        return list(measurements), ()
    for contender, of_one in zip(compared, flags, strict=True):
        if of_one.all():
            raise all_flagged(contender.who, len(of_one))
    if int(kept.sum()) < FEWEST:
        raise UserError(
            f"A safety checker flagged samples of all but {int(kept.sum())} of {len(kept)} seeds.",
            f"{FEWEST} are needed: give other prompts with --prompts, or more samples with -n.",
            code=1,
        )
    counts = [
        f"{c.who} in {c.steps} step{'s' * (c.steps != 1)}: {int(of_one.sum())}"
        for c, of_one in zip(compared, flags, strict=True)
    ]
    note = f"{int((~kept).sum())} of {len(kept)} seeds left out: a safety checker flagged their samples"
    return [measured.only(kept) for measured in measurements], (f"{note} ({', '.join(counts)})",)


def rows(
    compared: Sequence[Contender],
    measurements: Sequence[Measurement],
    reference: Tensor,
    report: Reporter,
    *,
    seed: int,
    device: torch.device | None,
) -> list[Row]:
    """A row of eval.json for each contender: distances to the features `reference` (M, D), NFE and time.

    Distances are computed on `device`, or where the features are; `seed` decides which subsets are compared.
    """
    real = _subset(reference, seed)
    table: list[Row] = []
    real_diversity = metrics.diversity(real, device)
    report.begin("distances", len(compared))
    for i, (contender, measurement) in enumerate(zip(compared, measurements, strict=True)):
        a = measurement.features
        samples, seconds, nfe = measurement.rounds.T
        kid, kid_std = metrics.kid(reference, a, seed=seed, device=device)
        subset = _subset(a, seed)
        values = {
            "fd": metrics.frechet(reference, a, device),
            "kid": kid,
            "precision": metrics.precision(real, subset, device=device),
            "recall": metrics.recall(real, subset, device=device),
            "diversity": metrics.diversity(subset, device) / real_diversity,
        }
        if compared[0].sampler.deterministic:
            values["endpoint"] = float(measurement.errors.mean().sqrt())
        if len(measurement.scores):
            values["clip_score"] = float(measurement.scores.mean())
        table.append(
            Row(
                who=contender.who,
                scheduler=contender.sampler.facts.scheduler,
                steps=contender.steps,
                nfe=float((nfe * samples).sum() / samples.sum()),
                batch=contender.sampler.size,
                ms_per_sample=1000 * float((seconds / samples).median()),
                metrics=values,
                kid_std=kid_std,
            )
        )
        report.advance(i + 1)
    report.end()
    return table


def _subset(features: Tensor, seed: int) -> Tensor:
    """At most MOST_PAIRS rows of features (N, D), drawn at random: those of a folder come class by class."""
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    return features[order[:MOST_PAIRS]]


def ratios(compared: Sequence[Contender], measurements: Sequence[Measurement], table: Sequence[Row]) -> Ratios | None:
    """The two-step student against the teacher at its default, of the `rows` of both.

    The wall clock is compared batch by batch, and the median taken. None where the student did not take two steps.
    """
    two = next((i for i, c in enumerate(compared) if c.who == "student" and c.steps == TWO), None)
    if two is None:
        return None
    full, few = table[0], table[two]
    return Ratios(
        fd=few.metrics["fd"] / full.metrics["fd"],
        nfe=full.nfe / few.nfe,
        wall_clock=float((measurements[0].rounds[:, 1] / measurements[two].rounds[:, 1]).median()),
    )
