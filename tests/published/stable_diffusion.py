"""Stable Diffusion 1, and what publishers made of it."""

# fmt: off
# ruff: noqa: E501 -- paths as published
from published import ABSENT, published

published(
    "sd-1.5",
    "HDRJ-One/runwayml-stable-diffusion-v1-5@5fa07f3d",
    index={
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.6.0",
        "feature_extractor": ["transformers", "CLIPImageProcessor"], "safety_checker": ["stable_diffusion",
        "StableDiffusionSafetyChecker"], "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    },
    feature_extractor={
        "crop_size": 224, "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True, "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": 224,
    },
    safety_checker={
        "_commit_hash": "4bb648a606ef040e7685bde262611766a5fdd67b",
        "_name_or_path": "CompVis/stable-diffusion-safety-checker",
        "architectures": ["StableDiffusionSafetyChecker"], "initializer_factor": 1.0,
        "logit_scale_init_value": 2.6592, "model_type": "clip", "projection_dim": 768, "torch_dtype": "float32",
        "transformers_version": None, "text_config": {"dropout": 0.0, "hidden_act": "quick_gelu", "hidden_size": 768,
        "intermediate_size": 3072, "model_type": "clip_text_model", "num_attention_heads": 12,
        "num_hidden_layers": 12}, "vision_config": {"dropout": 0.0, "hidden_act": "quick_gelu", "hidden_size": 1024,
        "image_size": 224, "intermediate_size": 4096, "model_type": "clip_vision_model", "num_attention_heads": 16,
        "num_hidden_layers": 24, "patch_size": 14},
    },
    scheduler={
        "_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000,
        "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None,
        "clip_sample": False,
    },
    text_encoder={
        "_name_or_path": "openai/clip-vit-large-patch14", "architectures": ["CLIPTextModel"],
        "attention_dropout": 0.0, "bos_token_id": 0, "dropout": 0.0, "eos_token_id": 2, "hidden_act": "quick_gelu",
        "hidden_size": 768, "initializer_factor": 1.0, "initializer_range": 0.02, "intermediate_size": 3072,
        "layer_norm_eps": 1e-05, "max_position_embeddings": 77, "model_type": "clip_text_model",
        "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 1, "projection_dim": 768,
        "torch_dtype": "float32", "transformers_version": "4.22.0.dev0", "vocab_size": 49408,
    },
    tokenizer={
        "add_prefix_space": False, "bos_token": {"__type": "AddedToken", "content": "<|startoftext|>",
        "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}, "do_lower_case": True,
        "eos_token": {"__type": "AddedToken", "content": "<|endoftext|>", "lstrip": False, "normalized": True,
        "rstrip": False, "single_word": False}, "errors": "replace", "model_max_length": 77,
        "name_or_path": "openai/clip-vit-large-patch14", "pad_token": "<|endoftext|>",
        "special_tokens_map_file": "./special_tokens_map.json", "tokenizer_class": "CLIPTokenizer",
        "unk_token": {"__type": "AddedToken", "content": "<|endoftext|>", "lstrip": False, "normalized": True,
        "rstrip": False, "single_word": False},
    },
    unet={
        "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.6.0", "act_fn": "silu",
        "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": False,
        "cross_attention_dim": 768, "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D", "DownBlock2D"], "downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0,
        "in_channels": 4, "layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-05,
        "norm_num_groups": 32, "out_channels": 4, "sample_size": 64, "up_block_types": ["UpBlock2D",
        "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    },
    vae={
        "_class_name": "AutoencoderKL", "_diffusers_version": "0.6.0", "act_fn": "silu", "block_out_channels": [128,
        256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4, "in_channels": 3, "latent_channels": 4,
        "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3, "sample_size": 512,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    },
)
published(
    "sd-1.5-2022",
    "bigdataai-lab/stable-diffusion-v1-5@39593d56",
    like="sd-1.5",
    index={"feature_extractor": ["transformers", "CLIPFeatureExtractor"]},
)
published(
    "sd-1.5-nonema",
    "wswplay/stable-diffusion-v1-5@5e6f5cdb",
    like="sd-1.5",
    unet={
        "_diffusers_version": "0.12.0.dev0", "class_embed_type": None, "dual_cross_attention": False,
        "mid_block_type": "UNetMidBlock2DCrossAttn", "num_class_embeds": None, "only_cross_attention": False,
        "resnet_time_scale_shift": "default", "upcast_attention": False, "use_linear_projection": False,
    },
)
published(
    "sd-1.4",
    "wswplay/stable-diffusion-v1-4@133a221b",
    like="sd-1.5",
    index={"_diffusers_version": "0.2.2"},
    safety_checker={"_commit_hash": ABSENT, "_name_or_path": "./safety_module"},
    scheduler={"_diffusers_version": "0.7.0.dev0"},
    text_encoder={"projection_dim": ABSENT, "transformers_version": "4.21.0.dev0"},
    unet={"_diffusers_version": "0.2.2"},
    vae={"norm_num_groups": ABSENT, "_diffusers_version": "0.2.2", "scaling_factor": 0.18215},
)
published(
    "sd-1.4-nonema",
    "wswplay/stable-diffusion-v1-4@d43bc75b",
    like="sd-1.4",
    unet={
        "_diffusers_version": "0.12.0.dev0", "class_embed_type": None, "dual_cross_attention": False,
        "mid_block_type": "UNetMidBlock2DCrossAttn", "num_class_embeds": None, "only_cross_attention": False,
        "resnet_time_scale_shift": "default", "upcast_attention": False, "use_linear_projection": False,
    },
)
published(
    "anything-v3",
    "bigdata-ai-lab/anything-v3.0@1cfddae5",
    like="sd-1.4-nonema",
    index={
        "_diffusers_version": "0.10.2", "feature_extractor": [None, None], "requires_safety_checker": None,
        "safety_checker": [None, None], "scheduler": ["diffusers", "DDIMScheduler"],
    },
    safety_checker={"_name_or_path": "clip-vit-large-patch14/", "architectures": ["SafetyChecker"]},
    scheduler={"_class_name": "DDIMScheduler", "_diffusers_version": "0.10.2", "prediction_type": "epsilon"},
    text_encoder={"projection_dim": 768, "transformers_version": "4.25.1"},
    tokenizer={"name_or_path": "runwayml/stable-diffusion-v1-5"},
    unet={
        "class_embed_type": ABSENT, "mid_block_type": ABSENT, "resnet_time_scale_shift": ABSENT,
        "_diffusers_version": "0.10.2", "sample_size": 32,
    },
    vae={"_diffusers_version": "0.10.2", "norm_num_groups": 32, "sample_size": 256},
)
published(
    "counterfeit-2.5",
    "qfz9527/Counterfeit-V2.5@93c5412b",
    like="anything-v3",
    feature_extractor=ABSENT,
    safety_checker=ABSENT,
    tokenizer={"name_or_path": "CompVis/stable-diffusion-v1-4"},
    unet={"sample_size": 64},
    vae={"scaling_factor": ABSENT},
)
published(
    "dreamlike-photoreal-2",
    "jack-op11/dreamlike-photoreal-2.0@db49fbf6",
    like="anything-v3",
    feature_extractor=ABSENT,
    safety_checker=ABSENT,
    text_encoder={"torch_dtype": "float16", "transformers_version": "4.26.0.dev0"},
    unet={"sample_size": 96},
)
published(
    "dreamshaper-8",
    "smthemex/ComfyUI_HiDiffusion_Pro@786a47de",
    like="sd-1.4-nonema",
    index={
        "_diffusers_version": "0.21.0.dev0", "_name_or_path": "lykon-models/dreamshaper-8",
        "feature_extractor": ["transformers", "CLIPFeatureExtractor"], "requires_safety_checker": True,
        "scheduler": ["diffusers", "DEISMultistepScheduler"],
    },
    feature_extractor={
        "crop_size": {"height": 224, "width": 224}, "do_rescale": True,
        "image_processor_type": "CLIPFeatureExtractor", "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": 224},
    },
    safety_checker={
        "_name_or_path": "/home/user/.cache/huggingface/hub/models--lykon-models--dreamshaper-8/snapshots/7e855e3f481832419503d1fa18d4a4379597f04b/safety_checker",
        "torch_dtype": "float16", "transformers_version": "4.33.0.dev0", "text_config": {"hidden_act": ABSENT,
        "num_hidden_layers": ABSENT}, "vision_config": {"hidden_act": ABSENT, "image_size": ABSENT},
    },
    scheduler={
        "_class_name": "DEISMultistepScheduler", "_diffusers_version": "0.21.0.dev0", "algorithm_type": "deis",
        "dynamic_thresholding_ratio": 0.995, "lower_order_final": True, "prediction_type": "epsilon",
        "sample_max_value": 1.0, "solver_order": 2, "solver_type": "logrho", "thresholding": False,
        "timestep_spacing": "leading", "use_karras_sigmas": False,
    },
    text_encoder={
        "_name_or_path": "/home/user/.cache/huggingface/hub/models--lykon-models--dreamshaper-8/snapshots/7e855e3f481832419503d1fa18d4a4379597f04b/text_encoder",
        "projection_dim": 768, "torch_dtype": "float16", "transformers_version": "4.33.0.dev0",
    },
    tokenizer={"name_or_path": ABSENT, "special_tokens_map_file": ABSENT, "clean_up_tokenization_spaces": True},
    unet={
        "_diffusers_version": "0.21.0.dev0",
        "_name_or_path": "/home/user/.cache/huggingface/hub/models--lykon-models--dreamshaper-8/snapshots/7e855e3f481832419503d1fa18d4a4379597f04b/unet",
        "addition_embed_type": None, "addition_embed_type_num_heads": 64, "addition_time_embed_dim": None,
        "attention_type": "default", "class_embeddings_concat": False, "conv_in_kernel": 3, "conv_out_kernel": 3,
        "cross_attention_norm": None, "encoder_hid_dim": None, "encoder_hid_dim_type": None,
        "mid_block_only_cross_attention": None, "num_attention_heads": None,
        "projection_class_embeddings_input_dim": None, "resnet_out_scale_factor": 1.0, "resnet_skip_time_act": False,
        "time_cond_proj_dim": None, "time_embedding_act_fn": None, "time_embedding_dim": None,
        "time_embedding_type": "positional", "timestep_post_act": None, "transformer_layers_per_block": 1,
        "upcast_attention": None,
    },
    vae={
        "_diffusers_version": "0.21.0.dev0",
        "_name_or_path": "/home/user/.cache/huggingface/hub/models--lykon-models--dreamshaper-8/snapshots/7e855e3f481832419503d1fa18d4a4379597f04b/vae",
        "force_upcast": True, "norm_num_groups": 32,
    },
)
published(
    "mitsua-cc0",
    "bigdata-ai-lab/mitsua-diffusion-cc0@0ba261c2",
    like="anything-v3",
    index={
        "feature_extractor": ["transformers", "CLIPImageProcessor"], "requires_safety_checker": True,
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "scheduler": ["diffusers",
        "PNDMScheduler"],
    },
    feature_extractor={
        "crop_size": {"height": 224, "width": 224}, "do_rescale": True, "image_processor_type": "CLIPImageProcessor",
        "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 224},
    },
    safety_checker={
        "_name_or_path": ABSENT, "_commit_hash": None, "architectures": ["StableDiffusionSafetyChecker"],
        "torch_dtype": "float16", "text_config": {"projection_dim": 512}, "vision_config": {"projection_dim": 512},
    },
    scheduler={"_class_name": "PNDMScheduler"},
    text_encoder={
        "_name_or_path": ABSENT, "hidden_act": "gelu", "hidden_size": 1024, "intermediate_size": 4096,
        "num_attention_heads": 16, "num_hidden_layers": 23, "projection_dim": 512, "torch_dtype": "float16",
    },
    tokenizer={"name_or_path": ABSENT},
    unet={
        "attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "sample_size": 64,
        "use_linear_projection": True,
    },
    vae={
        "_name_or_path": "../infer_images/mitsua_512_realimage3_2022-12-24T15-56-26_00115000\\vae",
        "sample_size": 768,
    },
)
published(
    "nitro-diffusion",
    "bigdata-ai-lab/Nitro-Diffusion@f8ac4a8a",
    like="sd-1.5-2022",
    index={"_diffusers_version": "0.8.0.dev0"},
    scheduler={"_diffusers_version": "0.8.0.dev0"},
    text_encoder={"transformers_version": "4.24.0"},
    unet={"_diffusers_version": "0.8.0.dev0"},
    vae={"_diffusers_version": "0.8.0.dev0", "sample_size": 256},
)
published(
    "openjourney",
    "bigdata-ai-lab/openjourney@1d4118b1",
    like="nitro-diffusion",
    index={"_diffusers_version": "0.7.2"},
    scheduler={"_diffusers_version": "0.7.2"},
    unet={"_diffusers_version": "0.7.2", "sample_size": 32},
    vae={"_diffusers_version": "0.7.2"},
)
published(
    "portraitplus",
    "jack-op11/portraitplus@8c72c4b5",
    like="sd-1.5-2022",
    index={"_diffusers_version": "0.11.0.dev0", "requires_safety_checker": True},
    feature_extractor={
        "crop_size": {"height": 224, "width": 224}, "do_rescale": True,
        "image_processor_type": "CLIPFeatureExtractor", "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": 224},
    },
    safety_checker={
        "_commit_hash": "cb41f3a270d63d454d385fc2e4f571c487c253c5", "text_config": {"projection_dim": 512},
        "vision_config": {"projection_dim": 512},
    },
    scheduler={"_diffusers_version": "0.11.0.dev0", "prediction_type": "epsilon"},
    text_encoder={"transformers_version": "4.26.0.dev0"},
    unet={
        "_diffusers_version": "0.11.0.dev0", "dual_cross_attention": False, "num_class_embeds": None,
        "only_cross_attention": False, "upcast_attention": False, "use_linear_projection": False,
    },
    vae={"_diffusers_version": "0.11.0.dev0", "scaling_factor": 0.18215},
)
published(
    "protogen-3.4",
    "HDRJ-One/darkstorm2150-Protogen_x3.4_Official_Release@f2e5e212",
    like="portraitplus",
    index={"_diffusers_version": "0.12.0.dev0", "feature_extractor": ["transformers", "CLIPImageProcessor"]},
    scheduler={"_diffusers_version": "0.12.0.dev0"},
    unet={
        "_diffusers_version": "0.12.0.dev0", "class_embed_type": None, "mid_block_type": "UNetMidBlock2DCrossAttn",
        "resnet_time_scale_shift": "default",
    },
    vae={"_diffusers_version": "0.12.0.dev0"},
)
