"""Pipelines of pixels."""

# fmt: off
from published import published

published(
    "ddpm-butterflies-128",
    "khuongsatou/ddpm-butterflies-128@dd986f6b",
    index={
        "_class_name": "DDPMPipeline", "_diffusers_version": "0.11.1", "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    },
    scheduler={
        "_class_name": "DDPMScheduler", "_diffusers_version": "0.11.1", "beta_end": 0.02, "beta_schedule": "linear",
        "beta_start": 0.0001, "clip_sample": True, "num_train_timesteps": 1000, "prediction_type": "epsilon",
        "trained_betas": None, "variance_type": "fixed_small",
    },
    unet={
        "_class_name": "UNet2DModel", "_diffusers_version": "0.11.1", "act_fn": "silu", "add_attention": True,
        "attention_head_dim": 8, "block_out_channels": [128, 128, 256, 256, 512, 512], "center_input_sample": False,
        "down_block_types": ["DownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D", "AttnDownBlock2D",
        "DownBlock2D"], "downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 3,
        "layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32,
        "out_channels": 3, "resnet_time_scale_shift": "default", "sample_size": 128,
        "time_embedding_type": "positional", "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D",
        "UpBlock2D", "UpBlock2D", "UpBlock2D"],
    },
)
published(
    "own-ddpm-cotraining",
    "rohbws/DiffusionCoTrainingToy@ab5a0553",
    like="ddpm-butterflies-128",
    index={"_diffusers_version": "0.32.2"},
    scheduler={
        "_diffusers_version": "0.32.2", "clip_sample_range": 1.0, "dynamic_thresholding_ratio": 0.995,
        "rescale_betas_zero_snr": False, "sample_max_value": 1.0, "steps_offset": 0, "thresholding": False,
        "timestep_spacing": "leading",
    },
    unet={
        "_diffusers_version": "0.32.2", "attn_norm_num_groups": None, "block_out_channels": [32],
        "class_embed_type": None, "down_block_types": ["DownBlock2D"], "downsample_type": "conv", "dropout": 0.0,
        "num_class_embeds": None, "num_train_timesteps": None, "out_channels": 1, "sample_size": [2, 1],
        "time_embedding_dim": None, "up_block_types": ["UpBlock2D"], "upsample_type": "conv",
    },
)
published(
    "own-street-ddpm",
    "Draw1n/DDPM-Street-Scene-Repaint@402f6ea2",
    like="ddpm-butterflies-128",
    unet={"_name_or_path": "/root/diffusers_main/output/unet/"},
)
