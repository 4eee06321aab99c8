"""Draws for a batch are those of its samples alone."""

import pytest
import torch

from scm_distill.sampling.per_sample_noise import PerSample

SEEDS = [3, 8, 5]


def alone(seed: int, *draws: tuple[int, ...]) -> list[torch.Tensor]:
    """What the global generator gives a stock call of one sample."""
    with torch.random.fork_rng([]):
        torch.random.manual_seed(seed)
        return [torch.randn(draw) for draw in draws]


def test_every_draw_of_a_sample_follows_from_its_seed() -> None:
    with PerSample(SEEDS) as noise:
        first = torch.cat([torch.randn(1, 5, 7, generator=g) for g in noise.generators])  # as randn_tensor does
        second = torch.randn_like(first)
        third = torch.randn(3, 2)
        fourth = torch.randn((3, 2), generator=None, device="cpu", dtype=torch.float32)
        fifth = torch.randn(size=(3, 2))
    for i, seed in enumerate(SEEDS):
        expected = alone(seed, (1, 5, 7), (1, 5, 7), (1, 2), (1, 2), (1, 2))
        for drawn, one in zip((first, second, third, fourth, fifth), expected, strict=True):
            assert torch.equal(drawn[i : i + 1], one)


def test_two_copies_of_a_batch_are_drawn_as_guidance_has_them() -> None:
    with PerSample(SEEDS):
        drawn = torch.randn_like(torch.empty(6, 5, 7))
    for i, seed in enumerate(SEEDS):
        assert torch.equal(drawn[[i, i + 3]], alone(seed, (2, 5, 7))[0])


def test_the_dtype_is_the_one_that_was_asked_for() -> None:
    with PerSample(SEEDS):
        like = torch.randn_like(torch.empty(3, 5, dtype=torch.bfloat16))
        other = torch.randn_like(torch.empty(3, 5), dtype=torch.float64)
    assert (like.dtype, other.dtype) == (torch.bfloat16, torch.float64)


@pytest.mark.parametrize("shape", [(2, 3), (), (7,)])
def test_what_is_no_batch_comes_from_the_global_generator(shape: tuple[int, ...]) -> None:
    with torch.random.fork_rng([]), PerSample(SEEDS):
        torch.random.manual_seed(1)
        drawn = torch.randn(shape)
    assert torch.equal(drawn, alone(1, shape)[0])


def test_a_generator_of_ones_own_is_left_alone() -> None:
    with PerSample(SEEDS):
        drawn = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(drawn, alone(1, (3, 4))[0])
