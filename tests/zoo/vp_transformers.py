"""Transformers on a noise schedule of betas: images first, then video."""

from typing import Any

import torch
from diffusers import (
    AllegroPipeline,
    AllegroTransformer3DModel,
    AutoencoderKLAllegro,
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    CogView3PlusPipeline,
    CogView3PlusTransformer2DModel,
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    HunyuanDiT2DModel,
    HunyuanDiTPipeline,
    LattePipeline,
    LatteTransformer3DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
)
from transformers import BertConfig, BertModel

from zoo import family, parts

HEADS: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 8}
LINEAR: dict[str, Any] = {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}
SCALED: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@torch.no_grad()
def awaken(net: torch.nn.Module, *loud: torch.nn.Parameter) -> torch.nn.Module:
    """`parts.awaken`, and these weights on the text's way made larger: few of many tokens tell two prompts apart."""
    for weight in loud:
        weight.mul_(5)
    return parts.awaken(net)


@family("dit", conditions="labels")
def dit() -> DiffusionPipeline:
    """DiT on ImageNet: epsilon and a learned variance, 1000 classes of which three have names."""
    net = DiTTransformer2DModel(
        **HEADS, in_channels=4, out_channels=8, num_layers=2, sample_size=8, patch_size=2, num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero", norm_elementwise_affine=False,
    )  # fmt: skip
    names = {0: "cat", 1: "dog", 2: "horse, pony"}
    pipe = DiTPipeline(awaken(net), parts.vae(), DDIMScheduler(**LINEAR, clip_sample=False), id2label=names)
    pipe.register_to_config(id2label=names)  # as in the released model_index.json; the class does not keep it
    return pipe


@family("pixart_sigma", clean_caption=False, use_resolution_binning=False, max_sequence_length=16)
def pixart_sigma() -> DiffusionPipeline:
    """PixArt-Sigma: epsilon and a learned variance, T5 with its mask."""
    net = PixArtTransformer2DModel(
        **HEADS, in_channels=4, out_channels=8, num_layers=2, sample_size=8, patch_size=2, cross_attention_dim=16,
        caption_channels=16, norm_type="ada_norm_single", use_additional_conditions=False,
    )  # fmt: skip
    return PixArtSigmaPipeline(
        tokenizer=parts.letter_tokenizer(), text_encoder=parts.t5(), vae=parts.vae(scaling_factor=0.13025),
        transformer=awaken(net), scheduler=DPMSolverMultistepScheduler(**LINEAR),
    )  # fmt: skip


@family("hunyuandit", height=64, width=64, use_resolution_binning=False)
def hunyuandit() -> DiffusionPipeline:
    """Hunyuan-DiT 1.2: v-prediction and a learned variance, BERT and T5, unbatched rotary embeddings."""
    net = HunyuanDiT2DModel(
        **HEADS, in_channels=4, patch_size=2, sample_size=8, hidden_size=16, num_layers=2, mlp_ratio=2.0,
        cross_attention_dim=16, cross_attention_dim_t5=16, pooled_projection_dim=16,
        use_style_cond_and_image_meta_size=False,
    )  # fmt: skip
    bert = BertConfig(
        vocab_size=len(parts.LETTERS) + 3, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=77,
    )  # fmt: skip
    vae = parts.vae(
        scaling_factor=0.13025, block_out_channels=(4,) * 4, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )  # the rotary grid takes a factor of 8 for granted  # fmt: skip
    scheduler = DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.018, clip_sample=False, steps_offset=1,
        prediction_type="v_prediction",
    )  # fmt: skip
    return HunyuanDiTPipeline(
        vae=vae, text_encoder=BertModel(bert).eval(), tokenizer=parts.letter_tokenizer(77), scheduler=scheduler,
        transformer=awaken(net, net.text_embedder.linear_1.weight, net.text_embedder.linear_2.weight),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        text_encoder_2=parts.t5(), tokenizer_2=parts.letter_tokenizer(256),
    )  # fmt: skip


def zero_snr(snr_shift_scale: float) -> CogVideoXDDIMScheduler:
    """What both CogView3+ and CogVideoX use: v-prediction, the schedule ends in pure noise."""
    return CogVideoXDDIMScheduler(
        **SCALED, clip_sample=False, prediction_type="v_prediction", rescale_betas_zero_snr=True,
        snr_shift_scale=snr_shift_scale, timestep_spacing="trailing",
    )  # fmt: skip


@family("cogview3plus", max_sequence_length=16)
def cogview3plus() -> DiffusionPipeline:
    """CogView3+: v-prediction, sizes and the crop as extra conditions."""
    net = CogView3PlusTransformer2DModel(
        **HEADS, patch_size=2, in_channels=4, out_channels=4, num_layers=2, text_embed_dim=16, time_embed_dim=16,
        condition_dim=4, pos_embed_max_size=8, sample_size=8,
    )  # fmt: skip
    return CogView3PlusPipeline(
        tokenizer=parts.letter_tokenizer(), text_encoder=parts.t5(), vae=parts.vae(scaling_factor=0.13025),
        transformer=awaken(net, *(block.attn1.to_out[0].weight for block in net.transformer_blocks)),
        scheduler=zero_snr(4.0),
    )  # fmt: skip


@family("cogvideox", modality="video", max_sequence_length=16)
def cogvideox() -> DiffusionPipeline:
    """CogVideoX 2b: v-prediction, frames before channels in the latents."""
    net = CogVideoXTransformer3DModel(
        **HEADS, in_channels=4, out_channels=4, time_embed_dim=16, text_embed_dim=16, num_layers=2, sample_width=8,
        sample_height=8, sample_frames=9, patch_size=2, temporal_compression_ratio=4, max_text_seq_length=16,
    )  # fmt: skip
    vae = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 3, up_block_types=("CogVideoXUpBlock3D",) * 3,
        block_out_channels=(4, 4, 4), latent_channels=4, layers_per_block=1, norm_num_groups=2, sample_height=32,
        sample_width=32,
    )  # fmt: skip
    return CogVideoXPipeline(
        tokenizer=parts.letter_tokenizer(), text_encoder=parts.t5(), vae=vae.eval(),
        transformer=awaken(net, *(block.attn1.to_out[0].weight for block in net.transformer_blocks)),
        scheduler=zero_snr(3.0),
    )  # fmt: skip


@family("latte", modality="video", height=16, width=16, video_length=3, clean_caption=False)
def latte() -> DiffusionPipeline:
    """Latte: epsilon and a learned variance, the prompt cut to its length."""
    net = LatteTransformer3DModel(
        **HEADS, in_channels=4, out_channels=8, num_layers=2, sample_size=8, patch_size=2, caption_channels=16,
        cross_attention_dim=16, attention_bias=True, activation_fn="gelu-approximate", num_embeds_ada_norm=1000,
        norm_type="ada_norm_single", norm_elementwise_affine=False, norm_eps=1e-6, video_length=3,
    )  # fmt: skip
    return LattePipeline(
        tokenizer=parts.letter_tokenizer(120), text_encoder=parts.t5(), vae=parts.vae(), transformer=awaken(net),
        scheduler=DDIMScheduler(**LINEAR, clip_sample=False),
    )  # fmt: skip


@family(
    "allegro", modality="video", height=64, width=64, num_frames=8, max_sequence_length=16, clean_caption=False,
    output_type="latent",
)  # its VAE decodes only after vae.enable_tiling(), and tiles no smaller than 24 frames  # fmt: skip
def allegro() -> DiffusionPipeline:
    """Allegro: epsilon on Euler's ancestral sigmas, unbatched rotary embeddings in nested tuples."""
    net = AllegroTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, num_layers=2, sample_height=8,
        sample_width=8, sample_frames=2, cross_attention_dim=24, caption_channels=16,
    )  # fmt: skip
    vae = AutoencoderKLAllegro(block_out_channels=(4,) * 4, layers_per_block=1, norm_num_groups=2, sample_size=128)
    return AllegroPipeline(
        tokenizer=parts.letter_tokenizer(), text_encoder=parts.t5(), vae=vae.eval(), transformer=awaken(net),
        scheduler=EulerAncestralDiscreteScheduler(**LINEAR),
    )  # fmt: skip
