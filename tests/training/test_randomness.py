"""The draws of a step: their moments, and that the number of processes does not change them."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from scm_distill.training.randomness import Draws, generator

N = 8192
DRAWS = Draws(
    seed=3, shape=(2, 3), batch=N, micro=N, rank=0, world=1, P_mean=-0.4, P_std=1.3, sigma_d=0.5, t_min=0.0,
    t_max=math.pi / 2, flip=True,
)  # fmt: skip
SMALL = replace(DRAWS, batch=24, micro=24)


def whole(draws: Draws, step: int = 0, purpose: str = "train") -> tuple[Tensor, ...]:
    """z, t, flip and chance of all micro-batches together."""
    return tuple(torch.cat(parts) for parts in zip(*draws.step(purpose, step), strict=True))


def test_noise_and_times_have_the_moments_of_the_paper() -> None:
    z, t, _, _ = whole(DRAWS)
    assert z.mean() == pytest.approx(0, abs=0.01)
    assert z.std() == pytest.approx(DRAWS.sigma_d, rel=0.02)
    assert t.dtype == torch.float64
    tau = (DRAWS.sigma_d * t.tan()).log()
    assert float(tau.mean()) == pytest.approx(DRAWS.P_mean, abs=0.06)
    assert float(tau.std()) == pytest.approx(DRAWS.P_std, rel=0.03)
    assert float(((tau - tau.mean()) ** 3).mean() / tau.std() ** 3) == pytest.approx(0, abs=0.12)  # skewness
    assert float(torch.corrcoef(torch.stack([z[:, 0, 0].double(), tau]))[0, 1]) == pytest.approx(0, abs=0.04)


def test_times_stay_within_the_teachers() -> None:
    t = whole(replace(DRAWS, t_min=0.3, t_max=1.2))[1]
    assert (float(t.min()), float(t.max())) == (0.3, 1.2)
    free = whole(DRAWS)[1]
    assert torch.equal(t, free.clamp(0.3, 1.2))


def test_half_of_the_samples_are_mirrored_or_none() -> None:
    assert float(whole(DRAWS)[2].float().mean()) == pytest.approx(0.5, abs=0.03)
    assert not whole(replace(DRAWS, flip=False))[2].any()


def test_chances_are_uniform_and_the_third_is_one_for_the_whole_step() -> None:
    chance = whole(DRAWS)[3]
    assert chance.shape == (N, 3)
    assert float(chance.min()) >= 0
    assert float(chance.max()) < 1
    for column in (0, 1):
        assert float(chance[:, column].mean()) == pytest.approx(0.5, abs=0.02)
        assert float(chance[:, column].std()) == pytest.approx(12**-0.5, rel=0.03)
    assert float(torch.corrcoef(chance[:, :2].T)[0, 1]) == pytest.approx(0, abs=0.04)
    assert len(chance[:, 2].unique()) == 1
    thirds = torch.stack([whole(SMALL, step)[3][0, 2] for step in range(200)])
    assert len(thirds.unique()) == 200
    assert float(thirds.mean()) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(("world", "micro"), [(2, 4), (3, 8), (4, 1)])
def test_the_ranks_together_draw_what_one_process_draws(world: int, micro: int) -> None:
    for together, *parts in zip(
        whole(SMALL), *(whole(replace(SMALL, rank=r, world=world, micro=micro)) for r in range(world)), strict=True
    ):
        assert torch.equal(torch.stack(parts, 1).flatten(0, 1), together)  # sample j is of rank j mod world


def test_micro_batches_come_in_order_and_have_their_size() -> None:
    parts = list(replace(SMALL, micro=8).step("train", 5))
    assert [len(z) for z, *_ in parts] == [8, 8, 8]
    assert torch.equal(torch.cat([z for z, *_ in parts]), whole(SMALL, 5)[0])


def test_no_draw_comes_twice() -> None:
    """Not in another rank, step, purpose or seed; but the same call draws the same."""
    drawn = [
        whole(replace(SMALL, rank=0, world=2, micro=12)), whole(replace(SMALL, rank=1, world=2, micro=12)),
        whole(SMALL, 1), whole(SMALL, purpose="pre-fit"), whole(replace(SMALL, seed=4)),
    ]  # fmt: skip
    for i in (0, 1):  # z and t
        entries = torch.cat([parts[i].flatten().double() for parts in drawn])
        assert len(entries.unique()) == len(entries)
    assert all(torch.equal(a, b) for a, b in zip(whole(SMALL, 7), whole(SMALL, 7), strict=True))


def test_a_generator_is_of_its_seed_purpose_and_step() -> None:
    first = {
        torch.randn((), generator=generator(*key)).item()
        for key in [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (11, "a", 0), (1, "a", 10)]
    }
    assert len(first) == 6
    assert torch.randn((), generator=generator(0, "a")).item() in first
