"""Stable Diffusion 1, 2 and XL: their UNet has an input for the guidance scale, and using it turns guidance off."""

import copy
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from scm_distill.models.sharing import filled
from scm_distill.teachers import told_scale
from scm_distill.teachers.convention import Convention
from scm_distill.teachers.families import Family

CHANNELS = 256  # of the scale's embedding, where a UNet has none yet


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
        wider = with_input(net)
        embed = told_scale.Embedding(wider.config.time_cond_proj_dim)
        return wider, replace(copy.copy(convention), scale_of=(told_scale.EMBEDDED, embed))

    def exported(self, net: nn.Module) -> nn.Module:
        """The UNet with its input for the scale, which turns guidance off in the exported folder."""
        return with_input(net)  # type: ignore[no-any-return]
