"""The search for t_mid, and the table of distances to the data."""

from typing import Any

import torch
from torch import Tensor

from scm_distill.artifacts.export_record import Distance
from scm_distill.evaluation.metrics import block_features, frechet
from scm_distill.export import schedulers
from scm_distill.export.schedulers import Grid
from scm_distill.maths.clocks import EDMClock, spaced
from scm_distill.maths.cond import Cond, on_device
from scm_distill.maths.sampling import ode
from scm_distill.models import low_pass
from scm_distill.models.network import Network
from scm_distill.sampling import stock_loop
from scm_distill.training import networks
from scm_distill.training.endpoint import sample
from scm_distill.training.randomness import generator
from scm_distill.training.run import Trained


def data_reference(trained: Trained) -> tuple[Tensor, Tensor, Cond]:
    """Block features (M, D) of samples of the data, and draws (2, N, ...) and conditions (N, ...) to compare with them.

    The conditions are those of the data where all of them may share a batch, else some of the largest bucket.
    """
    data, conditioning = trained.data.samples, trained.data.conditioning
    n, seed = trained.recipe.export.samples, trained.recipe.train.seed
    device = next(trained.student.parameters()).device
    order = torch.randperm(len(data), generator=generator(seed, "export images"))[:n].tolist()
    pairs = [data.__getitems__(order[i : i + 256]) for i in range(0, len(order), 256)]
    x_0, ids = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    eps = torch.randn(2, n, *x_0.shape[1:], generator=generator(seed, "export noise")).to(device)
    ids = ids[torch.arange(n) % len(ids)]
    if (
        conditioning.conditions is not None
        and (conditioning.conditions.bucket[ids] != conditioning.conditions.bucket[ids[0]]).any()
    ):
        ids = conditioning.draw_ids(n, generator(seed, "export conditions"))
    return block_features(x_0), eps, on_device(conditioning.for_evaluation(ids), device)


def grids(trained: Trained) -> list[Grid]:
    """The (t_max, t_mid) to search: the recipe's, or what the teacher's own schedule offers."""
    recipe, student, teacher = trained.recipe, trained.student, trained.loaded.teacher
    clock: Any = student.clock
    if networks.reclocks(recipe, teacher):
        return [Grid(trained.loaded.t_max, t_mid, schedulers.MOST_STEPS) for t_mid in recipe.export.t_mid]
    if teacher.alphas_cumprod is not None:
        return schedulers.discrete_grid(clock.phi, recipe.export.t_mid)
    if isinstance(clock, EDMClock):
        return [Grid(clock.t_max, t_mid) for t_mid in recipe.export.t_mid]
    whole, own = teacher.family.times_in_call, teacher.reading.own_sigmas if teacher.reading else (1.0, 0.5)
    return schedulers.flow_grid(recipe.export.t_mid, clock, student.sigma_d, whole=whole, own_sigmas=own)


def distance_to_data(network: Network, reference: Tensor, eps: Tensor, cond: Cond, times: tuple[float, ...]) -> float:
    """Frechet distance of a network's samples to the block features `reference` (M, D); inf where one is not finite.

    A sample takes a step at each of `times` (radians) from the draws eps (len(times) or more, N, ...) ~ N(0, I).
    """
    x = sample(network, eps, cond, times)
    return frechet(reference, block_features(x).cpu()) if x.isfinite().all() else float("inf")


def distance_table(trained: Trained, reference: Tensor, eps: Tensor, cond: Cond, best: Grid) -> tuple[Distance, ...]:
    """Distance to the data of the teacher and the student, by network function evaluations."""
    loaded, times = trained.loaded, (best.t_max, best.t_mid)
    F = loaded.F_teacher
    path = spaced(F.clock, best.t_max, stock_loop.TEACHER_STEPS)
    with low_pass.original(F.net):
        x_T = F.sigma_d * eps[0]
        ddim = ode(lambda x, t: F(x, t, cond), x_T, path, F.sigma_d, heun=False)
        undistilled = distance_to_data(F, reference, eps, cond, times)
    rows = (
        ("teacher, DDIM", len(path), frechet(reference, block_features(ddim).cpu())),
        ("teacher, undistilled", 2, undistilled),
        ("student", 1, distance_to_data(trained.student, reference, eps, cond, times[:1])),
        ("student", 2, distance_to_data(trained.student, reference, eps, cond, times)),
    )
    return tuple(Distance(sampler=name, nfe=nfe, distance=distance) for name, nfe, distance in rows)
