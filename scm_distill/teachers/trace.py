"""Recording a stock pipeline call: inputs and outputs of its denoiser and of its scheduler, step by step.

The pipeline's own code runs, patched at these two places. A call can be stopped after some steps; with a fake denoiser
it costs no network evaluation, and with `replace` what follows the last step (decoding) runs on chosen latents.
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

from scm_distill.teachers import guider

Fake = Callable[[Mapping[str, Any]], Any]


class Stopped(Exception):
    """Raised inside the stock call to end it."""


@dataclass
class Call:
    """One call of the denoiser named `denoiser`: its arguments by the names of its signature, and its output."""

    denoiser: str
    arguments: dict[str, Any]
    output: Any


@dataclass
class Step:
    """One scheduler step and the denoiser calls before it.

    `sigma` is the step's entry of the scheduler's `sigmas`, None without such a table. `draws` are the normal draws of
    the scheduler. `x_0` is the scheduler's own estimate of x_0, where it returns one.
    """

    calls: list[Call]
    model_output: Tensor
    sample: Tensor
    sigma: float | None = None
    draws: list[Tensor] = field(default_factory=list)
    x_0: Tensor | None = None
    prev_sample: Tensor | None = None


@dataclass
class Trace:
    """The record of one stock call; `result` is its return value, None where it was stopped."""

    steps: list[Step] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)  # since the last step
    result: Any = None


@contextmanager
def patched(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """A context in which the attribute `name` of the object `owner` is `function`."""
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
    """A context in which every result of torch.randn and torch.randn_like is appended to `draws`."""
    randn, randn_like = torch.randn, torch.randn_like

    def recorded(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def wrapper(*args: Any, **kwargs: Any) -> Tensor:
            draws.append(draw(*args, **kwargs))
            return draws[-1]

        return wrapper

    torch.randn, torch.randn_like = recorded(randn), recorded(randn_like)
    try:
        yield
    finally:
        torch.randn, torch.randn_like = randn, randn_like


@contextmanager
def _quiet(pipeline: Any) -> Iterator[None]:
    """A context in which the pipeline shows no progress bar."""
    settings = dict(getattr(pipeline, "_progress_bar_config", {}) or {})
    pipeline.set_progress_bar_config(disable=True)
    try:
        yield
    finally:
        pipeline._progress_bar_config = settings


def _recorded(name: str, module: nn.Module, trace: Trace, fake: Fake | None) -> Callable[..., Any]:
    """The forward of the denoiser `module`, or `fake` in its place, which appends its calls to `trace`."""
    forward, signature = module.forward, inspect.signature(module.forward)

    @functools.wraps(forward)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        bound = dict(signature.bind(*args, **kwargs).arguments)
        bound |= bound.pop("kwargs", {})
        x = next(iter(bound))  # copied, since some pipelines update it in place
        bound[x] = [v.clone() for v in bound[x]] if isinstance(bound[x], list) else bound[x].clone()
        output = forward(*args, **kwargs) if fake is None else fake(bound)
        trace.calls.append(Call(name, bound, output))
        return output

    return wrapper


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
    """Run `pipeline(**arguments)` and record it; it is stopped after `steps` scheduler steps (None: runs to its end).

    `fake`, if given, is called in place of the denoisers, with their arguments by name; `replace` becomes the result of
    every scheduler step. The global random state is restored afterwards; inside the call it is seeded with `seed`, and
    is the call's generator where the call takes one.
    """
    trace = Trace()
    scheduler = pipeline.scheduler
    step_signature, step_function = inspect.signature(scheduler.step), scheduler.step

    @functools.wraps(step_function)
    def watched_step(*args: Any, **kwargs: Any) -> Any:
        bound = step_signature.bind(*args, **kwargs).arguments
        sample = bound["sample"]
        step = Step(trace.calls, _without_variance(bound["model_output"], sample).clone(), sample.clone())
        trace.calls = []
        trace.steps.append(step)
        with _draws_into(step.draws):
            result = step_function(*args, **kwargs)
        index, sigmas = getattr(scheduler, "step_index", None), getattr(scheduler, "sigmas", None)
        if index is not None and sigmas is not None and index < len(sigmas):
            step.sigma = float(sigmas[index - 1])
        step.prev_sample = result[0]
        x_0 = result[1] if len(result) > 1 else getattr(result, "pred_original_sample", None)
        step.x_0 = x_0.clone() if isinstance(x_0, Tensor) and x_0.shape == sample.shape else None
        if steps is not None and len(trace.steps) >= steps:
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
            stack.enter_context(patched(module, "forward", _recorded(name, module, trace, fake)))
        stack.enter_context(contextlib.suppress(Stopped))
        generator = torch.random.manual_seed(seed)
        if "generator" in inspect.signature(pipeline.__call__).parameters:
            arguments = {"generator": generator, **arguments}
        with guider.applied(pipeline, arguments) as arguments:
            trace.result = pipeline(**arguments)
    return trace


def _without_variance(model_output: Tensor, sample: Tensor) -> Tensor:
    """The half of `model_output` that predicts, where the scheduler is also given a learned variance."""
    both = model_output.ndim == sample.ndim > 1 and model_output.shape[1] == 2 * sample.shape[1]
    return model_output[:, : sample.shape[1]] if both else model_output


def _devices(pipeline: Any) -> list[torch.device]:
    return [pipeline.device] if pipeline.device.type == "cuda" else []
