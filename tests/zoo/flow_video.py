"""Flow-matching video pipelines."""

from typing import Any

from diffusers import (
    AutoencoderKLHunyuanVideo,
    AutoencoderKLLTXVideo,
    AutoencoderKLMochi,
    AutoencoderKLWan,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    Kandinsky5T2VPipeline,
    Kandinsky5Transformer3DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    MochiPipeline,
    MochiTransformer3DModel,
    SanaVideoPipeline,
    SanaVideoTransformer3DModel,
    SkyReelsV2Pipeline,
    SkyReelsV2Transformer3DModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from tokenizers import AddedToken, processors
from transformers import (
    Gemma2Config,
    Gemma2Model,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    UMT5Config,
    UMT5EncoderModel,
)

from zoo import family, parts


def umt5() -> UMT5EncoderModel:
    """A UMT5 encoder over `parts.letter_tokenizer`."""
    config = UMT5Config(
        vocab_size=len(parts.LETTERS) + 3, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
        is_encoder_decoder=False, use_cache=False,
    )  # fmt: skip
    return UMT5EncoderModel(config).eval()


def wan_vae(channels: int = 4) -> AutoencoderKLWan:
    """Wan's causal VAE: 2 x 4 x 4, the first frame alone."""
    return AutoencoderKLWan(
        base_dim=4, z_dim=channels, dim_mult=[1, 2, 2], num_res_blocks=1, temperal_downsample=[False, True],
        latents_mean=[0.1 * i for i in range(channels)], latents_std=[1.0 + 0.1 * i for i in range(channels)],
        scale_factor_temporal=2, scale_factor_spatial=4,
    ).eval()  # fmt: skip


def wan_transformer(cls: Any = WanTransformer3DModel) -> Any:
    """Two blocks of Wan's transformer, or of one that takes the same arguments."""
    return cls(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16, freq_dim=32,
        ffn_dim=32, num_layers=2, rope_max_seq_len=32,
    ).eval()  # fmt: skip


def flow_unipc(shift: float) -> UniPCMultistepScheduler:
    """UniPC on flow sigmas."""
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)


@family("wan", modality="video", height=32, width=32, num_frames=3, max_sequence_length=16)
def wan() -> DiffusionPipeline:
    """Wan 2.1 text to video."""
    return WanPipeline(
        tokenizer=parts.letter_tokenizer(), text_encoder=umt5(), vae=wan_vae(), scheduler=flow_unipc(3.0),
        transformer=wan_transformer(),
    )  # fmt: skip


@family("wan22", modality="video", height=32, width=32, num_frames=3, max_sequence_length=16)
def wan22() -> DiffusionPipeline:
    """Wan 2.2 A14B text to video: one transformer for the high noise levels, another for the low ones."""
    return WanPipeline(
        tokenizer=parts.letter_tokenizer(), text_encoder=umt5(), vae=wan_vae(), scheduler=flow_unipc(3.0),
        transformer=wan_transformer(), transformer_2=wan_transformer(), boundary_ratio=0.875,
    )  # fmt: skip


@family("skyreels2", modality="video", height=32, width=32, num_frames=3, max_sequence_length=16)
def skyreels2() -> DiffusionPipeline:
    """SkyReels V2 text to video."""
    return SkyReelsV2Pipeline(
        tokenizer=parts.letter_tokenizer(), text_encoder=umt5(), vae=wan_vae(), scheduler=flow_unipc(8.0),
        transformer=wan_transformer(SkyReelsV2Transformer3DModel),
    )  # fmt: skip


@family("ltx", modality="video", height=32, width=32, num_frames=3, max_sequence_length=16)
def ltx() -> DiffusionPipeline:
    """LTX-Video 0.9: dynamic shift, stretched to end at 0.1."""
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, max_image_seq_len=4096,
        shift_terminal=0.1,
    )  # fmt: skip
    vae = AutoencoderKLLTXVideo(
        latent_channels=4, block_out_channels=(8, 8), down_block_types=("LTXVideoDownBlock3D",) * 2,
        decoder_block_out_channels=(8, 8), layers_per_block=(1, 1, 1), decoder_layers_per_block=(1, 1, 1),
        spatio_temporal_scaling=(True, False), decoder_spatio_temporal_scaling=(True, False),
        decoder_inject_noise=(False,) * 3, downsample_type=("conv",) * 2, upsample_residual=(False,) * 2,
        upsample_factor=(1, 1), patch_size=2,
    ).eval()  # fmt: skip
    transformer = LTXVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, cross_attention_dim=24,
        num_layers=2, caption_channels=16,
    )  # fmt: skip
    return LTXPipeline(
        scheduler=scheduler, vae=vae, text_encoder=parts.t5(), tokenizer=parts.letter_tokenizer(),
        transformer=parts.awaken(transformer),
    )  # fmt: skip


@family("mochi", modality="video", height=48, width=48, num_frames=7, max_sequence_length=16)
def mochi() -> DiffusionPipeline:
    """Mochi 1: sigmas that rise from 0 to 1; its pipeline fixes a VAE of 12 channels, 6 x 8 x 8."""
    vae = AutoencoderKLMochi(
        encoder_block_out_channels=(32,) * 4, decoder_block_out_channels=(32,) * 4, layers_per_block=(1, 0, 0, 0, 0),
        add_attention_block=(False,) * 5,
    ).eval()  # fmt: skip
    transformer = MochiTransformer3DModel(
        num_attention_heads=2, attention_head_dim=8, num_layers=2, pooled_projection_dim=16, text_embed_dim=16,
        time_embed_dim=16, max_sequence_length=16,
    )  # fmt: skip
    return MochiPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True), vae=vae, text_encoder=parts.t5(),
        tokenizer=parts.letter_tokenizer(), transformer=parts.awaken(transformer),
    )  # fmt: skip


def chat_tokenizer(template: str, length: int) -> PreTrainedTokenizerFast:
    """Letters as tokens, but what `template` puts before the prompt is `length` tokens, as many as a pipeline crops."""
    tokenizer = parts.letter_tokenizer(1024)
    before, after = template.split("{}")
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=True) for text in (before, after)])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join(["</s>"] * (length - 1) + ["$A"]), special_tokens=[("</s>", 1)]
    )
    return tokenizer


def hunyuan_vae() -> AutoencoderKLHunyuanVideo:
    """HunyuanVideo's causal VAE: 4 x 4 x 4."""
    return AutoencoderKLHunyuanVideo(
        latent_channels=4, down_block_types=("HunyuanVideoDownBlock3D",) * 3,
        up_block_types=("HunyuanVideoUpBlock3D",) * 3, block_out_channels=(4, 4, 4), layers_per_block=1,
        norm_num_groups=2, spatial_compression_ratio=4,
    ).eval()  # fmt: skip


@family("hunyuanvideo", modality="video", height=32, width=32, num_frames=5, max_sequence_length=16)
def hunyuanvideo() -> DiffusionPipeline:
    """HunyuanVideo: guidance-distilled, shift 7."""
    llama = LlamaConfig(
        vocab_size=len(parts.LETTERS) + 5, hidden_size=16, intermediate_size=32, num_hidden_layers=4,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=512, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=1, num_single_layers=1,
        num_refiner_layers=1, mlp_ratio=2.0, text_embed_dim=16, pooled_projection_dim=16, rope_axes_dim=(4, 2, 2),
    )  # fmt: skip
    return HunyuanVideoPipeline(
        text_encoder=LlamaModel(llama).eval(),
        tokenizer=chat_tokenizer(DEFAULT_PROMPT_TEMPLATE["template"], DEFAULT_PROMPT_TEMPLATE["crop_start"]),
        transformer=parts.awaken(transformer), vae=hunyuan_vae(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0), text_encoder_2=parts.clip(),
        tokenizer_2=parts.clip_tokenizer(),
    )  # fmt: skip


@family(
    "sana_video", modality="video", height=32, width=32, frames=3, max_sequence_length=16, use_resolution_binning=False
)
def sana_video() -> DiffusionPipeline:
    """SANA-Video 2B 480p: linear attention, flow DPM-Solver++."""
    gemma = Gemma2Config(
        vocab_size=len(parts.LETTERS) + 3, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=2048, query_pre_attn_scalar=8,
        pad_token_id=0, eos_token_id=1, bos_token_id=1, initializer_range=0.5,
    )  # fmt: skip
    transformer = SanaVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=2,
        num_cross_attention_heads=2, cross_attention_head_dim=12, cross_attention_dim=24, caption_channels=16,
        rope_max_seq_len=32,
    )  # fmt: skip
    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0)
    return SanaVideoPipeline(
        tokenizer=parts.letter_tokenizer(2048), text_encoder=Gemma2Model(gemma).eval(), vae=wan_vae(),
        transformer=parts.awaken(transformer), scheduler=scheduler,
    )  # fmt: skip


def qwen_vl() -> Qwen2_5_VLForConditionalGeneration:
    """Qwen2.5-VL over `chat_tokenizer`; its eyes stay shut."""
    text = {
        "vocab_size": len(parts.LETTERS) + 5, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 2048, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
    }  # fmt: skip
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 16}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision)).eval()


@family("kandinsky5", modality="video", height=32, width=32, num_frames=5)
def kandinsky5() -> DiffusionPipeline:
    """Kandinsky 5.0 T2V Lite: channels last, rotary embeddings rounded to bfloat16."""
    transformer = Kandinsky5Transformer3DModel(
        in_visual_dim=4, in_text_dim=16, in_text_dim2=16, time_dim=16, out_visual_dim=4, model_dim=16, ff_dim=32,
        num_text_blocks=1, num_visual_blocks=1, axes_dims=(4, 2, 2), visual_cond=True,
    )  # fmt: skip
    pipeline = Kandinsky5T2VPipeline(
        transformer=parts.awaken(transformer), vae=hunyuan_vae(), text_encoder=qwen_vl(), tokenizer=None,
        text_encoder_2=parts.clip(), tokenizer_2=parts.clip_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
    )  # fmt: skip
    tokenizer = chat_tokenizer(pipeline.prompt_template, pipeline.prompt_template_encode_start_idx)
    pipeline.register_modules(tokenizer=tokenizer)
    return pipeline
