"""Flow-matching video pipelines whose guidance is a component, a guider."""

import diffusers
from diffusers import (
    AutoencoderKLHunyuanVideo15,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
)
from diffusers.guiders import ClassifierFreeGuidance
from transformers import ByT5Tokenizer, Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

from zoo import family, parts
from zoo.flow_image_llm import MROPE, SMALL, word_tokenizer
from zoo.flow_video import wan_vae


def hunyuanvideo15() -> DiffusionPipeline:
    """HunyuanVideo 1.5: a plain guider, 1729 tokens of text and image whatever the size, so it is no family here."""
    net = HunyuanVideo15Transformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=1, num_refiner_layers=1,
        mlp_ratio=2.0, patch_size=1, patch_size_t=1, text_embed_dim=16, text_embed_2_dim=16, image_embed_dim=12,
        rope_axes_dim=(2, 2, 4), target_size=16, task_type="t2v",
    )  # fmt: skip
    vae = AutoencoderKLHunyuanVideo15(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(16, 16), layers_per_block=1,
        spatial_compression_ratio=4, temporal_compression_ratio=2, downsample_match_channel=False,
        upsample_match_channel=False,
    )  # fmt: skip
    text = Qwen2_5_VLTextConfig(**{**SMALL, "num_hidden_layers": 3, "rope_parameters": MROPE})
    return HunyuanVideo15Pipeline(
        text_encoder=Qwen2_5_VLTextModel(text).eval(), tokenizer=word_tokenizer(), transformer=parts.awaken(net),
        vae=vae.eval(), scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0), text_encoder_2=parts.t5(),
        tokenizer_2=ByT5Tokenizer(), guider=ClassifierFreeGuidance(guidance_scale=6.0),
    )  # fmt: skip


def motif_video() -> DiffusionPipeline:
    """Motif-Video: a plain guider, empty latents and a mask beside the sample."""
    net = diffusers.MotifVideoTransformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=1, num_single_layers=1,
        mlp_ratio=2.0, patch_size=1, patch_size_t=1, qk_norm="rms_norm", text_embed_dim=16, rope_axes_dim=(4, 4, 4),
    )  # fmt: skip
    return diffusers.MotifVideoPipeline(
        transformer=parts.awaken(net), vae=wan_vae(), scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder=parts.t5(), tokenizer=parts.letter_tokenizer(), feature_extractor=None,
        guider=ClassifierFreeGuidance(guidance_scale=6.0),
    )  # fmt: skip


if hasattr(diffusers, "MotifVideoPipeline"):
    family("motif_video", modality="video", height=16, width=16, num_frames=5, max_sequence_length=16)(motif_video)
