"""Pipelines whose files were not to be had whole: parts copied out of texts, the rest by their classes."""

# fmt: off
from typing import Any

from published import PUBLISHED, published

T5: Any = None  # the encoder and tokenizer of T5, set below


def of(name: str, *parts: str) -> dict[str, Any]:
    """Parts of another entry."""
    return {part: PUBLISHED[name].parts[part] for part in parts}


def index(pipeline: str, version: str, **parts: tuple[str, str]) -> dict[str, Any]:
    """An index of these parts, each named by its library and class."""
    return {"_class_name": pipeline, "_diffusers_version": version, **{n: list(kind) for n, kind in parts.items()}}


KL = ("diffusers", "AutoencoderKL")

published(
    "ddpm-cifar10",
    "google/ddpm-cifar10-32: unet and scheduler out of a text; the index by their classes",
    index=index("DDPMPipeline", "0.1.1", scheduler=("diffusers", "DDPMScheduler"), unet=("diffusers", "UNet2DModel")),
    scheduler={
        "_class_name": "DDPMScheduler", "_diffusers_version": "0.1.1", "beta_end": 0.02, "beta_schedule": "linear",
        "beta_start": 0.0001, "clip_sample": True, "num_train_timesteps": 1000, "trained_betas": None,
        "variance_type": "fixed_large",
    },
    unet={
        "_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", "act_fn": "silu",
        "block_out_channels": [128, 256, 256, 256], "center_input_sample": False,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"], "downsample_padding": 0,
        "flip_sin_to_cos": False, "freq_shift": 1, "in_channels": 3, "layers_per_block": 2,
        "mid_block_scale_factor": 1, "norm_eps": 1e-06, "norm_num_groups": 32, "out_channels": 3, "sample_size": 32,
        "time_embedding_type": "positional", "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    },
)
published(
    "ddpm-cat-256",
    "google/ddpm-cat-256: unet and scheduler out of a text; the index by their classes",
    like="ddpm-cifar10",
    unet={
        "attention_head_dim": None, "block_out_channels": [128, 128, 256, 256, 512, 512], "sample_size": 256,
        "down_block_types": [*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4],
    },
    scheduler={"variance_type": "fixed_small"},
)
published(
    "ldm-text2im",
    "CompVis/ldm-text2im-large-256: unet and scheduler out of a text; vqvae, bert and tokenizer by their classes",
    index=index(
        "LDMTextToImagePipeline", "0.0.4", bert=("latent_diffusion", "LDMBertModel"),
        scheduler=("diffusers", "DDIMScheduler"), tokenizer=("transformers", "BertTokenizer"),
        unet=("diffusers", "UNet2DConditionModel"), vqvae=KL,
    ),
    bert={"architectures": ["LDMBertModel"], "model_type": "ldmbert", "d_model": 1280, "encoder_layers": 32,
          "encoder_ffn_dim": 5120, "encoder_attention_heads": 8, "head_dim": 64, "vocab_size": 30522,
          "max_position_embeddings": 77, "pad_token_id": 0},
    tokenizer={"do_lower_case": True, "model_max_length": 512, "tokenizer_class": "BertTokenizer"},
    scheduler={
        "_class_name": "DDIMScheduler", "_diffusers_version": "0.0.4", "beta_end": 0.012, "beta_schedule": "linear",
        "beta_start": 0.00085, "clip_sample": False, "num_train_timesteps": 1000, "timestep_values": None,
        "trained_betas": None,
    },
    unet={
        "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.0.4", "act_fn": "silu", "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": False,
        "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"], "downsample_padding": 1,
        "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2, "mid_block_scale_factor": 1,
        "norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4, "sample_size": 32,
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    },
    vqvae=PUBLISHED["sd-1.5"].parts["vae"],
)
published(
    "dit-xl-2-512",
    "facebook/DiT-XL-2-512: transformer out of a text; the rest by their classes",
    index={
        **index("DiTPipeline", "0.12.0.dev0", scheduler=("diffusers", "DDIMScheduler"),
                transformer=("diffusers", "Transformer2DModel"), vae=KL),
        "id2label": {"0": "tench, Tinca tinca", "1": "goldfish, Carassius auratus", "2": "great white shark"},
    },
    scheduler={
        "_class_name": "DDIMScheduler", "_diffusers_version": "0.12.0.dev0", "beta_end": 0.02,
        "beta_schedule": "linear", "beta_start": 0.0001, "clip_sample": False, "num_train_timesteps": 1000,
        "prediction_type": "epsilon", "set_alpha_to_one": True, "steps_offset": 0, "trained_betas": None,
    },
    transformer={
        "_class_name": "Transformer2DModel", "_diffusers_version": "0.12.0.dev0", "activation_fn": "gelu-approximate",
        "attention_bias": True, "attention_head_dim": 72, "cross_attention_dim": None, "dropout": 0.0, "in_channels": 4,
        "norm_elementwise_affine": False, "norm_num_groups": 32, "norm_type": "ada_norm_zero",
        "num_attention_heads": 16, "num_embeds_ada_norm": 1000, "num_layers": 28, "num_vector_embeds": None,
        "only_cross_attention": False, "out_channels": 8, "patch_size": 2, "sample_size": 64, "upcast_attention": False,
        "use_linear_projection": False,
    },
    vae=PUBLISHED["sd-1.5"].parts["vae"],
)
T5 = of("ltx-video-0.9.7", "text_encoder", "tokenizer")
TEXT: Any = {"text_encoder": ("transformers", "T5EncoderModel"), "tokenizer": ("transformers", "T5Tokenizer")}
published(
    "pixart-alpha",
    "PixArt-alpha/PixArt-XL-2-1024-MS: transformer out of a text; scheduler without its -Infinity; the rest by classes",
    index=index("PixArtAlphaPipeline", "0.22.0.dev0", scheduler=("diffusers", "DPMSolverMultistepScheduler"),
                transformer=("diffusers", "Transformer2DModel"), vae=KL, **TEXT),
    **T5,
    scheduler={
        "_class_name": "DPMSolverMultistepScheduler", "_diffusers_version": "0.22.0.dev0",
        "algorithm_type": "dpmsolver++", "beta_end": 0.02, "beta_schedule": "linear", "beta_start": 0.0001,
        "dynamic_thresholding_ratio": 0.995, "euler_at_final": False, "lower_order_final": True,
        "num_train_timesteps": 1000, "prediction_type": "epsilon", "sample_max_value": 1.0, "solver_order": 2,
        "solver_type": "midpoint", "steps_offset": 0, "thresholding": False, "timestep_spacing": "linspace",
        "trained_betas": None, "use_karras_sigmas": False, "use_lu_lambdas": False, "variance_type": None,
    },
    transformer={
        "_class_name": "Transformer2DModel", "_diffusers_version": "0.22.0.dev0", "activation_fn": "gelu-approximate",
        "attention_bias": True, "attention_head_dim": 72, "attention_type": "default", "caption_channels": 4096,
        "cross_attention_dim": 1152, "double_self_attention": False, "dropout": 0.0, "in_channels": 4,
        "norm_elementwise_affine": False, "norm_eps": 1e-06, "norm_num_groups": 32, "norm_type": "ada_norm_single",
        "num_attention_heads": 16, "num_embeds_ada_norm": 1000, "num_layers": 28, "num_vector_embeds": None,
        "only_cross_attention": False, "out_channels": 8, "patch_size": 2, "sample_size": 128,
        "upcast_attention": False, "use_linear_projection": False,
    },
    vae=PUBLISHED["sd-1.5"].parts["vae"],
)
published(
    "pixart-sigma",
    "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS: no file; the transformer and scheduler of PixArt-alpha, the vae of SDXL",
    like="pixart-alpha",
    index={"_class_name": "PixArtSigmaPipeline", "_diffusers_version": "0.28.0.dev0"},
    transformer={"_diffusers_version": "0.28.0.dev0", "interpolation_scale": 2, "use_additional_conditions": False},
    vae=PUBLISHED["sdxl-base-1.0"].parts["vae"],
)
published(
    "sana-600m",
    "Efficient-Large-Model/Sana_600M: transformer and vae out of a text; encoder_* and the rest by classes",
    index=index("SanaPipeline", "0.32.0.dev0", scheduler=("diffusers", "DPMSolverMultistepScheduler"),
                text_encoder=("transformers", "Gemma2Model"), tokenizer=("transformers", "GemmaTokenizerFast"),
                transformer=("diffusers", "SanaTransformer2DModel"), vae=("diffusers", "AutoencoderDC")),
    scheduler={
        "_class_name": "DPMSolverMultistepScheduler", "_diffusers_version": "0.32.0.dev0",
        "algorithm_type": "dpmsolver++", "beta_end": 0.02, "beta_schedule": "linear", "beta_start": 0.0001,
        "dynamic_thresholding_ratio": 0.995, "euler_at_final": False, "final_sigmas_type": "zero", "flow_shift": 3.0,
        "lower_order_final": True, "num_train_timesteps": 1000, "prediction_type": "flow_prediction",
        "rescale_betas_zero_snr": False, "sample_max_value": 1.0, "solver_order": 2, "solver_type": "midpoint",
        "steps_offset": 0, "thresholding": False, "timestep_spacing": "linspace", "trained_betas": None,
        "use_beta_sigmas": False, "use_exponential_sigmas": False, "use_flow_sigmas": True, "use_karras_sigmas": False,
        "use_lu_lambdas": False, "variance_type": None,
    },
    text_encoder={
        "architectures": ["Gemma2Model"], "model_type": "gemma2", "hidden_size": 2304, "intermediate_size": 9216,
        "num_attention_heads": 8, "num_hidden_layers": 26, "num_key_value_heads": 4, "head_dim": 256,
        "vocab_size": 256000, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1,
    },
    tokenizer={"model_max_length": 300, "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>",
               "tokenizer_class": "GemmaTokenizer"},
    transformer={
        "_class_name": "SanaTransformer2DModel", "attention_bias": False, "attention_head_dim": 32,
        "caption_channels": 2304, "cross_attention_dim": 1152, "cross_attention_head_dim": 72, "dropout": 0.0,
        "in_channels": 32, "mlp_ratio": 2.5, "norm_elementwise_affine": False, "norm_eps": 1e-06,
        "num_attention_heads": 36, "num_cross_attention_heads": 16, "num_layers": 28, "out_channels": 32,
        "patch_size": 1, "sample_size": 32,
    },
    vae={
        "_class_name": "AutoencoderDC", "attention_head_dim": 32, "decoder_act_fns": "silu",
        "decoder_block_out_channels": [128, 256, 512, 512, 1024, 1024],
        "decoder_block_types": [*["ResBlock"] * 3, *["EfficientViTBlock"] * 3],
        "decoder_layers_per_block": [3, 3, 3, 3, 3, 3], "decoder_norm_types": "rms_norm",
        "decoder_qkv_multiscales": [[], [], [], [5], [5], [5]], "downsample_block_type": "Conv",
        "encoder_block_out_channels": [128, 256, 512, 512, 1024, 1024],
        "encoder_block_types": [*["ResBlock"] * 3, *["EfficientViTBlock"] * 3],
        "encoder_layers_per_block": [2, 2, 2, 3, 3, 3], "encoder_qkv_multiscales": [[], [], [], [5], [5], [5]],
        "in_channels": 3, "latent_channels": 32, "scaling_factor": 0.41407, "upsample_block_type": "interpolate",
    },
)
published(
    "ltx-video-0.9",
    "Lightricks/LTX-Video@5260738e: scheduler, transformer and vae out of its conversion; the rest of 0.9.7",
    index=index("LTXPipeline", "0.32.0.dev0", scheduler=("diffusers", "FlowMatchEulerDiscreteScheduler"),
                transformer=("diffusers", "LTXVideoTransformer3DModel"), vae=("diffusers", "AutoencoderKLLTXVideo"),
                **TEXT),
    **T5,
    scheduler={
        "_class_name": "FlowMatchEulerDiscreteScheduler", "_diffusers_version": "0.32.0.dev0",
        "base_image_seq_len": 1024, "base_shift": 0.95, "invert_sigmas": False, "max_image_seq_len": 4096,
        "max_shift": 2.05, "num_train_timesteps": 1000, "shift": 1.0, "shift_terminal": 0.1, "use_beta_sigmas": False,
        "use_dynamic_shifting": True, "use_exponential_sigmas": False, "use_karras_sigmas": False,
    },
    transformer={
        "_class_name": "LTXVideoTransformer3DModel", "_diffusers_version": "0.32.0.dev0",
        "activation_fn": "gelu-approximate", "attention_bias": True, "attention_head_dim": 64,
        "attention_out_bias": True, "caption_channels": 4096, "cross_attention_dim": 2048, "in_channels": 128,
        "norm_elementwise_affine": False, "norm_eps": 1e-06, "num_attention_heads": 32, "num_layers": 28,
        "out_channels": 128, "patch_size": 1, "patch_size_t": 1, "qk_norm": "rms_norm_across_heads",
    },
    vae={
        "_class_name": "AutoencoderKLLTXVideo", "_diffusers_version": "0.32.0.dev0",
        "block_out_channels": [128, 256, 512, 512], "decoder_causal": False, "encoder_causal": True, "in_channels": 3,
        "latent_channels": 128, "layers_per_block": [4, 3, 3, 3, 4], "out_channels": 3, "patch_size": 4,
        "patch_size_t": 1, "resnet_norm_eps": 1e-06, "scaling_factor": 1.0,
        "spatio_temporal_scaling": [True, True, True, False],
    },
)
published(
    "wan2.2-t2v-a14b",
    "ostris/ai-toolkit@27a03a91 (scheduler); the rest out of texts; no index, so no boundary_ratio",
    like="wan2.1-t2v-1.3b",
    index={"_diffusers_version": "0.35.0.dev0", "transformer_2": ["diffusers", "WanTransformer3DModel"]},
    scheduler={
        "_diffusers_version": "0.35.0.dev0", "time_shift_type": "exponential", "use_dynamic_shifting": False,
    },
    transformer={
        "_diffusers_version": "0.35.0.dev0", "ffn_dim": 13824, "num_attention_heads": 40, "num_layers": 40,
        "pos_embed_seq_len": None,
    },
    transformer_2={**PUBLISHED["wan2.1-t2v-1.3b"].parts["transformer"], "_diffusers_version": "0.35.0.dev0"},
    vae={"_diffusers_version": "0.35.0.dev0"},
)
