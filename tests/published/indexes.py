"""Pipelines that the index is enough to refuse: classes that are not diffusers' own, and those that need an image."""

# fmt: off
from published import published

published(
    "easyanimate-5.1-7b-control",
    "rishipandey125/EasyAnimateV5.1-7b-zh-Control@4d65fa6e",
    index={
        "_class_name": "EasyAnimateControlPipeline", "_diffusers_version": "0.31.0.dev0", "scheduler": ["diffusers",
        "FlowMatchEulerDiscreteScheduler"], "text_encoder": ["transformers", "Qwen2VLForConditionalGeneration"],
        "tokenizer": ["transformers", "Qwen2Tokenizer"], "transformer": ["diffusers",
        "EasyAnimateTransformer3DModel"], "vae": ["diffusers", "AutoencoderKLMagvit"],
    },
)
published(
    "ernie-image",
    "exo101/sd-webui-forge-neo-v3@5692d2d1",
    index={
        "_class_name": "ErnieImagePipeline", "_diffusers_version": "0.36.0", "scheduler": ["diffusers",
        "FlowMatchEulerDiscreteScheduler"], "text_encoder": ["transformers", "Mistral3Model"],
        "tokenizer": ["transformers", "PixtralProcessor"], "transformer": ["diffusers",
        "ErnieImageTransformer2DModel"], "vae": ["diffusers", "AutoencoderKLFlux2"],
    },
)
published(
    "geowizard",
    "xcController/Geowizard_hub@2091cf01",
    index={
        "_class_name": "DepthNormalEstimationPipeline", "_diffusers_version": "0.25.0", "unet": ["diffusers",
        "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"], "scheduler": ["diffusers", "DDIMScheduler"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"], "image_encoder": ["transformers",
        "CLIPVisionModelWithProjection"],
    },
)
published(
    "interactdiffusion",
    "anyway-ai/interactdiff-diffusers@aa9196cf",
    index={
        "_class_name": ["pipeline_stable_diffusion_interactdiffusion", "StableDiffusionInteractDiffusionPipeline"],
        "_diffusers_version": "0.27.0.dev0", "feature_extractor": [None, None], "requires_safety_checker": False,
        "safety_checker": [None, None], "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers",
        "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["interactdiffusion_unet_2d_condition", "InteractDiffusionUNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    },
)
published(
    "ldm-super-resolution",
    "kaustubhgawade/AAI_Project@74ffe88d",
    index={
        "_class_name": "LDMSuperResolutionPipeline", "_diffusers_version": "0.8.0.dev0", "scheduler": ["diffusers",
        "DDIMScheduler"], "unet": ["diffusers", "UNet2DModel"], "vqvae": ["diffusers", "VQModel"],
    },
)
published(
    "lgm-full",
    "bhuvanmdev/test@898c9457",
    index={
        "_class_name": "LGMFullPipeline", "_diffusers_version": "0.27.2", "feature_extractor": ["transformers",
        "CLIPImageProcessor"], "image_encoder": ["transformers", "CLIPVisionModel"],
        "requires_safety_checker": False, "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["mv_unet", "MultiViewUNetModel"], "vae": ["diffusers", "AutoencoderKL"], "lgm": ["lgm", "LGM"],
    },
)
published(
    "lgm-full-0.25",
    "poppitypopper/3d-generative@ff39c910",
    index={
        "_class_name": "LGMFullPipeline", "_diffusers_version": "0.25.0", "feature_extractor": ["transformers",
        "CLIPImageProcessor"], "image_encoder": ["transformers", "CLIPVisionModel"],
        "requires_safety_checker": False, "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["mv_unet", "MultiViewUNetModel"], "vae": ["diffusers", "AutoencoderKL"], "lgm": ["lgm", "LGM"],
    },
)
published(
    "minimax-h3",
    "wmd-1/MiniMax-H3@8c07469d",
    index={
        "_class_name": "MiniMaxH3ModularPipeline", "_diffusers_version": "0.36.0.dev0",
        "_blocks_class_name": "MiniMaxH3Blocks", "transformer": ["diffusers", "MiniMaxH3Transformer3DModel",
        {"type_hint": ["diffusers", "MiniMaxH3Transformer3DModel"],
        "pretrained_model_name_or_path": "MiniMaxAI/MiniMax-H3", "subfolder": "transformer", "variant": None,
        "revision": None}], "scheduler": ["diffusers", "MiniMaxH3Scheduler", {"type_hint": ["diffusers",
        "MiniMaxH3Scheduler"], "pretrained_model_name_or_path": "MiniMaxAI/MiniMax-H3", "subfolder": "scheduler",
        "variant": None, "revision": None}],
    },
)
published(
    "objectclear",
    "smthemex/ComfyUI_ObjectClear@df683256",
    index={
        "_class_name": "ObjectClearPipeline", "_diffusers_version": "0.21.0.dev0",
        "_name_or_path": "stabilityai/stable-diffusion-xl-base-1.0", "force_zeros_for_empty_prompt": True,
        "requires_aesthetics_score": False, "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"], "text_encoder_2": ["transformers",
        "CLIPTextModelWithProjection"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    },
)
published(
    "qwen-image-edit",
    "smthemex/ComfyUI_StoryDiffusion@e4e0acdf",
    index={
        "_class_name": "QwenImageEditPipeline", "_diffusers_version": "0.35.0.dev0", "processor": ["transformers",
        "Qwen2VLProcessor"], "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"], "tokenizer": ["transformers",
        "Qwen2Tokenizer"], "transformer": ["diffusers", "QwenImageTransformer2DModel"], "vae": ["diffusers",
        "AutoencoderKLQwenImage"],
    },
)
published(
    "sd-image-variations",
    "yuanqi99/sd-image-variations-diffusers@42bc0ee1",
    index={
        "_class_name": "StableDiffusionImageVariationPipeline", "_diffusers_version": "0.9.0",
        "feature_extractor": ["transformers", "CLIPImageProcessor"], "image_encoder": ["transformers",
        "CLIPVisionModelWithProjection"], "requires_safety_checker": True, "safety_checker": ["stable_diffusion",
        "StableDiffusionSafetyChecker"], "scheduler": ["diffusers", "PNDMScheduler"], "unet": ["diffusers",
        "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    },
)
published(
    "sd-x4-upscaler",
    "lllyasviel/stable-diffusion-webui-forge@dfdcbab6",
    index={
        "_class_name": "StableDiffusionUpscalePipeline", "_diffusers_version": "0.9.0.dev0",
        "low_res_scheduler": ["diffusers", "DDPMScheduler"], "max_noise_level": 350, "scheduler": ["diffusers",
        "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers",
        "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    },
)
published(
    "stable-cascade",
    "lllyasviel/stable-diffusion-webui-forge@dfdcbab6",
    index={
        "_class_name": "StableCascadeDecoderPipeline", "_diffusers_version": "0.27.0.dev0", "decoder": ["diffusers",
        "StableCascadeUNet"], "latent_dim_scale": 10.67, "scheduler": ["diffusers", "DDPMWuerstchenScheduler"],
        "text_encoder": ["transformers", "CLIPTextModelWithProjection"], "tokenizer": ["transformers",
        "CLIPTokenizerFast"], "vqgan": ["wuerstchen", "PaellaVQModel"],
    },
)
published(
    "stable-cascade-first",
    "Zumwaltboi68/Stable-Cascade@f2a84281",
    index={
        "_class_name": "StableCascadeDecoderPipeline", "_diffusers_version": "0.26.0.dev0",
        "_name_or_path": "StableCascade/", "decoder": ["stable_cascade", "StableCascadeUnet"],
        "latent_dim_scale": 10.67, "scheduler": ["diffusers", "DDPMWuerstchenScheduler"],
        "text_encoder": ["transformers", "CLIPTextModelWithProjection"], "tokenizer": ["transformers",
        "CLIPTokenizerFast"], "vqgan": ["wuerstchen", "PaellaVQModel"],
    },
)
published(
    "stable-cascade-prior",
    "lllyasviel/stable-diffusion-webui-forge@dfdcbab6",
    index={
        "_class_name": "StableCascadePriorPipeline", "_diffusers_version": "0.27.0.dev0",
        "feature_extractor": ["transformers", "CLIPImageProcessor"], "image_encoder": ["transformers",
        "CLIPVisionModelWithProjection"], "prior": ["diffusers", "StableCascadeUNet"], "resolution_multiple": 42.67,
        "scheduler": ["diffusers", "DDPMWuerstchenScheduler"], "text_encoder": ["transformers",
        "CLIPTextModelWithProjection"], "tokenizer": ["transformers", "CLIPTokenizerFast"],
    },
)
published(
    "stable-materials",
    "Joey-Jang/StableMaterials@f764208d",
    index={
        "_class_name": ["pipeline", "StableMaterialsPipeline"], "_diffusers_version": "0.27.2",
        "processor": ["transformers", "CLIPProcessor"], "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModelWithProjection"], "tokenizer": ["transformers",
        "CLIPTokenizerFast"], "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
        "vision_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    },
)
published(
    "svd-xt",
    "gipsyking5/stable-video-diffusion-img2vid-xt@71f41c15",
    index={
        "_class_name": "StableVideoDiffusionPipeline", "_diffusers_version": "0.24.0.dev0",
        "_name_or_path": "diffusers/svd-xt", "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"], "scheduler": ["diffusers",
        "EulerDiscreteScheduler"], "unet": ["diffusers", "UNetSpatioTemporalConditionModel"], "vae": ["diffusers",
        "AutoencoderKLTemporalDecoder"],
    },
)
published(
    "wan2.1-i2v-14b",
    "exo101/sd-webui-forge-neo-v3@5692d2d1",
    index={
        "_class_name": "WanImageToVideoPipeline", "_diffusers_version": "0.33.0.dev0",
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"], "image_processor": ["transformers",
        "CLIPImageProcessor"], "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"], "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "WanTransformer3DModel"], "vae": ["diffusers", "AutoencoderKLWan"],
    },
)
published(
    "zero123plus",
    "TiasheKnight/zero123@36df7de9",
    index={
        "_class_name": "Zero123PlusPipeline", "_diffusers_version": "0.17.1",
        "feature_extractor_clip": ["transformers", "CLIPImageProcessor"], "feature_extractor_vae": ["transformers",
        "CLIPImageProcessor"], "ramping_coefficients": [0.0, 0.2060057818889618, 0.18684479594230652,
        0.24342191219329834], "safety_checker": [None, None], "scheduler": ["diffusers",
        "EulerAncestralDiscreteScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"], "vision_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    },
)
