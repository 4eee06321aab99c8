"""Fine-tunes of Stable Diffusion 1 as people saved and uploaded them."""

# fmt: off
# ruff: noqa: E501 -- paths as published
from published import ABSENT, published

published(
    "own-disney-dreambooth",
    "likeaj6/dreambooth-finetune@350f241e",
    like="protogen-3.4",
    safety_checker=ABSENT,
    index={"safety_checker": [None, None], "scheduler": ["diffusers", "DDIMScheduler"]},
    feature_extractor={"image_processor_type": "CLIPImageProcessor"},
    scheduler={"skip_prk_steps": ABSENT, "_class_name": "DDIMScheduler"},
    text_encoder={"_name_or_path": "nitrosocke/modern-disney-diffusion", "transformers_version": "4.25.1"},
    tokenizer={
        "name_or_path": "/root/.cache/huggingface/diffusers/models--nitrosocke--modern-disney-diffusion/snapshots/0f297645c9e8ec991ae1ba8eb7e9c4f1d7587619/tokenizer",
    },
    unet={"_name_or_path": "nitrosocke/modern-disney-diffusion"},
    vae={"scaling_factor": ABSENT, "_name_or_path": "nitrosocke/modern-disney-diffusion", "sample_size": 256},
)
published(
    "own-fantassified-icons",
    "ZuxBabyWorld/fantassified_icons@a4767e03",
    like="dreamlike-photoreal-2",
    index={"_diffusers_version": "0.11.1"},
    scheduler={"_diffusers_version": "0.11.1"},
    text_encoder={"torch_dtype": "float32"},
    unet={
        "_diffusers_version": "0.11.1", "class_embed_type": None, "mid_block_type": "UNetMidBlock2DCrossAttn",
        "resnet_time_scale_shift": "default", "sample_size": 32,
    },
    vae={"_diffusers_version": "0.11.1"},
)
published(
    "own-first-sample",
    "sashwata070/first_ai_sample@525192dd",
    like="sd-1.5-nonema",
    scheduler={
        "_diffusers_version": "0.15.0.dev0", "clip_sample_range": 1.0, "dynamic_thresholding_ratio": 0.995,
        "prediction_type": "epsilon", "sample_max_value": 1.0, "thresholding": False,
    },
    text_encoder={"_name_or_path": ABSENT, "transformers_version": "4.28.1"},
    tokenizer={"name_or_path": ABSENT, "special_tokens_map_file": ABSENT, "clean_up_tokenization_spaces": True},
    unet={
        "_diffusers_version": "0.15.0.dev0", "conv_in_kernel": 3, "conv_out_kernel": 3,
        "projection_class_embeddings_input_dim": None, "time_cond_proj_dim": None,
        "time_embedding_type": "positional", "timestep_post_act": None,
    },
    vae={"_diffusers_version": "0.15.0.dev0", "scaling_factor": 0.18215},
)
published(
    "own-magikal",
    "george-polygod/magikaljourney@be421bb9",
    like="openjourney",
    unet={"sample_size": 64},
)
published(
    "own-no1",
    "aneeszehri/no1@3ff66c3d",
    like="protogen-3.4",
    safety_checker=ABSENT,
    index={
        "requires_safety_checker": ABSENT, "safety_checker": ABSENT,
        "feature_extractor": ["StableDiffusionSafetyChecker"],
    },
    feature_extractor={
        "image_processor_type": ABSENT, "do_convert_rgb": False, "do_normalize": False,
        "feature_extractor_type": "transformers.FeatureExtractor",
    },
    text_encoder={"transformers_version": "4.25.1"},
)
published(
    "own-oscavatar",
    "bigdata-ai-lab/oscavatar@0fd18625",
    like="openjourney",
    index={"_diffusers_version": "0.9.0.dev0"},
    scheduler={"_class_name": "DDIMScheduler", "_diffusers_version": "0.9.0.dev0", "prediction_type": "epsilon"},
    text_encoder={
        "_name_or_path": ABSENT, "hidden_act": "gelu", "hidden_size": 1024, "intermediate_size": 4096,
        "num_attention_heads": 16, "num_hidden_layers": 23, "projection_dim": 512, "transformers_version": "4.21.1",
    },
    tokenizer={"name_or_path": "stabilityai/stable-diffusion-2-1-base"},
    unet={
        "_diffusers_version": "0.9.0.dev0", "attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024,
        "dual_cross_attention": False, "num_class_embeds": None, "only_cross_attention": False,
        "use_linear_projection": False,
    },
    vae={"_diffusers_version": "0.9.0.dev0"},
)
published(
    "own-owl-characters",
    "jartemio/The_Owl_Characters_V2@39f32264",
    like="own-fantassified-icons",
    index={"_diffusers_version": "0.13.0", "scheduler": ["diffusers", "DDPMScheduler"]},
    scheduler={
        "skip_prk_steps": ABSENT, "_class_name": "DDPMScheduler", "_diffusers_version": "0.13.0",
        "clip_sample_range": 1.0, "variance_type": "fixed_small",
    },
    text_encoder={
        "_name_or_path": "/content/drive/MyDrive/everydreamlogs/ckpt/the_owl_house_ACertainty",
        "transformers_version": "4.25.1",
    },
    tokenizer={
        "name_or_path": "/content/drive/MyDrive/everydreamlogs/ckpt/the_owl_house_ACertainty", "use_fast": False,
    },
    unet={
        "_diffusers_version": "0.13.0",
        "_name_or_path": "/content/drive/MyDrive/everydreamlogs/ckpt/the_owl_house_ACertainty", "conv_in_kernel": 3,
        "conv_out_kernel": 3, "projection_class_embeddings_input_dim": None, "sample_size": 64,
        "time_cond_proj_dim": None, "time_embedding_type": "positional", "timestep_post_act": None,
    },
    vae={
        "_diffusers_version": "0.13.0",
        "_name_or_path": "/content/drive/MyDrive/everydreamlogs/ckpt/the_owl_house_ACertainty", "sample_size": 512,
    },
)
published(
    "own-sd-converted-0.4",
    "arodriguezju/multimodalart-sd-fine-tunable@9dabd4db",
    like="sd-1.5",
    feature_extractor=ABSENT,
    safety_checker=ABSENT,
    index={"feature_extractor": ABSENT, "safety_checker": ABSENT},
    scheduler={"clip_sample": ABSENT},
    vae={"_diffusers_version": "0.4.2"},
)
published(
    "own-sd-kaggle",
    "mengkoding47/text_to_image@86a61e73",
    like="dreamshaper-8",
    index={
        "_diffusers_version": "0.30.3", "_name_or_path": "/kaggle/working/stable_diffusion_model",
        "feature_extractor": ["transformers", "CLIPImageProcessor"], "image_encoder": [None, None],
        "scheduler": ["diffusers", "PNDMScheduler"],
    },
    feature_extractor={"feature_extractor_type": ABSENT, "image_processor_type": "CLIPImageProcessor"},
    safety_checker={
        "_name_or_path": "/kaggle/working/stable_diffusion_model/safety_checker", "transformers_version": "4.44.2",
    },
    scheduler={
        "algorithm_type": ABSENT, "dynamic_thresholding_ratio": ABSENT, "lower_order_final": ABSENT,
        "sample_max_value": ABSENT, "solver_order": ABSENT, "solver_type": ABSENT, "thresholding": ABSENT,
        "use_karras_sigmas": ABSENT, "_class_name": "PNDMScheduler", "_diffusers_version": "0.30.3",
    },
    text_encoder={
        "_name_or_path": "/kaggle/working/stable_diffusion_model/text_encoder", "projection_dim": 512,
        "transformers_version": "4.44.2",
    },
    tokenizer={
        "added_tokens_decoder": {}, "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    },
    unet={
        "_diffusers_version": "0.30.3", "_name_or_path": "/kaggle/working/stable_diffusion_model/unet",
        "dropout": 0.0, "reverse_transformer_layers_per_block": None, "upcast_attention": False,
    },
    vae={
        "_diffusers_version": "0.30.3", "_name_or_path": "/kaggle/working/stable_diffusion_model/vae",
        "latents_mean": None, "latents_std": None, "mid_block_add_attention": True, "shift_factor": None,
        "use_post_quant_conv": True, "use_quant_conv": True,
    },
)
published(
    "own-sd15-crynux",
    "leecool9669/latent-diffusion-v1-5-WebUI@361c76ff",
    like="own-sd-kaggle",
    index={
        "_diffusers_version": "0.31.0", "_name_or_path": "crynux-ai/stable-diffusion-v1-5", "safety_checker": [None,
        None],
    },
    feature_extractor={"use_square_size": False},
    safety_checker={
        "_name_or_path": "tmp/huggingface/models--runwayml--stable-diffusion-v1-5/snapshots/1d0c4ebf6ff58a5caecab40fa1406526bca4b5b9/safety_checker",
        "transformers_version": "4.44.1",
    },
    scheduler={"_diffusers_version": "0.31.0"},
    text_encoder={
        "_name_or_path": "models/huggingface/models--crynux-ai--stable-diffusion-v1-5/snapshots/0e9e89329d999f1ee1ae21dbb0163725e352061a/text_encoder",
        "projection_dim": 768, "torch_dtype": "float32", "transformers_version": "4.46.3",
    },
    unet={
        "_diffusers_version": "0.31.0",
        "_name_or_path": "models/huggingface/models--crynux-ai--stable-diffusion-v1-5/snapshots/0e9e89329d999f1ee1ae21dbb0163725e352061a/unet",
    },
    vae={
        "_diffusers_version": "0.31.0",
        "_name_or_path": "models/huggingface/models--crynux-ai--stable-diffusion-v1-5/snapshots/0e9e89329d999f1ee1ae21dbb0163725e352061a/vae",
    },
)
published(
    "own-sd15-furry",
    "12172871782/asjfldsjfls@e193f18e",
    like="openjourney",
    index={"_diffusers_version": "0.6.0"},
    scheduler={"clip_sample": ABSENT, "_diffusers_version": "0.9.0.dev0"},
    text_encoder={"_name_or_path": "/content/models/furrydiffusion", "torch_dtype": "float16"},
    tokenizer={"name_or_path": "/content/stable-diffusion-custom/tokenizer"},
    unet={
        "_diffusers_version": "0.9.0.dev0", "_name_or_path": "/content/stable-diffusion-custom",
        "dual_cross_attention": False, "num_class_embeds": None, "only_cross_attention": False,
        "use_linear_projection": False,
    },
    vae={"_diffusers_version": "0.9.0.dev0", "_name_or_path": "/content/stable-diffusion-custom/vae"},
)
published(
    "own-sd15-tardis",
    "AdamOswald/Tardis-fusion@ca39b1c2",
    like="nitro-diffusion",
    safety_checker=ABSENT,
    index={"safety_checker": ABSENT, "_diffusers_version": "0.7.0.dev0", "scheduler": ["diffusers", "DDIMScheduler"]},
    scheduler={"skip_prk_steps": ABSENT, "_class_name": "DDIMScheduler", "_diffusers_version": "0.7.0.dev0"},
    text_encoder={"_name_or_path": "F:/AI/Diffusers/stable-diffusion-v1-5"},
    tokenizer={"name_or_path": "F:/AI/Diffusers/stable-diffusion-v1-5\\tokenizer"},
    unet={"_diffusers_version": "0.7.0.dev0", "_name_or_path": "F:/AI/Diffusers/stable-diffusion-v1-5"},
    vae={
        "_diffusers_version": "0.7.0.dev0", "_name_or_path": "F:/AI/Diffusers/stable-diffusion-v1-5",
        "sample_size": 512,
    },
)
published(
    "own-text-to-image",
    "KrisKeshav/Text_to_Image_generator@a2e7149e",
    like="own-sd15-crynux",
    feature_extractor=ABSENT,
    safety_checker=ABSENT,
    index={
        "_diffusers_version": "0.28.2", "_name_or_path": "dreamlike-art/dreamlike-diffusion-1.0",
        "feature_extractor": [None, None], "requires_safety_checker": None, "scheduler": ["diffusers",
        "DDIMScheduler"],
    },
    scheduler={
        "_class_name": "DDIMScheduler", "_diffusers_version": "0.28.2", "clip_sample_range": 1.0,
        "dynamic_thresholding_ratio": 0.995, "rescale_betas_zero_snr": False, "sample_max_value": 1.0,
        "thresholding": False,
    },
    text_encoder={
        "_name_or_path": "/root/.cache/huggingface/hub/models--dreamlike-art--dreamlike-diffusion-1.0/snapshots/9fb5a6463bf79d81152e715e8d2a8b988f96c790/text_encoder",
        "torch_dtype": "float16", "transformers_version": "4.41.2",
    },
    unet={
        "_diffusers_version": "0.28.2",
        "_name_or_path": "/root/.cache/huggingface/hub/models--dreamlike-art--dreamlike-diffusion-1.0/snapshots/9fb5a6463bf79d81152e715e8d2a8b988f96c790/unet",
        "sample_size": 80,
    },
    vae={
        "mid_block_add_attention": ABSENT, "shift_factor": ABSENT, "use_post_quant_conv": ABSENT,
        "use_quant_conv": ABSENT, "_diffusers_version": "0.28.2",
        "_name_or_path": "/root/.cache/huggingface/hub/models--dreamlike-art--dreamlike-diffusion-1.0/snapshots/9fb5a6463bf79d81152e715e8d2a8b988f96c790/vae",
        "sample_size": 256,
    },
)
published(
    "own-urpm",
    "KINGJMoney/URPM@be695cb9",
    like="protogen-3.4",
    index={"_diffusers_version": "0.15.0.dev0", "feature_extractor": ["transformers", "CLIPFeatureExtractor"]},
    scheduler={
        "_diffusers_version": "0.15.0.dev0", "clip_sample_range": 1.0, "dynamic_thresholding_ratio": 0.995,
        "sample_max_value": 1.0, "thresholding": False,
    },
    text_encoder={"transformers_version": "4.27.1"},
    tokenizer={"name_or_path": ABSENT},
    unet={
        "_diffusers_version": "0.15.0.dev0", "conv_in_kernel": 3, "conv_out_kernel": 3,
        "projection_class_embeddings_input_dim": None, "time_cond_proj_dim": None,
        "time_embedding_type": "positional", "timestep_post_act": None,
    },
    vae={"_diffusers_version": "0.15.0.dev0", "_name_or_path": "stabilityai/sd-vae-ft-mse", "sample_size": 256},
)
published(
    "own-wsj-hedcut",
    "dmillar/wsj-hedcut-v1@bc310ac4",
    like="own-sd15-furry",
    text_encoder={"_name_or_path": "/content/models/wsj_hedcut_style", "transformers_version": "4.21.1"},
    tokenizer={"name_or_path": "/content/models/wsj_hedcut_style/tokenizer"},
    unet={"_name_or_path": "/content/models/wsj_hedcut_style", "sample_size": 64},
    vae={"_name_or_path": "/content/models/wsj_hedcut_style/vae", "sample_size": 512, "scaling_factor": 0.18215},
)
published(
    "realistic-vision-5.1",
    "smbands/realistic-vision-v51@19e3643d",
    like="own-sd-kaggle",
    index={
        "_name_or_path": ABSENT, "_diffusers_version": "0.25.0.dev0", "feature_extractor": ["transformers",
        "CLIPFeatureExtractor"],
    },
    feature_extractor={
        "feature_extractor_type": "CLIPFeatureExtractor", "image_processor_type": "CLIPFeatureExtractor",
        "use_square_size": False,
    },
    safety_checker={"_name_or_path": "CompVis/stable-diffusion-safety-checker", "transformers_version": "4.35.2"},
    scheduler={"_diffusers_version": "0.25.0.dev0"},
    text_encoder={"_name_or_path": ABSENT, "projection_dim": 768, "transformers_version": "4.35.2"},
    unet={"_name_or_path": ABSENT, "_diffusers_version": "0.25.0.dev0"},
    vae={
        "_name_or_path": ABSENT, "latents_mean": ABSENT, "latents_std": ABSENT, "mid_block_add_attention": ABSENT,
        "shift_factor": ABSENT, "use_post_quant_conv": ABSENT, "use_quant_conv": ABSENT,
        "_diffusers_version": "0.25.0.dev0",
    },
)
