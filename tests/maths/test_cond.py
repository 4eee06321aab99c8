"""Conditions of a batch: the parts of the mapping, its samples, and the record of a denoiser without conditions."""

import torch

from scm_distill.maths.cond import SCALE, conditional, rows, unconditional, unguided, with_unconditional

C = {"text": torch.arange(6.0).reshape(3, 2), "labels.0": torch.arange(3)}
U = {"text": -torch.arange(3.0)[:, None], "labels.0": torch.full((3,), 9)}
BOTH = {**with_unconditional(C, U), SCALE: torch.tensor([1.0, 2.0, 3.0])}


def test_a_guided_mapping_gives_its_two_halves_back() -> None:
    assert set(BOTH) == {"text", "labels.0", "u/text", "u/labels.0", "w"}
    assert unguided(BOTH) == C
    assert unconditional(BOTH) == U
    assert conditional(BOTH) == {**C, SCALE: BOTH[SCALE]}


def test_an_unguided_mapping_has_no_unconditional_half() -> None:
    assert unconditional(C) == {}
    assert conditional(C) == unguided(C) == C


def test_rows_takes_the_same_samples_of_every_entry() -> None:
    first, last = rows(BOTH, slice(2)), rows(BOTH, torch.tensor([2]))
    assert first["text"].tolist() == [[0, 1], [2, 3]]
    assert (first["u/text"].shape, first[SCALE].tolist()) == ((2, 1), [1, 2])
    assert (last["labels.0"].tolist(), last["u/labels.0"].tolist(), last[SCALE].tolist()) == ([2], [9], [3])
