"""What some pipelines do like no other: one file each, found by its name in this folder, registered by `pipelines`.

A family that the traced reading understands needs no file. To add an override, put a file here with a subclass of
`Family` that names the pipeline classes it is for, and change what differs; `tests/zoo` then wants a tiny one of it.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from torch import nn

from scm_distill.teachers.convention import Convention


class Family:
    """The usual way; every method may be overridden."""

    pipelines: tuple[str, ...] = ()
    carries_no_guidance = False  # whether the exported folder itself turns guidance off
    times_in_call = False  # whether the stock call is given timesteps and sigmas, instead of the scheduler alone

    def prepare(self, pipeline: Any) -> None:
        """Change a freshly loaded pipeline before it is traced."""

    def teacher(self, pipeline: Any, net: nn.Module, convention: Convention) -> tuple[nn.Module, Convention]:
        """The network whose velocity is distilled, and how it is called."""
        return net, convention

    def student(self, net: nn.Module) -> nn.Module:
        """The network to train, with the teacher's weights, out of the network whose velocity is distilled."""
        return net

    def guidance_input(self, net: nn.Module, convention: Convention) -> tuple[nn.Module, Convention] | None:
        """A student that is told the guidance scale as its stock pipeline tells it; None where that is impossible."""
        return (net, convention) if convention.scale_of else None

    def exported(self, net: nn.Module) -> nn.Module:
        """The trained network as its folder holds it."""
        return net

    def parts(self) -> Mapping[str, Any]:
        """Components and settings of the exported pipeline that differ from the teacher's."""
        return {}


def of(pipeline: Any) -> Family:
    """The family of a pipeline, by its class name."""
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        for member in vars(importlib.import_module(module.name)).values():
            known = isinstance(member, type) and issubclass(member, Family) and member.pipelines
            if known and type(pipeline).__name__ in member.pipelines:
                return member()  # type: ignore[no-any-return]
    return Family()
