"""Pipelines of which some parts are there only, as people uploaded them or as they could be found."""

# fmt: off
# ruff: noqa: E501 -- paths as published
from published import published

published(
    "bria-3.2",
    "Bria-AI/BRIA-3.2@6980bd3d",
    index={
        "_class_name": "BriaPipeline", "_diffusers_version": "0.33.1", "_name_or_path": "briaai/BRIA-3.1",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"], "text_encoder": ["transformers",
        "T5EncoderModel"], "tokenizer": ["transformers", "T5TokenizerFast"], "transformer": ["transformer_bria",
        "BriaTransformer2DModel"], "vae": ["diffusers", "AutoencoderKL"],
    },
)
published(
    "controlnet-background-generation",
    "jungletada/ReGe@7f2cf784",
    index={
        "_class_name": "StableDiffusionControlNetInpaintPipeline", "_diffusers_version": "0.20.0.dev0",
        "_name_or_path": "yahoo-inc/photo-background-generation", "controlnet": ["diffusers", "ControlNetModel"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"], "requires_safety_checker": False,
        "safety_checker": [None, None], "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    },
)
published(
    "flux.2-dev",
    "text found by string search, repository not named (two texts)",
    index={
        "_class_name": "Flux2Pipeline", "_diffusers_version": "0.36.0.dev0", "scheduler": ["diffusers",
        "FlowMatchEulerDiscreteScheduler"], "text_encoder": ["transformers", "Mistral3ForConditionalGeneration"],
        "tokenizer": ["transformers", "PixtralProcessor"], "transformer": ["diffusers", "Flux2Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKLFlux2"],
    },
)
published(
    "hunyuanvideo",
    "text found by string search, repository not named",
    index={
        "_class_name": "HunyuanVideoPipeline", "_diffusers_version": "0.32.0.dev0", "scheduler": ["diffusers",
        "FlowMatchEulerDiscreteScheduler"], "text_encoder": ["transformers", "LlamaModel"],
        "text_encoder_2": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "LlamaTokenizerFast"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"], "transformer": ["diffusers",
        "HunyuanVideoTransformer3DModel"], "vae": ["diffusers", "AutoencoderKLHunyuanVideo"],
    },
)
published(
    "if-index",
    "oss-roettger/T5-Textual-Inversion@44a872d2",
    index={
        "_class_name": "IFPipeline", "_diffusers_version": "0.16.0.dev0", "_ignore_files": ["pytorch_model.bin"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"], "requires_safety_checker": False,
        "scheduler": ["diffusers", "DDPMScheduler"], "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "T5Tokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
    },
)
published(
    "lcm-dreamshaper-7-first",
    "taabata/LCM_Inpaint_Outpaint_Comfy@5bcb5f09",
    index={
        "_class_name": "LatentConsistencyModelPipeline", "_diffusers_version": "0.22.0.dev0",
        "feature_extractor": ["transformers", "CLIPImageProcessor"], "safety_checker": ["stable_diffusion",
        "StableDiffusionSafetyChecker"], "scheduler": [None, None], "text_encoder": ["transformers",
        "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers",
        "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    },
)
published(
    "meinamix-onnx",
    "Dia1Up/Meinamix-for-ONNX@d718a541",
    index={
        "_class_name": "OnnxStableDiffusionPipeline", "_diffusers_version": "0.24.0",
        "feature_extractor": ["transformers", "CLIPFeatureExtractor"], "requires_safety_checker": True,
        "safety_checker": ["diffusers", "OnnxRuntimeModel"], "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["diffusers", "OnnxRuntimeModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "OnnxRuntimeModel"], "vae_decoder": ["diffusers", "OnnxRuntimeModel"],
        "vae_encoder": ["diffusers", "OnnxRuntimeModel"],
    },
)
published(
    "mvdiffusion-ip",
    "Abdualkader/Mutli-viewdiffusion@72fea7b1",
    index={
        "_class_name": ["pipeline_mvdiffusion", "MVDiffusionPipeline"], "_diffusers_version": "0.29.1",
        "feature_extractor": ["transformers", "CLIPImageProcessor"], "image_encoder": [None, None],
        "requires_safety_checker": False, "safety_checker": [None, None], "scheduler": ["diffusers",
        "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers",
        "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    },
)
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
published(
    "sd3-medium-cn-index",
    "prodogape/ComfyUI-SD3-Medium-CN-Diffusers@1b6d232d",
    index={
        "_class_name": "StableDiffusion3Pipeline", "_diffusers_version": "0.30.0.dev0",
        "scheduler": ["diffusers_sd3_control", "FlowMatchEulerDiscreteScheduler"], "text_encoder": ["transformers",
        "CLIPTextModelWithProjection"], "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "text_encoder_3": ["transformers", "T5EncoderModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"], "tokenizer_3": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers_sd3_control", "SD3Transformer2DModel"], "vae": ["diffusers_sd3_control",
        "AutoencoderKL"],
    },
)
published(
    "sd3.5-large-flat",
    "RevL-Lambda-DevRel/Stable-Diffusion-3.5-Large@bf3efd21",
    index={
        "_class_name": "StableDiffusion3Pipeline", "_diffusers_version": "0.30.3.dev0", "scheduler": ["diffusers",
        "FlowMatchEulerDiscreteScheduler"], "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"], "text_encoder_3": ["transformers",
        "T5EncoderModel"], "tokenizer": ["transformers", "CLIPTokenizer"], "tokenizer_2": ["transformers",
        "CLIPTokenizer"], "tokenizer_3": ["transformers", "T5TokenizerFast"], "transformer": ["diffusers",
        "SD3Transformer2DModel"], "vae": ["diffusers", "AutoencoderKL"],
    },
)
