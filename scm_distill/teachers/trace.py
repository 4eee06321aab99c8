"""Watching a stock pipeline call: what its denoiser is given and gives, what its scheduler is given and draws.

Nothing of the pipeline is re-implemented here. A call is stopped once it has shown what was asked for; with a fake
denoiser it costs no network evaluation, and with `replace` its tail runs on latents of our choice.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Fake = Callable[[Mapping[str, Any]], Any]


class Stopped(Exception):
    """Raised inside the stock call once enough was seen."""


@dataclass
class Call:
    """One call of a denoiser: its arguments by the names of its signature, and its output as it came."""

    denoiser: str
    arguments: dict[str, Any]
    output: Any


@dataclass
class Step:
    """One scheduler step and the denoiser calls before it; `sigma` is where the scheduler keeps one."""

    calls: list[Call]
    model_output: Tensor
    sample: Tensor
    sigma: float | None = None
    draws: list[Tensor] = field(default_factory=list)
    x_0: Tensor | None = None  # where the scheduler says what it takes for it
    prev_sample: Tensor | None = None


@dataclass
class Trace:
    """What one stock call showed; `result` is its return value where it ran to the end."""

    steps: list[Step] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)  # since the last step
    result: Any = None


@contextmanager
def patched(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """An attribute of this one object replaced for as long as this lasts."""
    before = owner.__dict__.get(name)
    owner.__dict__[name] = function
    try:
        yield
    finally:
        if before is None:
            del owner.__dict__[name]
        else:
            owner.__dict__[name] = before


@contextmanager
def _draws_into(draws: list[Tensor]) -> Iterator[None]:
    """Note every normal draw that the scheduler makes; the draws themselves are as they would have been."""
    randn, randn_like = torch.randn, torch.randn_like

    def noted(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def wrapper(*args: Any, **kwargs: Any) -> Tensor:
            draws.append(draw(*args, **kwargs))
            return draws[-1]

        return wrapper

    torch.randn, torch.randn_like = noted(randn), noted(randn_like)
    try:
        yield
    finally:
        torch.randn, torch.randn_like = randn, randn_like


@contextmanager
def _quiet(pipeline: Any) -> Iterator[None]:
    """No progress bar of the pipeline's own."""
    settings = dict(getattr(pipeline, "_progress_bar_config", {}) or {})
    pipeline.set_progress_bar_config(disable=True)
    try:
        yield
    finally:
        pipeline._progress_bar_config = settings


@torch.no_grad()
def watch(
    pipeline: Any,
    denoisers: Mapping[str, nn.Module],
    arguments: Mapping[str, Any],
    *,
    steps: int | None = None,
    fake: Fake | None = None,
    replace: Tensor | None = None,
    seed: int = 0,
) -> Trace:
    """Run `pipeline(**arguments)` and return what it did, stopped after `steps` scheduler steps (None: to its end).

    `fake` stands in for the denoisers; `replace` becomes the result of every scheduler step. The global random state
    is left as it was; inside the call it is seeded with `seed`, and is the generator of the call where it takes one.
    """
    seen = Trace()
    scheduler = pipeline.scheduler
    step_signature, step_function = inspect.signature(scheduler.step), scheduler.step

    def watched_denoiser(name: str, module: nn.Module) -> Callable[..., Any]:
        forward, signature = module.forward, inspect.signature(module.forward)

        @functools.wraps(forward)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            bound = dict(signature.bind(*args, **kwargs).arguments)
            bound |= bound.pop("kwargs", {})
            x = next(iter(bound))
            bound[x] = (
                [v.clone() for v in bound[x]] if isinstance(bound[x], list) else bound[x].clone()
            )  # some update it in place
            output = forward(*args, **kwargs) if fake is None else fake(bound)
            seen.calls.append(Call(name, bound, output))
            return output

        return wrapper

    @functools.wraps(step_function)
    def watched_step(*args: Any, **kwargs: Any) -> Any:
        bound = step_signature.bind(*args, **kwargs).arguments
        sample = bound["sample"]
        step = Step(seen.calls, bound["model_output"].clone(), sample.clone())
        seen.calls = []
        seen.steps.append(step)
        with _draws_into(step.draws):
            result = step_function(*args, **kwargs)
        index, sigmas = getattr(scheduler, "step_index", None), getattr(scheduler, "sigmas", None)
        if index is not None and sigmas is not None and index < len(sigmas):
            step.sigma = float(sigmas[index - 1])
        step.prev_sample = result[0]
        said = result[1] if len(result) > 1 else getattr(result, "pred_original_sample", None)
        step.x_0 = said.clone() if isinstance(said, Tensor) and said.shape == sample.shape else None
        if steps is not None and len(seen.steps) >= steps:
            raise Stopped
        if replace is not None:
            if isinstance(result, tuple):
                return (replace.to(sample), *result[1:])
            result["prev_sample"] = result.prev_sample = replace.to(sample)
        return result

    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(_devices(pipeline)))
        stack.enter_context(_quiet(pipeline))
        stack.enter_context(patched(scheduler, "step", watched_step))
        for name, module in denoisers.items():
            stack.enter_context(patched(module, "forward", watched_denoiser(name, module)))
        stack.enter_context(contextlib.suppress(Stopped))
        generator = torch.random.manual_seed(seed)
        if "generator" in inspect.signature(pipeline.__call__).parameters:
            arguments = {"generator": generator, **arguments}
        seen.result = pipeline(**arguments)
    return seen


def _devices(pipeline: Any) -> list[torch.device]:
    return [pipeline.device] if pipeline.device.type == "cuda" else []


@dataclass(frozen=True)
class ReferenceStep:
    """One step of a stock call: what its denoiser was given, and what its scheduler was given."""

    what: str
    x_nat: Tensor  # (1, ...)
    t: Callable[[float], float]  # of sigma_d, by what the denoiser was told
    cond: dict[str, Tensor]  # with w and the unconditional half where guidance was on
    native: Tensor  # the native prediction as the scheduler was given it
    next_x_nat: Tensor | None = None  # after the scheduler's step, where that is a DDIM step
    step: Callable[[float], tuple[float, float]] | None = None  # of sigma_d: its times, by the scheduler's own sigmas
    tau: float | None = None  # what the denoiser was told
    t_of_sigma: Callable[[float], float] | None = None  # of sigma_d, where the scheduler keeps a sigma
    x_0: Tensor | None = None  # what the scheduler took for it, where it says so and does not clip
