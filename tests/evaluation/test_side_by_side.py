"""Rows of `eval` from features."""

import pytest
import torch

from scm_distill.evaluation import metrics, side_by_side
from scm_distill.evaluation.side_by_side import Measurement
from scm_distill.progress import Silent


class Sampler:
    """As much of one as a row wants."""

    size, deterministic = 8, False
    facts = type("Facts", (), {"scheduler": "DDIMScheduler"})


def test_a_reference_that_comes_class_by_class_is_drawn_from_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    centres = 10 * torch.randn(40, 4, generator=g)
    real, fake = (c.repeat_interleave(10, 0) + torch.randn(400, 4, generator=g) for c in (centres, centres))
    monkeypatch.setattr(side_by_side, "MOST_PAIRS", 200)
    them = [side_by_side.Contender("teacher", Sampler(), 50)]  # type: ignore[arg-type]
    tally = Measurement(fake, torch.zeros(0), torch.tensor([[400.0, 2.0, 50.0, 0.0]]))
    found = side_by_side.rows(them, [tally], real, Silent(), seed=0, device=None)[0]
    assert found.metrics["fd"] == pytest.approx(metrics.frechet(real, fake))
    assert found.metrics["precision"] > 0.8  # of the first 200, which are half of the classes: 0.5 at most
    assert found.metrics["diversity"] == pytest.approx(1, abs=0.1)
    assert (found.ms_per_sample, found.nfe) == (pytest.approx(5), 50)
