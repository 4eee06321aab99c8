"""The work of an evaluation shared out among processes: samples of all samplers, and features of the reference."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from scm_distill import ranks
from scm_distill.errors import UserError
from scm_distill.evaluation import side_by_side
from scm_distill.evaluation.cache import gathered, reference_features, share
from scm_distill.evaluation.features import Extractor
from scm_distill.evaluation.inputs import as_tensor
from scm_distill.evaluation.reference import open_reference
from scm_distill.evaluation.side_by_side import FEWEST, Contender, Measurement, Score
from scm_distill.progress import Reporter
from scm_distill.sampling.backends import Condition
from scm_distill.sampling.sampler import Sampler

MOST_REAL = 50_000  # real samples of the reference, at most: as FID is reported
APART = 10**6  # from the seeds of the samples to those of the teacher's, where its own samples are the reference


@dataclass(frozen=True)
class SharedWork:
    """Seeds and their conditions, of which every process draws its share."""

    accelerator: Accelerator
    seeds: list[int]
    conditions: list[Condition]
    report: Reporter

    def _rounds(self, sampler: Sampler, first: int = 0) -> list[tuple[list[int], list[Condition]]]:
        """This process's seeds, moved by `first`, and conditions, in batches."""
        mine = share(len(self.seeds), self.accelerator)
        parts = [mine[i : i + sampler.size] for i in range(0, len(mine), sampler.size)]
        return [([self.seeds[i] + first for i in part], [self.conditions[i] for i in part]) for part in parts]

    def of_teacher(self, teacher: Sampler, extractor: Extractor, notes: list[str]) -> Tensor:
        """Features of the teacher's samples at its default steps, from other seeds; flagged ones are left out."""
        rounds, found, flags = self._rounds(teacher, APART), [], list[bool]()
        self.report.begin("reference", len(rounds))
        with ranks.together("drawing the reference"):
            for i, (seeds, conditions) in enumerate(rounds, 1):
                drawn = teacher.draw(seeds, conditions)
                found.append(extractor(drawn.samples))
                flags += drawn.flagged
                if len(flags) >= FEWEST and all(flags):
                    raise side_by_side.all_flagged("teacher", len(flags))
                self.report.advance(i)
        self.report.end()
        n = len(self.seeds)
        features = gathered(torch.cat(found), n, self.accelerator)
        kept = gathered(torch.tensor(flags).float(), n, self.accelerator).cpu() == 0
        if kept.all():
            return features
        if int(kept.sum()) < FEWEST:
            raise side_by_side.all_flagged("teacher", n)
        notes.append(f"reference: {int((~kept).sum())} of {n} samples left out, which a safety checker flagged")
        return features[kept.to(features.device)]

    def of_data(self, data: str, student: Sampler, extractor: Extractor, notes: list[str]) -> Tensor:
        """Features of real samples, of the size that the student makes."""
        facts = student.facts
        with ranks.together("opening the reference"):
            one = as_tensor(student.draw(self.seeds[:1], self.conditions[:1]).samples[0])
            real = open_reference(data, facts.modality, one.shape, n=MOST_REAL, seed=0, rate=facts.rate)
        if len(real) < FEWEST:
            raise UserError(f"{data} holds {len(real)} samples.", f"Give {FEWEST} or more; FD wants thousands.")
        self.report.begin("reference", len(share(len(real), self.accelerator)))
        cached = reference_features(extractor, real, self.accelerator, self.report.advance)
        self.report.end()
        notes.append(f"reference: {len(real)} of {real.total} real samples, features {cached.origin}")
        return cached.features

    def measure(self, contenders: Sequence[Contender], extractor: Extractor, score: Score | None) -> list[Measurement]:
        """What each contender did, by all processes together."""
        rounds = self._rounds(contenders[0].sampler)
        with ranks.together("drawing the samples"):
            shares = side_by_side.measure(contenders, rounds, extractor, score, self.report)
        n, accelerator = len(self.seeds), self.accelerator
        return [
            Measurement(
                gathered(measured.features, n, accelerator),
                gathered(measured.scores, n, accelerator) if score else measured.scores,
                _every_round(measured.rounds, accelerator),
                gathered(measured.errors, n, accelerator),
                gathered(measured.flagged, n, accelerator),
            )
            for measured in shares
        ]


def _every_round(rounds: Tensor, accelerator: Accelerator) -> Tensor:
    """The rounds (R, 3) of all processes, of which some may have one more."""
    padded = accelerator.pad_across_processes(rounds.float().to(accelerator.device))  # mps has no float64
    every: Tensor = accelerator.gather(padded).cpu().double()
    return every[every[:, 0] > 0]
