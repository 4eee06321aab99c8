"""What people uploaded in parts."""

# fmt: off
from published import published

published(
    "own-avatar-index",
    "Vijay-S2003/avatar_face@0c56625f",
    index={
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.14.0.dev0",
        "feature_extractor": ["transformers", "CLIPFeatureExtractor"], "requires_safety_checker": True,
        "safety_checker": [None, None], "scheduler": ["diffusers", "PNDMScheduler"], "text_encoder": ["transformers",
        "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers",
        "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    },
)
published(
    "own-ct-inpainting",
    "czw90130/DreamCT@886b6416",
    index={
        "_class_name": "StableDiffusionCT2CTPipeline", "_diffusers_version": "0.20.0",
        "_name_or_path": ".\\model_stabilityai-stable-diffusion-2-inpainting\\", "scheduler": ["diffusers", "PNDMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    },
)
published(
    "own-dreambooth-index",
    "saxenabhishek/dreambooth-stable-diff@83cf0180",
    index={
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.6.0",
        "feature_extractor": ["transformers", "CLIPFeatureExtractor"], "safety_checker": ["stable_diffusion",
        "StableDiffusionSafetyChecker"], "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    },
)
published(
    "own-images-index",
    "v1becheck/ai-images@1de3e228",
    index={
        "_class_name": "StableDiffusionPipeline", "model_type": "StableDiffusionPipeline",
        "pipeline_tag": "stable-diffusion", "weights": [{"filename": "MaleShepard.safetensors"}],
    },
)
published(
    "own-osteosarcoma-index",
    "logannye/DDPM-osteosarcoma-generation@a85239b9",
    index={
        "_class_name": "DDPMPipeline", "_diffusers_version": "0.5.1", "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    },
)
published(
    "own-sd15-0.34-index",
    "Kijimu7/MedDream@003b8139",
    index={
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.34.0.dev0",
        "_name_or_path": "runwayml/stable-diffusion-v1-5", "feature_extractor": ["transformers",
        "CLIPImageProcessor"], "image_encoder": [None, None], "requires_safety_checker": True,
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "scheduler": ["diffusers",
        "PNDMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers",
        "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    },
)
published(
    "own-sd2.1-upload",
    "TOOLS-droid724/Amazing-2.0@40e05d6f (index), @51c6a1eb (transformer)",
    index={
        "_class_name": "VedikaPipeline", "_diffusers_version": "0.36.0.dev0", "scheduler": ["diffusers",
        "FlowMatchEulerDiscreteScheduler"], "text_encoder": ["transformers", "Mistral3ForConditionalGeneration"],
        "tokenizer": ["transformers", "PixtralProcessor"], "transformer": ["diffusers", "Flux2Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKLFlux2"],
    },
)
published(
    "own-sdxl-embroidery-index",
    "yanghaiqiong/The-Qing-Dynasty-Embroidery-Patterns@4c6db005",
    index={
        "_class_name": "StableDiffusionXLPipeline", "_diffusers_version": "0.33.1",
        "_name_or_path": "stabilityai/stable-diffusion-xl-base-1.0", "feature_extractor": [None, None],
        "force_zeros_for_empty_prompt": True, "image_encoder": [None, None], "scheduler": ["diffusers",
        "EulerDiscreteScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"], "tokenizer": ["transformers",
        "CLIPTokenizer"], "tokenizer_2": ["transformers", "CLIPTokenizer"], "unet": ["diffusers",
        "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    },
)
published(
    "own-ti-index",
    "rummd/Textual_Inversion_with_Stable_Diffusion_v1-5@2e7c42ec",
    index={
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.28.0.dev0",
        "_name_or_path": "runwayml/stable-diffusion-v1-5", "feature_extractor": ["transformers",
        "CLIPImageProcessor"], "image_encoder": [None, None], "requires_safety_checker": True,
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "scheduler": ["diffusers",
        "PNDMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers",
        "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    },
)
