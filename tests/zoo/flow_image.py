"""Flow-matching image pipelines with CLIP and T5 text encoders."""

from typing import Any

import torch
from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    BriaPipeline,
    BriaTransformer2DModel,
    ChromaPipeline,
    ChromaTransformer2DModel,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import UMT5Config, UMT5EncoderModel

from zoo import family, parts


def flux_scheduler(**changes: Any) -> FlowMatchEulerDiscreteScheduler:
    """FLUX.1-dev's: a shift that grows with the image."""
    config: dict[str, Any] = {
        "shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256,
        "max_image_seq_len": 4096,
    }  # fmt: skip
    return FlowMatchEulerDiscreteScheduler(**{**config, **changes})


@family("sd3", height=16, width=16, max_sequence_length=32)
def sd3() -> DiffusionPipeline:
    """Stable Diffusion 3: two CLIPs and T5, constant shift."""
    net = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=32,
        pos_embed_max_size=8, qk_norm="rms_norm",
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer=parts.awaken(net), scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=parts.vae(scaling_factor=1.5305, shift_factor=0.0609), text_encoder=parts.clip(projection=True),
        tokenizer=parts.clip_tokenizer(), text_encoder_2=parts.clip(projection=True),
        tokenizer_2=parts.clip_tokenizer(), text_encoder_3=parts.t5(hidden=32), tokenizer_3=parts.letter_tokenizer(),
    )  # fmt: skip


@family("flux", height=16, width=16, max_sequence_length=32)
def flux() -> DiffusionPipeline:
    """FLUX.1-dev: packed latents, the guidance scale is an input of the network."""
    net = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=16, guidance_embeds=True, axes_dims_rope=(4, 2, 2),
    )  # fmt: skip
    return FluxPipeline(
        transformer=parts.awaken(net), scheduler=flux_scheduler(),
        vae=parts.vae(scaling_factor=0.3611, shift_factor=0.1159), text_encoder=parts.clip(),
        tokenizer=parts.clip_tokenizer(), text_encoder_2=parts.t5(), tokenizer_2=parts.letter_tokenizer(),
    )  # fmt: skip


@family("auraflow", height=16, width=16, max_sequence_length=32)
def auraflow() -> DiffusionPipeline:
    """AuraFlow: Pile-T5, constant shift."""
    net = AuraFlowTransformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_mmdit_layers=1, num_single_dit_layers=1,
        attention_head_dim=8, num_attention_heads=2, joint_attention_dim=16, caption_projection_dim=16,
        pos_embed_max_size=16,
    )  # fmt: skip
    torch.nn.init.normal_(
        net.time_step_proj.linear_2.weight, std=0.5
    )  # the gates of the attention are products with these
    for linear in (net.joint_transformer_blocks[0].norm1.linear, net.single_transformer_blocks[0].norm1.linear):
        torch.nn.init.normal_(linear.weight, std=0.5)
    encoder = UMT5Config(
        vocab_size=len(parts.LETTERS) + 3, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
        is_encoder_decoder=False, use_cache=False,
    )  # fmt: skip
    return AuraFlowPipeline(
        transformer=parts.awaken(net), scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73), vae=parts.vae(),
        text_encoder=UMT5EncoderModel(encoder).eval(), tokenizer=parts.letter_tokenizer(),
    )  # fmt: skip


@family("chroma", height=16, width=16, max_sequence_length=32)
def chroma() -> DiffusionPipeline:
    """Chroma: Flux without pooled text, a network of its own makes the modulations, the text mask is used."""
    net = ChromaTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=16, axes_dims_rope=(4, 2, 2), approximator_num_channels=16, approximator_hidden_dim=16,
        approximator_layers=1,
    )  # fmt: skip
    return ChromaPipeline(
        transformer=parts.awaken(net), scheduler=flux_scheduler(),
        vae=parts.vae(scaling_factor=0.3611, shift_factor=0.1159), text_encoder=parts.t5(),
        tokenizer=parts.letter_tokenizer(),
    )  # fmt: skip


@family("bria", height=16, width=16, max_sequence_length=32)
def bria() -> DiffusionPipeline:
    """Bria 3: guided against an all-zero embedding; the time goes in as 0..1000."""
    net = BriaTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=16, axes_dims_rope=[4, 2, 2],
    )  # fmt: skip
    return BriaPipeline(
        transformer=parts.awaken(net), scheduler=flux_scheduler(), vae=parts.vae(shift_factor=0.0),
        text_encoder=parts.t5(), tokenizer=parts.letter_tokenizer(),
    )  # fmt: skip
