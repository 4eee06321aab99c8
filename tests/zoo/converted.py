"""Pipelines that change their denoiser's output before their scheduler has it."""

from typing import Any

import diffusers
from diffusers import (
    DDPMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    IFPipeline,
    PRXTransformer2DModel,
    UNet2DConditionModel,
)
from transformers import Qwen3Model

from zoo import family, parts
from zoo.flow_image_llm import qwen3, word_tokenizer


def prx_pixel(noise_scale: float = 1.0) -> DiffusionPipeline:
    """PRX of pixels: the network predicts x_0, the pipeline makes a velocity of it. The published noise_scale is 2."""
    net = PRXTransformer2DModel(
        patch_size=1, in_channels=3, context_in_dim=16, hidden_size=8, mlp_ratio=2.0, num_heads=2, depth=1,
        axes_dim=[2, 2], bottleneck_size=8, resolution_embeds=True,
    )  # fmt: skip
    kind: Any = diffusers.PRXPixelPipeline
    return kind(
        transformer=parts.awaken(net), scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=Qwen3Model(qwen3()).eval(), tokenizer=word_tokenizer(), prompt_max_tokens=16,
        noise_scale=noise_scale,
    )  # fmt: skip


if hasattr(diffusers, "PRXPixelPipeline"):
    family("prx_pixel", height=16, width=16, use_resolution_binning=False)(prx_pixel)


@family("if", height=16, width=16, clean_caption=False)
def deepfloyd_if() -> DiffusionPipeline:
    """DeepFloyd IF, its first stage: pixels, thresholding, and a network that predicts a variance too."""
    net = UNet2DConditionModel(
        sample_size=16, layers_per_block=1, block_out_channels=[8, 32], norm_num_groups=4,
        down_block_types=["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"],
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=["SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"], in_channels=3, out_channels=6,
        cross_attention_dim=32, encoder_hid_dim=32, attention_head_dim=8, addition_embed_type="text",
        addition_embed_type_num_heads=2, cross_attention_norm="group_norm", resnet_time_scale_shift="scale_shift",
        act_fn="gelu",
    )  # fmt: skip
    scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", thresholding=True, dynamic_thresholding_ratio=0.95, sample_max_value=1.0,
        variance_type="learned_range",
    )  # fmt: skip
    return IFPipeline(
        tokenizer=parts.letter_tokenizer(), text_encoder=parts.t5(32), unet=net.eval(), scheduler=scheduler,
        safety_checker=None, feature_extractor=None, watermarker=None, requires_safety_checker=False,
    )  # fmt: skip
