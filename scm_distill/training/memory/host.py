"""Whether the host has memory for what its processes keep there beside their GPUs; asked before anything is kept."""

import os

import psutil
import torch

from scm_distill import config
from scm_distill.errors import UserError
from scm_distill.training.memory.plan import NARROWER, Planner, gib


def check(recipe: config.Recipe, planner: Planner) -> None:
    """Raises UserError where the processes of this machine need more of the host's memory than is free.

    On a CPU there is nothing to ask: what a run needs is planned as the device's memory.
    """
    if planner.device.type == "cpu":
        return
    most = min(planner.world, max(1, torch.cuda.device_count()))  # a launcher that does not say it
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", most))
    parts = needed(recipe, planner, processes)
    free = psutil.virtual_memory().available
    if sum(parts.values()) > free:
        raise UserError(
            f"{processes} processes need {gib(sum(parts.values()))} of this machine's memory "
            f"({', '.join(f'{name} {gib(n)}' for name, n in parts.items() if n)}), {gib(free)} are free.",
            "Leave train.offload away, start fewer processes on this machine, or take one with more memory.",
        )


def needed(recipe: config.Recipe, planner: Planner, processes: int) -> dict[str, int]:
    """The bytes that so many processes keep in host memory: what is offloaded by each, a checkpoint by the first.

    Of a checkpoint it is the largest file, the two moments of the optimizer, which are gathered before it is written.
    """
    student = sum(p.nbytes for p in planner.network.parameters())
    trained = sum(p.nbytes for p in planner.network.parameters() if p.requires_grad)
    teacher = sum(p.nbytes for p in planner.F_teacher.parameters()) // NARROWER[recipe.teacher.dtype]
    away = recipe.train.offload
    return {
        "offloaded teachers": processes * teacher * ("teacher" in away),
        "offloaded averages": processes * student * ("ema" in away),
        "a checkpoint": 2 * trained,
    }
