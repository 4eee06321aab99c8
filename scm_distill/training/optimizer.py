"""The optimizer, and the learning rate as a function of the step alone."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from scm_distill import config


def build(parameters: Iterable[nn.Parameter], settings: config.Optimizer) -> torch.optim.Optimizer:
    """Adam, AdamW or RAdam with the recipe's settings, over those of `parameters` that require gradients."""
    kinds: dict[str, type[torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "radam": torch.optim.RAdam,
    }
    s = settings
    arguments = {"lr": s.lr, "betas": s.betas, "eps": s.eps, "weight_decay": s.weight_decay}
    if s.name != "radam":  # the other two come in one kernel; RAdam takes all tensors at once on a GPU by itself
        arguments["fused"] = True
    return kinds[s.name]([p for p in parameters if p.requires_grad], **arguments)  # type: ignore[arg-type]


def lr(step: int, steps: int, settings: config.Optimizer) -> float:
    """The learning rate of optimizer step `step`, from 0, of `steps`.

    A linear warm-up to settings.lr, then: cosine, to 0 at `steps`; rsqrt, lr sqrt(warmup / step); or constant.
    """
    warmup = settings.warmup_steps
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    match settings.decay:
        case "cosine":
            return settings.lr * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2
        case "rsqrt":
            return settings.lr * math.sqrt(max(1, warmup) / max(1, step))
        case "constant":
            return settings.lr
