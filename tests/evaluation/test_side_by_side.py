"""Rows of `eval` from features."""

import pytest
import torch

from scm_distill.artifacts.evaluation_record import Row
from scm_distill.evaluation import metrics, side_by_side
from scm_distill.evaluation.side_by_side import Measurement
from scm_distill.progress import Silent


class Sampler:
    """The members of a sampler that a row is made of."""

    size, deterministic = 8, False
    facts = type("Facts", (), {"scheduler": "DDIMScheduler"})


def test_a_reference_that_comes_class_by_class_is_drawn_from_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    centres = 10 * torch.randn(40, 4, generator=g)
    real, fake = (c.repeat_interleave(10, 0) + torch.randn(400, 4, generator=g) for c in (centres, centres))
    monkeypatch.setattr(side_by_side, "MOST_PAIRS", 200)
    compared = [side_by_side.Contender("teacher", Sampler(), 50)]  # type: ignore[arg-type]
    measured = Measurement(fake, torch.zeros(0), torch.tensor([[400.0, 2.0, 50.0]]), torch.zeros(400), torch.zeros(400))
    row = side_by_side.rows(compared, [measured], real, Silent(), seed=0, device=None)[0]
    assert row.metrics["fd"] == pytest.approx(metrics.frechet(real, fake))
    assert row.metrics["precision"] > 0.8  # of the first 200, which are half of the classes: 0.5 at most
    assert row.metrics["diversity"] == pytest.approx(1, abs=0.1)
    assert (row.ms_per_sample, row.nfe) == (pytest.approx(5), 50)


def test_the_ratios_are_those_of_the_two_step_student_and_the_teacher_at_its_default() -> None:
    teacher, student = Sampler(), Sampler()
    compared = [
        side_by_side.Contender(who, sampler, steps)
        for who, sampler, steps in (("teacher", teacher, 50), ("student", student, 1), ("student", student, 2))
    ]
    seconds = ((9.0, 30.0, 12.0), (1.0, 1.0, 1.0), (3.0, 3.0, 3.0))  # one batch was slow
    measured = [
        Measurement(
            torch.zeros(3, 2),
            torch.zeros(0),
            torch.tensor([[1.0, s, 2.0] for s in each]),
            torch.zeros(3),
            torch.zeros(3),
        )
        for each in seconds
    ]
    table = [
        Row(who=c.who, scheduler="S", steps=c.steps, nfe=nfe, ms_per_sample=1.0, metrics={"fd": fd})
        for c, nfe, fd in zip(compared, (100.0, 1.0, 2.0), (4.0, 9.0, 6.0), strict=True)
    ]
    found = side_by_side.ratios(compared, measured, table)
    assert (found.fd, found.nfe, found.wall_clock) == (1.5, 50, 4)
    assert side_by_side.ratios(compared[:2], measured[:2], table[:2]) is None
