"""The probe of a run: noised data at times that the teacher was trained at."""

import math
from types import SimpleNamespace

import pytest
import torch
from analytic import LINEAR
from torch import Tensor

from scm_distill.maths.clocks import Clock, DiscreteSchedule, FlowClock
from scm_distill.training import setup
from scm_distill.training.randomness import Draws

SIGMA_D = 0.5
DRAWS = Draws(
    seed=0, shape=(1, 2, 2), batch=4, micro=2, rank=1, world=2, P_mean=-0.3, P_std=1.4, sigma_d=SIGMA_D, t_min=0.0,
    t_max=math.pi / 2, flip=False,
)  # fmt: skip


class Constant:
    """Images of zeros; sample i has the id i. Two of three share a bucket."""

    groups = torch.arange(30) % 3 == 0

    def __len__(self) -> int:
        return 30

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return torch.zeros(len(indices), 1, 2, 2), torch.tensor(indices)


def probe_of(clock: Clock, *, pixels: bool = True) -> setup.Probe:
    loaded = SimpleNamespace(teacher=SimpleNamespace(pixels=pixels), F_teacher=SimpleNamespace(clock=clock))
    conditioning = SimpleNamespace(for_evaluation=lambda ids: {"ids": ids})
    data = SimpleNamespace(samples=Constant(), conditioning=conditioning)
    return setup.probe(loaded, data, DRAWS, torch.device("cpu"))  # type: ignore[arg-type]


def test_its_times_are_on_the_grid_of_a_discrete_teacher() -> None:
    clock = DiscreteSchedule(LINEAR, SIGMA_D)
    found = probe_of(clock)
    assert len(found.t) == setup.PROBE
    k = clock.network_time(found.t)
    assert torch.allclose(k, k.round(), atol=1e-6)
    assert torch.isin(found.t, clock.phi).all()
    assert len(found.t.unique()) > setup.PROBE / 3  # over the whole of it
    drawn = torch.cat([t for _, t, *_ in Draws(**{**vars(DRAWS), "batch": setup.PROBE, "micro": setup.PROBE,
                                                  "rank": 0, "world": 1}).step("probe", 0)])  # fmt: skip
    assert torch.equal(found.t, clock.snap(drawn))


def test_it_is_noised_at_those_times_and_of_one_bucket() -> None:
    found = probe_of(DiscreteSchedule(LINEAR, SIGMA_D))
    noise = found.x_t / found.t.sin().float()[:, None, None, None]  # the data is zero
    assert float(noise.std()) == pytest.approx(SIGMA_D, rel=0.1)
    assert not (found.cond["ids"] % 3 == 0).any()  # the larger bucket


def test_a_flow_takes_the_times_as_they_were_drawn() -> None:
    found = probe_of(FlowClock(1000, 0, SIGMA_D), pixels=False)
    assert len(found.t) == setup.LATENT_PROBE
    assert torch.equal(found.t, next(iter(Draws(**{**vars(DRAWS), "batch": 8, "micro": 8, "rank": 0, "world": 1})
                                          .step("probe", 0)))[1])  # fmt: skip
