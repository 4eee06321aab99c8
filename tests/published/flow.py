"""Rectified flows that make images."""

# fmt: off
# ruff: noqa: E501 -- paths as published
from published import ABSENT, published

published(
    "sd3-medium",
    "lllyasviel/stable-diffusion-webui-forge@dfdcbab6",
    like="sdxl-turbo-resaved",
    unet=ABSENT,
    index={
        "_name_or_path": ABSENT, "force_zeros_for_empty_prompt": ABSENT, "unet": ABSENT,
        "_class_name": "StableDiffusion3Pipeline", "_diffusers_version": "0.29.0.dev0", "scheduler": ["diffusers",
        "FlowMatchEulerDiscreteScheduler"], "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
        "text_encoder_3": ["transformers", "T5EncoderModel"], "tokenizer_3": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "SD3Transformer2DModel"],
    },
    scheduler={
        "beta_end": ABSENT, "beta_schedule": ABSENT, "beta_start": ABSENT, "clip_sample": ABSENT,
        "interpolation_type": ABSENT, "prediction_type": ABSENT, "sample_max_value": ABSENT,
        "set_alpha_to_one": ABSENT, "skip_prk_steps": ABSENT, "steps_offset": ABSENT, "timestep_spacing": ABSENT,
        "trained_betas": ABSENT, "_class_name": "FlowMatchEulerDiscreteScheduler",
        "_diffusers_version": "0.29.0.dev0", "shift": 3.0,
    },
    text_encoder={
        "_name_or_path": ABSENT, "architectures": ["CLIPTextModelWithProjection"], "transformers_version": "4.41.2",
    },
    text_encoder_2={"_name_or_path": ABSENT, "transformers_version": "4.41.2"},
    text_encoder_3={
        "architectures": ["T5EncoderModel"], "classifier_dropout": 0.0, "d_ff": 10240, "d_kv": 64, "d_model": 4096,
        "decoder_start_token_id": 0, "dense_act_fn": "gelu_new", "dropout_rate": 0.1, "eos_token_id": 1,
        "feed_forward_proj": "gated-gelu", "initializer_factor": 1.0, "is_encoder_decoder": True,
        "is_gated_act": True, "layer_norm_epsilon": 1e-06, "model_type": "t5", "num_decoder_layers": 24,
        "num_heads": 64, "num_layers": 24, "output_past": True, "pad_token_id": 0,
        "relative_attention_max_distance": 128, "relative_attention_num_buckets": 32, "tie_word_embeddings": False,
        "torch_dtype": "float16", "transformers_version": "4.41.2", "use_cache": True, "vocab_size": 32128,
    },
    tokenizer_3={
        "add_prefix_space": True, "added_tokens_decoder": {"0": {"content": "<pad>", "lstrip": False,
        "normalized": False, "rstrip": False, "single_word": False, "special": True}, "1": {"content": "</s>",
        "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True},
        "2": {"content": "<unk>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
        "special": True}}, "additional_special_tokens": [], "clean_up_tokenization_spaces": True,
        "eos_token": "</s>", "extra_ids": 100, "legacy": True, "model_max_length": 512, "pad_token": "<pad>",
        "sp_model_kwargs": {}, "tokenizer_class": "T5Tokenizer", "unk_token": "<unk>",
    },
    transformer={
        "_class_name": "SD3Transformer2DModel", "_diffusers_version": "0.29.0.dev0", "attention_head_dim": 64,
        "caption_projection_dim": 1536, "in_channels": 16, "joint_attention_dim": 4096, "num_attention_heads": 24,
        "num_layers": 24, "out_channels": 16, "patch_size": 2, "pooled_projection_dim": 2048,
        "pos_embed_max_size": 192, "sample_size": 128,
    },
    vae={
        "_name_or_path": ABSENT, "_diffusers_version": "0.29.0.dev0", "latent_channels": 16, "latents_mean": None,
        "latents_std": None, "scaling_factor": 1.5305, "shift_factor": 0.0609, "use_post_quant_conv": False,
        "use_quant_conv": False,
    },
)
published(
    "sd3.5-large",
    "smthemex/ComfyUI_StoryDiffusion@e4e0acdf",
    like="sd3-medium",
    index={"_diffusers_version": "0.30.3.dev0"},
    transformer={
        "_diffusers_version": "0.31.0.dev0", "caption_projection_dim": 2432, "num_attention_heads": 38,
        "num_layers": 38, "qk_norm": "rms_norm",
    },
    vae={"_diffusers_version": "0.31.0.dev0", "_name_or_path": "../sdxl-vae/", "mid_block_add_attention": True},
)
published(
    "flux.1-dev",
    "smthemex/ComfyUI_StoryDiffusion@e4e0acdf",
    index={
        "_class_name": "FluxPipeline", "_diffusers_version": "0.30.0.dev0", "scheduler": ["diffusers",
        "FlowMatchEulerDiscreteScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "T5EncoderModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "T5TokenizerFast"], "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    },
    scheduler={
        "_class_name": "FlowMatchEulerDiscreteScheduler", "_diffusers_version": "0.30.0.dev0",
        "base_image_seq_len": 256, "base_shift": 0.5, "max_image_seq_len": 4096, "max_shift": 1.15,
        "num_train_timesteps": 1000, "shift": 3.0, "use_dynamic_shifting": True,
    },
    text_encoder={
        "_name_or_path": "openai/clip-vit-large-patch14", "architectures": ["CLIPTextModel"],
        "attention_dropout": 0.0, "bos_token_id": 0, "dropout": 0.0, "eos_token_id": 2, "hidden_act": "quick_gelu",
        "hidden_size": 768, "initializer_factor": 1.0, "initializer_range": 0.02, "intermediate_size": 3072,
        "layer_norm_eps": 1e-05, "max_position_embeddings": 77, "model_type": "clip_text_model",
        "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 1, "projection_dim": 768,
        "torch_dtype": "bfloat16", "transformers_version": "4.43.3", "vocab_size": 49408,
    },
    text_encoder_2={
        "_name_or_path": "google/t5-v1_1-xxl", "architectures": ["T5EncoderModel"], "classifier_dropout": 0.0,
        "d_ff": 10240, "d_kv": 64, "d_model": 4096, "decoder_start_token_id": 0, "dense_act_fn": "gelu_new",
        "dropout_rate": 0.1, "eos_token_id": 1, "feed_forward_proj": "gated-gelu", "initializer_factor": 1.0,
        "is_encoder_decoder": True, "is_gated_act": True, "layer_norm_epsilon": 1e-06, "model_type": "t5",
        "num_decoder_layers": 24, "num_heads": 64, "num_layers": 24, "output_past": True, "pad_token_id": 0,
        "relative_attention_max_distance": 128, "relative_attention_num_buckets": 32, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "transformers_version": "4.43.3", "use_cache": True, "vocab_size": 32128,
    },
    tokenizer={
        "add_prefix_space": False, "added_tokens_decoder": {}, "bos_token": "<|startoftext|>",
        "clean_up_tokenization_spaces": True, "do_lower_case": True, "eos_token": "<|endoftext|>",
        "errors": "replace", "model_max_length": 77, "pad_token": "<|endoftext|>",
        "tokenizer_class": "CLIPTokenizer", "unk_token": "<|endoftext|>",
    },
    tokenizer_2={
        "add_prefix_space": True, "added_tokens_decoder": {"0": {"content": "<pad>", "lstrip": False,
        "normalized": False, "rstrip": False, "single_word": False, "special": True}, "1": {"content": "</s>",
        "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True},
        "2": {"content": "<unk>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
        "special": True}}, "additional_special_tokens": [], "clean_up_tokenization_spaces": True,
        "eos_token": "</s>", "extra_ids": 100, "legacy": True, "model_max_length": 512, "pad_token": "<pad>",
        "sp_model_kwargs": {}, "tokenizer_class": "T5Tokenizer", "unk_token": "<unk>",
    },
    transformer={
        "_class_name": "FluxTransformer2DModel", "_diffusers_version": "0.30.0.dev0",
        "_name_or_path": "../checkpoints/flux-dev/transformer", "attention_head_dim": 128, "guidance_embeds": True,
        "in_channels": 64, "joint_attention_dim": 4096, "num_attention_heads": 24, "num_layers": 19,
        "num_single_layers": 38, "patch_size": 1, "pooled_projection_dim": 768,
    },
    vae={
        "_class_name": "AutoencoderKL", "_diffusers_version": "0.30.0.dev0",
        "_name_or_path": "../checkpoints/flux-dev", "act_fn": "silu", "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4, "force_upcast": True, "in_channels": 3,
        "latent_channels": 16, "latents_mean": None, "latents_std": None, "layers_per_block": 2,
        "mid_block_add_attention": True, "norm_num_groups": 32, "out_channels": 3, "sample_size": 1024,
        "scaling_factor": 0.3611, "shift_factor": 0.1159, "up_block_types": ["UpDecoderBlock2D"] * 4,
        "use_post_quant_conv": False, "use_quant_conv": False,
    },
)
published(
    "flux.1-schnell",
    "allenshore989/FLUX.1-schnell@bcfcda87",
    like="flux.1-dev",
    scheduler={"shift": 1.0, "use_dynamic_shifting": False},
    transformer={"_name_or_path": ABSENT, "guidance_embeds": False},
    vae={"_name_or_path": ABSENT},
)
published(
    "flux.1-schnell-resaved",
    "edkamesh/FluX-optimized@9de983a7",
    like="flux.1-schnell",
    index={"_diffusers_version": "0.31.0.dev0", "_name_or_path": "black-forest-labs/FLUX.1-schnell"},
    scheduler={"_diffusers_version": "0.31.0.dev0"},
    text_encoder={
        "_name_or_path": "/root/.cache/huggingface/hub/models--black-forest-labs--FLUX.1-schnell/snapshots/741f7c3ce8b383c54771c7003378a50191e9efe9/text_encoder",
        "torch_dtype": "float16", "transformers_version": "4.46.1",
    },
    text_encoder_2={
        "_name_or_path": "black-forest-labs/FLUX.1-schnell", "quantization_config": {"_load_in_4bit": True,
        "_load_in_8bit": False, "bnb_4bit_compute_dtype": "float16", "bnb_4bit_quant_storage": "uint8",
        "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": False, "llm_int8_enable_fp32_cpu_offload": False,
        "llm_int8_has_fp16_weight": False, "llm_int8_skip_modules": None, "llm_int8_threshold": 6.0,
        "load_in_4bit": True, "load_in_8bit": False, "quant_method": "bitsandbytes"}, "torch_dtype": "float16",
        "transformers_version": "4.46.1",
    },
    transformer={
        "_diffusers_version": "0.31.0.dev0", "_name_or_path": "black-forest-labs/FLUX.1-schnell",
        "axes_dims_rope": [16, 56, 56], "quantization_config": {"_load_in_4bit": True, "_load_in_8bit": False,
        "bnb_4bit_compute_dtype": "float16", "bnb_4bit_quant_storage": "uint8", "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": False, "llm_int8_enable_fp32_cpu_offload": False,
        "llm_int8_has_fp16_weight": False, "llm_int8_skip_modules": None, "llm_int8_threshold": 6.0,
        "load_in_4bit": True, "load_in_8bit": False, "quant_method": "bitsandbytes"},
    },
    vae={
        "_diffusers_version": "0.31.0.dev0",
        "_name_or_path": "/root/.cache/huggingface/hub/models--black-forest-labs--FLUX.1-schnell/snapshots/741f7c3ce8b383c54771c7003378a50191e9efe9/vae",
    },
)
