"""Tiny random-weight pipelines of diffusers' own classes, one per family: what the conformance test runs the CLI on.

A module of this package holds functions marked `@family(...)`; each builds one pipeline. None knows scm_distill.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import DiffusionPipeline


@dataclass(frozen=True)
class Family:
    """How to build one, and the arguments that keep its stock call small."""

    name: str
    build: Callable[[], DiffusionPipeline]
    modality: Literal["image", "video", "audio"]
    conditions: Literal["none", "labels", "prompt"]
    call: dict[str, Any]

    def pipeline(self) -> DiffusionPipeline:
        """The pipeline; its weights depend on a fixed seed only."""
        with torch.random.fork_rng():
            torch.random.manual_seed(0)
            return self.build()


FAMILIES: dict[str, Family] = {}


def family(
    name: str,
    *,
    modality: Literal["image", "video", "audio"] = "image",
    conditions: Literal["none", "labels", "prompt"] = "prompt",
    **call: Any,
) -> Callable[[Callable[[], DiffusionPipeline]], Callable[[], DiffusionPipeline]]:
    """Register a function that builds a pipeline; `call` are arguments of its stock call, such as height=32."""

    def register(build: Callable[[], DiffusionPipeline]) -> Callable[[], DiffusionPipeline]:
        FAMILIES[name] = Family(name, build, modality, conditions, call)
        return build

    return register


def load_all() -> dict[str, Family]:
    """Every family of every module of this package, by name."""
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        importlib.import_module(module.name)
    return dict(FAMILIES)
