"""Guidance that is a component of a pipeline, a guider, and not an argument of its call.

A plain guider (diffusers' ClassifierFreeGuidance) is scaled by ARGUMENT, which stands among the arguments of the stock
call and is taken out of them before the call. Any other kind is turned off: it is no formula of (x, t) that a student
could learn, or would have to be read anew.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

ARGUMENT = "guider.guidance_scale"  # a scale, or None for no guidance
PLAIN = "ClassifierFreeGuidance"


def guiders(pipeline: Any) -> dict[str, Any]:
    """The guiders among the components of `pipeline`, by name."""
    from diffusers.guiders.guider_utils import BaseGuidance

    parts = getattr(pipeline, "components", None) or {}
    return {name: part for name, part in parts.items() if isinstance(part, BaseGuidance)}


def other_kinds(pipeline: Any) -> list[str]:
    """The classes of its guiders that are not plain; empty where guidance can be read, or where there is no guider."""
    kinds = {type(part).__name__ for part in guiders(pipeline).values()}
    return sorted(kinds - {PLAIN})


def default(pipeline: Any) -> float | None:
    """The scale that its plain guider has by itself, None where it is disabled."""
    part = next(iter(guiders(pipeline).values()))
    return float(part.config.guidance_scale) if part.config.enabled else None


def partial(pipeline: Any) -> str:
    """Which plain guider guides in part of the steps, in words; empty where none does."""
    for name, part in guiders(pipeline).items():
        start, stop = part.config.get("start", 0.0), part.config.get("stop", 1.0)
        if (start, stop) != (0.0, 1.0):
            return f"its {name} guides in part of the steps (start {start:g}, stop {stop:g})"
    return ""


def disabled(pipeline: Any) -> dict[str, Any]:
    """Its guiders turned off, by name: the components of a folder that calls its denoiser once a step."""
    return {name: part.new(enabled=False) for name, part in guiders(pipeline).items()}


@contextmanager
def applied(pipeline: Any, arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A context in which the guiders of `pipeline` are as ARGUMENT says: the arguments that are left for its call."""
    left = dict(arguments)
    if ARGUMENT not in left:
        yield left
        return
    scale, before = left.pop(ARGUMENT), guiders(pipeline)
    settings = {"enabled": False} if scale is None else {"enabled": True, "guidance_scale": scale}
    for name, part in before.items():
        setattr(pipeline, name, part.new(**settings))
    try:
        yield left
    finally:
        for name, part in before.items():
            setattr(pipeline, name, part)
