"""Stable Diffusion 1, 2 and XL: their UNet has an input for the guidance scale, and using it turns guidance off."""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from scm_distill.teachers.convention import Convention
from scm_distill.teachers.families import Family

CHANNELS = 256  # of the scale's embedding


def embed(w: Tensor) -> Tensor:
    """The guidance scale (B,) as the stock pipeline embeds it (diffusers, get_guidance_scale_embedding)."""
    from diffusers import StableDiffusionPipeline

    function: Any = StableDiffusionPipeline.get_guidance_scale_embedding
    return function(None, w.float() - 1, embedding_dim=CHANNELS)  # type: ignore[no-any-return]


@torch.no_grad()
def with_input(net: Any) -> Any:
    """The same UNet with an input for the guidance scale whose weights are zero: the scale changes nothing yet."""
    if net.config.time_cond_proj_dim is not None:
        return net
    # As a keyword: a key inside the configuration is passed over where the folder's own file lacked it.
    wider = type(net).from_config(net.config, time_cond_proj_dim=CHANNELS)
    missing = wider.load_state_dict(net.state_dict(), strict=False).missing_keys
    for name in missing:  # the new layer, and nothing else
        wider.get_parameter(name).zero_()
    return wider.to(net.device, net.dtype).eval()


class StableDiffusion(Family):
    """A pipeline whose UNet has this input calls it once a step, whatever its guidance_scale."""

    pipelines = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
    carries_no_guidance = True

    def guidance_input(self, net: nn.Module, convention: Convention) -> tuple[nn.Module, Convention]:
        """The UNet with its input for the scale, in which the pipeline embeds the scale."""
        return with_input(net), replace(copy.copy(convention), scale_of=("timestep_cond", embed))

    def exported(self, net: nn.Module) -> nn.Module:
        """The UNet with its input for the scale, which turns guidance off in the exported folder."""
        return with_input(net)  # type: ignore[no-any-return]
