"""Stable Diffusion 2, and networks of this kind with more inputs."""

# fmt: off
from published import ABSENT, published

published(
    "sd-2.1",
    "lllyasviel/stable-diffusion-webui-forge@dfdcbab6",
    like="own-oscavatar",
    safety_checker=ABSENT,
    index={
        "_diffusers_version": "0.8.0", "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "requires_safety_checker": False, "safety_checker": [None, None], "scheduler": ["diffusers",
        "DDIMScheduler"],
    },
    scheduler={"_diffusers_version": "0.8.0", "prediction_type": "v_prediction"},
    text_encoder={
        "_name_or_path": "hf-models/stable-diffusion-v2-768x768/text_encoder", "transformers_version": "4.25.0.dev0",
    },
    tokenizer={"name_or_path": "hf-models/stable-diffusion-v2-768x768/tokenizer"},
    unet={
        "_diffusers_version": "0.10.0.dev0", "sample_size": 96, "use_linear_projection": True,
        "upcast_attention": True,
    },
    vae={
        "_diffusers_version": "0.8.0", "_name_or_path": "hf-models/stable-diffusion-v2-768x768/vae",
        "sample_size": 768,
    },
)
published(
    "sd-2.1-2022",
    "jack-op11/stable-diffusion-2-1@e03f2e1b",
    like="sd-2.1",
    index={"feature_extractor": ["transformers", "CLIPFeatureExtractor"]},
)
published(
    "sd-2.1-first",
    "Vikas-2025/Hugging_face_sta_dif_2.1@5797029c",
    like="sd-2.1-2022",
    index={"_diffusers_version": "0.10.0.dev0"},
    scheduler={"_diffusers_version": "0.10.0.dev0"},
    text_encoder={
        "_name_or_path": "./stability/stable-diffusion-2-1/text_encoder", "torch_dtype": "float16",
        "transformers_version": "4.26.0.dev0",
    },
    tokenizer={"name_or_path": "./stability/stable-diffusion-2-1/tokenizer"},
    unet={"_name_or_path": "./stability/stable-diffusion-2-1/unet"},
    vae={"_diffusers_version": "0.10.0.dev0", "_name_or_path": "./stability/stable-diffusion-2-1/vae"},
)
published(
    "sd-2.1-base-2022",
    "jack-op11/stable-diffusion-2-1-base@88bb1a46",
    like="sd-2.1-first",
    index={"scheduler": ["diffusers", "PNDMScheduler"]},
    scheduler={"_class_name": "PNDMScheduler", "prediction_type": "epsilon"},
    text_encoder={
        "_name_or_path": "stabilityai/stable-diffusion-2", "torch_dtype": "float32",
        "transformers_version": "4.25.0.dev0",
    },
    tokenizer={"name_or_path": "stabilityai/stable-diffusion-2"},
    unet={"_name_or_path": ABSENT, "upcast_attention": ABSENT, "sample_size": 64},
    vae={"_name_or_path": ABSENT},
)
published(
    "sd-1.5-inpainting",
    "lllyasviel/stable-diffusion-webui-forge@dfdcbab6",
    like="sd-1.5",
    index={"_class_name": "StableDiffusionInpaintPipeline", "scheduler": ["diffusers", "DDIMScheduler"]},
    safety_checker={"text_config": {"projection_dim": 512}, "vision_config": {"projection_dim": 512}},
    scheduler={"_class_name": "DDIMScheduler", "_diffusers_version": "0.6.0.dev0"},
    unet={"_diffusers_version": "0.6.0.dev0", "in_channels": 9},
    vae={"_diffusers_version": "0.6.0.dev0", "sample_size": 256},
)
published(
    "sd-1.5-inpainting-2022",
    "jack-op11/stable-diffusion-inpainting@caac1048",
    like="sd-1.5-inpainting",
    index={"feature_extractor": ["transformers", "CLIPFeatureExtractor"]},
)
published(
    "instruct-pix2pix",
    "gaikwadbsupriyaofficial/timbrook1@31519b5c",
    like="protogen-3.4",
    index={
        "_class_name": "StableDiffusionInstructPix2PixPipeline", "requires_safety_checker": False,
        "scheduler": ["diffusers", "EulerAncestralDiscreteScheduler"],
    },
    feature_extractor={"image_processor_type": "CLIPImageProcessor"},
    scheduler={
        "_class_name": "EulerAncestralDiscreteScheduler", "algorithm_type": "dpmsolver++",
        "dynamic_thresholding_ratio": 0.995, "lower_order_final": True, "sample_max_value": 1.0, "solver_order": 2,
        "solver_type": "midpoint", "thresholding": False,
    },
    unet={"in_channels": 8},
    vae={"scaling_factor": ABSENT},
)
published(
    "own-textovideo",
    "MyAiTeam2/textotvideo@2202018a",
    like="own-oscavatar",
    feature_extractor=ABSENT,
    safety_checker=ABSENT,
    index={
        "feature_extractor": ABSENT, "safety_checker": ABSENT, "_class_name": "TextToVideoSDPipeline",
        "_diffusers_version": "0.17.0.dev0", "scheduler": ["diffusers", "DDIMScheduler"], "unet": ["diffusers",
        "UNet3DConditionModel"],
    },
    scheduler={
        "_diffusers_version": "0.17.0.dev0", "clip_sample_range": 1.0, "dynamic_thresholding_ratio": 0.995,
        "sample_max_value": 1.0, "thresholding": False,
    },
    text_encoder={
        "_name_or_path": "./models/model_scope_diffusers/", "torch_dtype": "float16",
        "transformers_version": "4.29.2",
    },
    tokenizer={"name_or_path": ABSENT, "special_tokens_map_file": ABSENT, "clean_up_tokenization_spaces": True},
    unet={
        "center_input_sample": ABSENT, "dual_cross_attention": ABSENT, "flip_sin_to_cos": ABSENT,
        "freq_shift": ABSENT, "num_class_embeds": ABSENT, "only_cross_attention": ABSENT,
        "use_linear_projection": ABSENT, "_class_name": "UNet3DConditionModel", "_diffusers_version": "0.17.0.dev0",
        "_name_or_path": "./models/model_scope_diffusers/", "attention_head_dim": 64,
        "down_block_types": ["CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "DownBlock3D"],
        "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D"],
    },
    vae={
        "_diffusers_version": "0.17.0.dev0", "_name_or_path": "./models/model_scope_diffusers/", "sample_size": 512,
        "scaling_factor": 0.18215,
    },
)
