"""Stable Diffusion 1, 2 and XL: their UNet has an input for the guidance scale, and using it turns guidance off."""

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from scm_distill.models.sharing import filled
from scm_distill.teachers.convention import Convention
from scm_distill.teachers.families import Family

CHANNELS = 256  # of the scale's embedding


class Embedding:
    """The guidance scale (B,) as the stock pipeline embeds it, (B, CHANNELS), on the device of the scale.

    The formula is that of diffusers' `get_guidance_scale_embedding`, which makes its frequencies on the CPU at every
    call; they are made there here too, once, since those of a GPU are rounded otherwise.
    """

    def __init__(self) -> None:
        step = torch.log(torch.tensor(10000.0)) / (CHANNELS // 2 - 1)
        self.frequencies = torch.exp(torch.arange(CHANNELS // 2, dtype=torch.float32) * -step)

    def __call__(self, w: Tensor) -> Tensor:
        """The embedding of scales w (B,)."""
        frequencies = self.frequencies.to(w.device)
        if type(frequencies) is Tensor:  # no fake one
            self.frequencies = frequencies
        angles = ((w.float() - 1) * 1000.0)[:, None] * frequencies[None, :]
        return torch.cat([angles.sin(), angles.cos()], dim=1)


def with_input(net: Any) -> Any:
    """The same UNet, and its weights, with an input for the scale whose weights are zero: it changes nothing yet."""
    if net.config.time_cond_proj_dim is not None:
        return net
    # As a keyword: a key inside the configuration is passed over where the folder's own file lacked it.
    wider = partial(type(net).from_config, net.config, time_cond_proj_dim=CHANNELS)
    return filled(wider, net.state_dict(), absent_are_zero=True)  # the new layer, and nothing else


class StableDiffusion(Family):
    """A pipeline whose UNet has this input calls it once a step, whatever its guidance_scale."""

    pipelines = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
    carries_no_guidance = True

    def guidance_input(self, net: nn.Module, convention: Convention) -> tuple[nn.Module, Convention]:
        """The UNet with its input for the scale, in which the pipeline embeds the scale."""
        return with_input(net), replace(copy.copy(convention), scale_of=("timestep_cond", Embedding()))

    def exported(self, net: nn.Module) -> nn.Module:
        """The UNet with its input for the scale, which turns guidance off in the exported folder."""
        return with_input(net)  # type: ignore[no-any-return]
