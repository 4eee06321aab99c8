"""The scheduler that stands in for a folder's own while a stock call is watched.

What a scheduler does with a prediction shows what the prediction means. DDIM, and Euler steps of a flow or of an EDM
network, can be followed exactly; others draw noise, clip, extrapolate, or call the denoiser twice a step. The network
is the same under all of them, so it is watched under one of the three, made from the noise levels and the kind of
prediction of the folder's own. What the pipeline is otherwise used for (samples, comparisons) keeps the folder's own.
"""

import inspect
from typing import Any

import torch
from diffusers import DDIMScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler

from scm_distill.teachers.scheduler import Kind, Schedule


def stand_in(scheduler: Any, kind: Kind, schedule: Schedule | None) -> Any:
    """The scheduler to watch a pipeline's call under, in place of its own `scheduler`, or that where nothing is better.

    `schedule` is that of a scheduler of the discrete kind, and None for others.
    """
    config, name = dict(scheduler.config), type(scheduler).__name__
    if schedule is not None:
        return _named_alike(_ddim(config, schedule), config)
    if kind == "flow" and (name != "FlowMatchEulerDiscreteScheduler" or config.get("stochastic_sampling")):
        known = _accepted(FlowMatchEulerDiscreteScheduler, config)
        # which noise levels the call visits does not matter here, and some of these settings exclude each other
        free = {key: False for key in known if key.startswith("use_") and key.endswith("_sigmas")}
        shift = config.get("shift", config.get("flow_shift", 1.0))
        return _named_alike(
            FlowMatchEulerDiscreteScheduler(**known | free | {"shift": shift, "stochastic_sampling": False}), config
        )
    if name == "EDMDPMSolverMultistepScheduler":
        return _named_alike(EDMEulerScheduler(**_accepted(EDMEulerScheduler, config)), config)
    return scheduler


def unshifted(scheduler: Any) -> FlowMatchEulerDiscreteScheduler:
    """A flow scheduler that takes the sigmas of the call as they are, with the times of `scheduler`."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=scheduler.config.get("num_train_timesteps", 1000))


def _ddim(config: dict[str, Any], schedule: Schedule) -> DDIMScheduler:
    """DDIM on the table of noise levels of `schedule`, without clipping."""
    assert schedule.alphas_cumprod is not None
    bar = schedule.alphas_cumprod
    return DDIMScheduler(
        num_train_timesteps=len(bar),
        trained_betas=(1 - bar / torch.cat([bar.new_ones(1), bar[:-1]])).tolist(),
        prediction_type=schedule.prediction,
        # A step from pure noise divides by almost zero where noise is predicted; leading spacing begins in the middle.
        timestep_spacing="leading" if schedule.prediction == "epsilon" else "trailing",
        steps_offset=config.get("steps_offset", 0),
        clip_sample=False,
        set_alpha_to_one=False,
    )


def _accepted(kind: type, config: dict[str, Any]) -> dict[str, Any]:
    """The settings of `config` that a scheduler class takes."""
    return {key: config[key] for key in inspect.signature(kind.__init__).parameters if key in config}  # type: ignore[misc]


def _named_alike(scheduler: Any, config: dict[str, Any]) -> Any:
    """`scheduler` with the settings of `config` that it lacks, since pipelines read some of them.

    A pipeline that is told that no variance is learned hands on the mean alone.
    """
    missing = {key: value for key, value in config.items() if key[0] != "_" and key not in scheduler.config}
    if "variance_type" in missing:
        missing["variance_type"] = "fixed_small"
    scheduler.register_to_config(**missing)
    return scheduler
