"""Overrides for pipelines that the generic reading does not cover, one file a family, found in this folder.

To add one, put a file here with a subclass of `Family` whose `pipelines` are the names of the pipeline classes, and
override the methods that differ; add a tiny pipeline of it to `tests/zoo`.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from torch import nn

from scm_distill.teachers.convention import Convention


class Family:
    """A family of pipelines without overrides."""

    pipelines: tuple[str, ...] = ()
    carries_no_guidance = False  # whether the exported folder itself turns guidance off
    times_in_call = False  # whether timesteps and sigmas are arguments of the stock call, beside the scheduler

    def prepare(self, pipeline: Any) -> None:
        """Change a freshly loaded pipeline in place before its call is recorded."""

    def teacher(self, pipeline: Any, net: nn.Module, convention: Convention) -> tuple[nn.Module, Convention]:
        """The network whose velocity is distilled, and how it is called."""
        return net, convention

    def student(self, net: nn.Module) -> nn.Module:
        """The network to train, with the teacher's weights, out of the network whose velocity is distilled."""
        return net

    def guidance_input(self, net: nn.Module, convention: Convention) -> tuple[nn.Module, Convention] | None:
        """A network with the guidance scale as an input, as its stock pipeline has it; None where there is none."""
        return (net, convention) if convention.scale_of else None

    def exported(self, net: nn.Module) -> nn.Module:
        """The trained network as it is written to the exported folder."""
        return net

    def parts(self) -> Mapping[str, Any]:
        """The components and settings of the exported pipeline that differ from the teacher's, by name."""
        return {}


def of(pipeline: Any) -> Family:
    """The family of a pipeline, by its class name."""
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        for member in vars(importlib.import_module(module.name)).values():
            family = isinstance(member, type) and issubclass(member, Family) and member.pipelines
            if family and type(pipeline).__name__ in member.pipelines:
                return member()  # type: ignore[no-any-return]
    return Family()
