"""Stable Diffusion XL and its fine-tunes."""

# fmt: off
# ruff: noqa: E501 -- paths as published
from published import ABSENT, published

published(
    "sdxl-base-1.0",
    "HDRJ-One/stable-diffusion-xl-base-1.0@46216598",
    like="dreamshaper-8",
    feature_extractor=ABSENT,
    safety_checker=ABSENT,
    index={
        "_name_or_path": ABSENT, "feature_extractor": ABSENT, "requires_safety_checker": ABSENT,
        "safety_checker": ABSENT, "_class_name": "StableDiffusionXLPipeline", "_diffusers_version": "0.19.0.dev0",
        "force_zeros_for_empty_prompt": True, "add_watermarker": None, "scheduler": ["diffusers",
        "EulerDiscreteScheduler"], "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
    },
    scheduler={
        "algorithm_type": ABSENT, "dynamic_thresholding_ratio": ABSENT, "lower_order_final": ABSENT,
        "solver_order": ABSENT, "solver_type": ABSENT, "thresholding": ABSENT,
        "_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.19.0.dev0", "interpolation_type": "linear",
    },
    text_encoder={"_name_or_path": ABSENT, "transformers_version": "4.32.0.dev0"},
    text_encoder_2={
        "architectures": ["CLIPTextModelWithProjection"], "attention_dropout": 0.0, "bos_token_id": 0,
        "dropout": 0.0, "eos_token_id": 2, "hidden_act": "gelu", "hidden_size": 1280, "initializer_factor": 1.0,
        "initializer_range": 0.02, "intermediate_size": 5120, "layer_norm_eps": 1e-05, "max_position_embeddings": 77,
        "model_type": "clip_text_model", "num_attention_heads": 20, "num_hidden_layers": 32, "pad_token_id": 1,
        "projection_dim": 1280, "torch_dtype": "float16", "transformers_version": "4.32.0.dev0", "vocab_size": 49408,
    },
    tokenizer_2={
        "add_prefix_space": False, "bos_token": {"__type": "AddedToken", "content": "<|startoftext|>",
        "lstrip": False, "normalized": True, "rstrip": False, "single_word": False},
        "clean_up_tokenization_spaces": True, "do_lower_case": True, "eos_token": {"__type": "AddedToken",
        "content": "<|endoftext|>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False},
        "errors": "replace", "model_max_length": 77, "pad_token": "!", "tokenizer_class": "CLIPTokenizer",
        "unk_token": {"__type": "AddedToken", "content": "<|endoftext|>", "lstrip": False, "normalized": True,
        "rstrip": False, "single_word": False},
    },
    unet={
        "_name_or_path": ABSENT, "attention_type": ABSENT, "_diffusers_version": "0.19.0.dev0",
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "attention_head_dim": [5, 10, 20],
        "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048, "down_block_types": ["DownBlock2D",
        "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"], "projection_class_embeddings_input_dim": 2816,
        "sample_size": 128, "transformer_layers_per_block": [1, 2, 10], "up_block_types": ["CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D", "UpBlock2D"], "use_linear_projection": True,
    },
    vae={
        "_diffusers_version": "0.20.0.dev0", "_name_or_path": "../sdxl-vae/", "sample_size": 1024,
        "scaling_factor": 0.13025,
    },
)
published(
    "sdxl-turbo-resaved",
    "invoke-ai/InvokeAI@8e71a8a5",
    like="sdxl-base-1.0",
    index={
        "add_watermarker": ABSENT, "_diffusers_version": "0.23.0", "_name_or_path": "stabilityai/sdxl-turbo",
        "scheduler": ["diffusers", "EulerAncestralDiscreteScheduler"],
    },
    scheduler={
        "use_karras_sigmas": ABSENT, "_class_name": "EulerAncestralDiscreteScheduler",
        "_diffusers_version": "0.23.0", "timestep_spacing": "trailing",
    },
    text_encoder={
        "_name_or_path": "/home/user/.cache/huggingface/hub/models--stabilityai--sdxl-turbo/snapshots/fbda35297a8280789ffe2e25206800702fa5c4c1/text_encoder",
        "transformers_version": "4.35.0",
    },
    text_encoder_2={
        "_name_or_path": "/home/user/.cache/huggingface/hub/models--stabilityai--sdxl-turbo/snapshots/fbda35297a8280789ffe2e25206800702fa5c4c1/text_encoder_2",
        "transformers_version": "4.35.0",
    },
    tokenizer={
        "added_tokens_decoder": {}, "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    },
    tokenizer_2={
        "added_tokens_decoder": {}, "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    },
    unet={
        "_diffusers_version": "0.23.0",
        "_name_or_path": "/home/user/.cache/huggingface/hub/models--stabilityai--sdxl-turbo/snapshots/fbda35297a8280789ffe2e25206800702fa5c4c1/unet",
        "attention_type": "default", "dropout": 0.0, "reverse_transformer_layers_per_block": None, "sample_size": 64,
    },
    vae={
        "_diffusers_version": "0.23.0",
        "_name_or_path": "/home/user/.cache/huggingface/hub/models--stabilityai--sdxl-turbo/snapshots/fbda35297a8280789ffe2e25206800702fa5c4c1/vae",
    },
)
published(
    "sdxl-inpainting-0.1",
    "lllyasviel/stable-diffusion-webui-forge@dfdcbab6",
    like="sdxl-base-1.0",
    index={
        "add_watermarker": ABSENT, "_class_name": "StableDiffusionXLInpaintPipeline",
        "_diffusers_version": "0.21.0.dev0", "_name_or_path": "stabilityai/stable-diffusion-xl-base-1.0",
        "requires_aesthetics_score": False,
    },
    scheduler={"_diffusers_version": "0.21.0.dev0"},
    text_encoder={
        "_name_or_path": "/home/user/.cache/huggingface/hub/models--stabilityai--stable-diffusion-xl-base-1.0/snapshots/bf714989e22c57ddc1c453bf74dab4521acb81d8/text_encoder",
        "transformers_version": "4.29.2",
    },
    text_encoder_2={
        "_name_or_path": "/home/user/.cache/huggingface/hub/models--stabilityai--stable-diffusion-xl-base-1.0/snapshots/bf714989e22c57ddc1c453bf74dab4521acb81d8/text_encoder_2",
        "transformers_version": "4.29.2",
    },
    unet={
        "_diffusers_version": "0.21.0.dev0", "_name_or_path": "valhalla/sdxl-inpaint-ema",
        "attention_type": "default", "decay": 0.9999, "in_channels": 9, "inv_gamma": 1.0, "min_decay": 0.0,
        "optimization_step": 37000, "power": 0.6666666666666666, "update_after_step": 0, "use_ema_warmup": False,
    },
    vae={
        "_diffusers_version": "0.21.0.dev0", "_name_or_path": "madebyollin/sdxl-vae-fp16-fix", "force_upcast": False,
        "sample_size": 512,
    },
)
published(
    "sdxl-refiner-1.0",
    "reaperyasir11/aaaa@fb6d705f",
    like="sdxl-base-1.0",
    text_encoder=ABSENT,
    tokenizer=ABSENT,
    index={
        "add_watermarker": ABSENT, "_class_name": "StableDiffusionXLImg2ImgPipeline",
        "force_zeros_for_empty_prompt": False, "requires_aesthetics_score": True, "text_encoder": [None, None],
        "tokenizer": [None, None],
    },
    unet={
        "attention_head_dim": [6, 12, 24, 24], "block_out_channels": [384, 768, 1536, 1536],
        "cross_attention_dim": 1280, "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D", "DownBlock2D"], "projection_class_embeddings_input_dim": 2560,
        "transformer_layers_per_block": 4, "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D", "UpBlock2D"],
    },
    vae={"sample_size": 512},
)
published(
    "sdxl-refiner-1.0-last",
    "vladmandic/sdnext@058a7f0c",
    like="sdxl-refiner-1.0",
    index={"add_watermarker": None},
    vae={"sample_size": 1024},
)
published(
    "playground-2.5",
    "lllyasviel/stable-diffusion-webui-forge@dfdcbab6",
    like="sdxl-turbo-resaved",
    index={
        "_name_or_path": ABSENT, "_diffusers_version": "0.27.0.dev0", "feature_extractor": [None, None],
        "image_encoder": [None, None], "scheduler": ["diffusers", "EDMDPMSolverMultistepScheduler"],
    },
    scheduler={
        "beta_end": ABSENT, "beta_schedule": ABSENT, "beta_start": ABSENT, "clip_sample": ABSENT,
        "interpolation_type": ABSENT, "set_alpha_to_one": ABSENT, "skip_prk_steps": ABSENT, "steps_offset": ABSENT,
        "timestep_spacing": ABSENT, "trained_betas": ABSENT, "_class_name": "EDMDPMSolverMultistepScheduler",
        "_diffusers_version": "0.27.0.dev0", "algorithm_type": "dpmsolver++", "dynamic_thresholding_ratio": 0.995,
        "euler_at_final": False, "final_sigmas_type": "zero", "lower_order_final": True, "rho": 7.0,
        "sigma_data": 0.5, "sigma_max": 80.0, "sigma_min": 0.002, "solver_order": 2, "solver_type": "midpoint",
        "thresholding": False,
    },
    text_encoder={"_name_or_path": ABSENT, "torch_dtype": "float32", "transformers_version": "4.35.2"},
    text_encoder_2={"_name_or_path": ABSENT, "torch_dtype": "float32", "transformers_version": "4.35.2"},
    unet={
        "_name_or_path": ABSENT, "_diffusers_version": "0.27.0.dev0", "sample_size": 128, "upcast_attention": False,
    },
    vae={
        "_name_or_path": ABSENT, "_diffusers_version": "0.27.0.dev0", "latents_mean": [-1.6574, 1.886, -1.383,
        2.5155], "latents_std": [8.4927, 5.9022, 6.5498, 5.2299], "scaling_factor": 0.5,
    },
)
published(
    "own-sdxl-art",
    "PRITHIVSAKTHIUR/AI-Art-Generator-SDXL@88ba0d00",
    like="sdxl-base-1.0",
    index={"add_watermarker": ABSENT, "_diffusers_version": "0.22.0.dev0"},
    scheduler={"_diffusers_version": "0.22.0.dev0"},
    text_encoder={"transformers_version": "4.34.0"},
    text_encoder_2={"transformers_version": "4.34.0"},
    tokenizer={
        "added_tokens_decoder": {}, "additional_special_tokens": [], "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "tokenizer_file": "/home/user/.cache/huggingface/hub/models--openai--clip-vit-large-patch14/snapshots/32bd64288804d66eefd0ccbe215aa642df71cc41/tokenizer.json",
        "unk_token": "<|endoftext|>",
    },
    tokenizer_2={
        "added_tokens_decoder": {}, "additional_special_tokens": [], "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "tokenizer_file": "/home/user/.cache/huggingface/hub/models--laion--CLIP-ViT-bigG-14-laion2B-39B-b160k/snapshots/8c7a3583335de4dba1b07182dbf81c75137ce67b/tokenizer.json",
        "unk_token": "<|endoftext|>",
    },
    unet={"_diffusers_version": "0.22.0.dev0", "attention_type": "default", "dropout": 0.0},
    vae={"_name_or_path": ABSENT, "_diffusers_version": "0.22.0.dev0"},
)
published(
    "own-sdxl-lora-base",
    "reo224/LoRA_Diffusers@e16b6532",
    like="sdxl-base-1.0",
    index={"add_watermarker": ABSENT, "_diffusers_version": "0.18.2"},
    scheduler={"_diffusers_version": "0.18.2"},
    text_encoder={"_name_or_path": None, "transformers_version": "4.30.2"},
    text_encoder_2={"_name_or_path": None, "transformers_version": "4.30.2"},
    unet={"_diffusers_version": "0.18.2", "upcast_attention": False},
    vae={
        "_name_or_path": ABSENT, "force_upcast": ABSENT, "_diffusers_version": "0.18.2", "sample_size": 256,
        "scaling_factor": 0.18215,
    },
)
published(
    "own-sdxl-rlx1",
    "Warcylewis/rlx1@70ffebdd",
    like="own-sdxl-art",
    index={"_diffusers_version": "0.27.2", "feature_extractor": [None, None], "image_encoder": [None, None]},
    scheduler={
        "_diffusers_version": "0.27.2", "rescale_betas_zero_snr": False, "sigma_max": None, "sigma_min": None,
        "timestep_type": "discrete",
    },
    text_encoder={"transformers_version": "4.39.3"},
    text_encoder_2={"transformers_version": "4.39.3"},
    tokenizer={"additional_special_tokens": ABSENT, "tokenizer_file": ABSENT},
    tokenizer_2={"additional_special_tokens": ABSENT, "tokenizer_file": ABSENT},
    unet={"_diffusers_version": "0.27.2", "reverse_transformer_layers_per_block": None, "upcast_attention": False},
    vae={"_diffusers_version": "0.27.2", "latents_mean": None, "latents_std": None},
)
