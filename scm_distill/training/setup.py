"""What a run is made of before its first step."""

from dataclasses import replace

import torch
from torch import Tensor

from scm_distill import config
from scm_distill.data import Data
from scm_distill.maths.cond import Cond, on_device
from scm_distill.maths.trigflow import diffuse
from scm_distill.training.batches import micro_batch
from scm_distill.training.conditioning import Conditioning
from scm_distill.training.endpoint import Comparison
from scm_distill.training.networks import LoadedTeacher
from scm_distill.training.randomness import Draws, generator

PROBE = 256  # noised samples on which the teacher's change is measured


LATENT_PROBE = 8  # of latents, which are large


def draws(recipe: config.Recipe, loaded: LoadedTeacher, rank: int, world: int) -> Draws:
    """How this process's share of every step is drawn. Raises UserError when the batch cannot be shared out."""
    settings, objective = recipe.train, recipe.objective
    return Draws(
        seed=settings.seed, shape=loaded.teacher.sample_shape, batch=settings.batch_size,
        micro=micro_batch(recipe, world),
        rank=rank, world=world, P_mean=objective.P_mean, P_std=objective.P_std, sigma_d=objective.sigma_d,
        t_min=loaded.F_teacher.clock.t_min, t_max=loaded.t_max, flip=recipe.data.flip,
    )  # fmt: skip


def comparison(
    recipe: config.Recipe, loaded: LoadedTeacher, conditioning: Conditioning, device: torch.device
) -> Comparison:
    """The yardstick of the run, from noise that only the seed decides."""
    n, g = recipe.train.evaluate_samples, generator(recipe.train.seed, "evaluate")
    eps = torch.randn(2, n, *loaded.teacher.sample_shape, generator=g)
    cond = on_device(conditioning.for_evaluation(conditioning.draw_ids(n, g)), device)
    times = (loaded.t_max, recipe.export.t_mid[len(recipe.export.t_mid) // 2])
    return Comparison(loaded.F_teacher, eps.to(device), cond, times, recipe.sampler.teacher_steps)


def probe(
    loaded: LoadedTeacher, data: Data, conditioning: Conditioning, draws: Draws, device: torch.device
) -> tuple[Tensor, Tensor, Cond]:
    """x_t (B, ...), t (B,) where the teacher was trained, and cond."""
    n = PROBE if loaded.teacher.pixels else LATENT_PROBE  # whatever the number of processes and of micro-batches
    together = torch.arange(len(data)) if data.groups is None else (data.groups == data.groups.mode().values).nonzero()
    indices = torch.randint(len(together), (n,), generator=generator(draws.seed, "probe images"))
    x_0, ids = data.__getitems__(together.flatten()[indices].tolist())
    whole = replace(draws, batch=n, micro=n, rank=0, world=1)
    z, t, _, _ = next(whole.step("probe", 0))
    t = loaded.F_teacher.clock.snap(t)
    x_t = diffuse(x_0, z, t.float()).to(device)
    return x_t, t.to(device), on_device(conditioning.for_evaluation(ids), device)
