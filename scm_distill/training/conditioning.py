"""The conditions of a batch: recorded prompts or labels, the guidance scale, dropped conditions."""

from dataclasses import dataclass

import torch
from torch import Tensor

from scm_distill import config
from scm_distill.maths.cond import NONE, SCALE, unconditional
from scm_distill.teachers import Conditions, Teacher


@dataclass(frozen=True)
class Conditioning:
    """Makes the `cond` of a batch of its condition ids, by the recipe's guidance.

    `conditions` are the recorded ones, which ids index; None for a pixel UNet, whose ids are its class labels.
    """

    teacher: Teacher
    conditions: Conditions | None
    guidance: config.Guidance

    @property
    def stock_scale(self) -> float | None:
        """The guidance scale that the stock call hands to the denoiser; None where that has no input for it."""
        reading = self.teacher.reading
        if reading is None or reading.convention.scale_of is None:
            return None
        return float(reading.reference_steps[0].cond[SCALE][0])

    @property
    def evaluation_scale(self) -> float | None:
        """The scale of evaluations: the recipe's, the middle of its range, or the stock call's own; None: unguided."""
        scale = self.guidance.scale
        return sum(scale) / 2 if isinstance(scale, tuple) else self.stock_scale if scale is None else scale

    def __call__(self, ids: Tensor, chance: Tensor) -> dict[str, Tensor]:
        """The conditions of a training batch: ids (B,), of one bucket, and uniform draws `chance` (B, 3) of `Draws`.

        Where guidance.scale is a range, each sample has a scale of its own; where guidance.dropout is set, that share
        of the samples has the unconditional arguments in place of its own (the whole batch where they differ in shape).
        """
        cond, scale = self.for_evaluation(ids), self.guidance.scale
        if isinstance(scale, tuple):
            cond[SCALE] = scale[0] + (scale[1] - scale[0]) * chance[:, 0]
        dropped = chance[:, 1] < self.guidance.dropout
        twins = unconditional(cond)
        if any(u.shape != cond[name].shape for name, u in twins.items()):  # both kinds cannot share a batch
            return cond | twins if chance[0, 2] < self.guidance.dropout else cond
        for name, u in twins.items():
            cond[name] = torch.where(dropped.reshape(-1, *[1] * (u.ndim - 1)), u, cond[name])
        return cond

    def for_evaluation(self, ids: Tensor) -> dict[str, Tensor]:
        """The conditions of ids (B,), none dropped, all with `evaluation_scale`."""
        if self.conditions is None:
            return self.teacher.cond(ids)
        cond = self.conditions(ids)
        cond.pop(NONE, None)
        if self.evaluation_scale is not None:
            cond[SCALE] = torch.full((len(ids),), self.evaluation_scale)
        return cond

    def draw_ids(self, n: int, generator: torch.Generator) -> Tensor:
        """Random ids (n,), all of the largest bucket, so that they can share a batch."""
        if self.conditions is None:
            return torch.randint(self.teacher.classes or 1, (n,), generator=generator)
        largest = (self.conditions.bucket == self.conditions.bucket.mode().values).nonzero().flatten()
        return largest[torch.randint(len(largest), (n,), generator=generator)]
