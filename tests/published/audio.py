"""Sound."""

# fmt: off
from published import ABSENT, published

published(
    "audioldm-s-full-v2",
    "tucommenceapousser/audioldm-s-full-v2@c6d8a04d",
    like="own-first-sample",
    feature_extractor=ABSENT,
    safety_checker=ABSENT,
    index={
        "feature_extractor": ABSENT, "safety_checker": ABSENT, "_class_name": "AudioLDMPipeline",
        "_diffusers_version": "0.15.0.dev0", "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "ClapTextModelWithProjection"], "tokenizer": ["transformers",
        "RobertaTokenizerFast"], "vocoder": ["transformers", "SpeechT5HifiGan"],
    },
    scheduler={"skip_prk_steps": ABSENT, "_class_name": "DDIMScheduler", "beta_end": 0.0195, "beta_start": 0.0015},
    text_encoder={
        "attention_dropout": ABSENT, "dropout": ABSENT, "architectures": ["ClapTextModelWithProjection"],
        "attention_probs_dropout_prob": 0.1, "classifier_dropout": None, "fusion_hidden_size": 768,
        "fusion_num_hidden_layers": 2, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "layer_norm_eps": 1e-12,
        "max_position_embeddings": 514, "model_type": "clap_text_model", "position_embedding_type": "absolute",
        "projection_dim": 512, "projection_hidden_act": "relu", "projection_hidden_size": 768,
        "transformers_version": "4.28.0.dev0", "type_vocab_size": 1, "use_cache": True, "vocab_size": 50265,
    },
    tokenizer={
        "do_lower_case": ABSENT, "bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>",
        "model_max_length": 512, "pad_token": "<pad>", "processor_class": "ClapProcessor", "sep_token": "</s>",
        "special_tokens_map_file": None, "tokenizer_class": "RobertaTokenizer", "trim_offsets": True,
        "unk_token": "<unk>",
    },
    unet={
        "block_out_channels": [128, 256, 384, 640], "class_embed_type": "simple_projection",
        "class_embeddings_concat": True, "cross_attention_dim": [128, 256, 384, 640],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "in_channels": 8, "out_channels": 8, "projection_class_embeddings_input_dim": 512, "sample_size": 128,
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    },
    vae={
        "block_out_channels": [128, 256, 512], "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D",
        "DownEncoderBlock2D"], "in_channels": 1, "latent_channels": 8, "out_channels": 1,
        "scaling_factor": 0.9392935633659363, "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D",
        "UpDecoderBlock2D"],
    },
    vocoder={
        "architectures": ["SpeechT5HifiGan"], "initializer_range": 0.01, "leaky_relu_slope": 0.1, "model_in_dim": 64,
        "model_type": "hifigan", "normalize_before": False, "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3,
        5]], "resblock_kernel_sizes": [3, 7, 11], "sampling_rate": 16000, "torch_dtype": "float32",
        "transformers_version": "4.28.0.dev0", "upsample_initial_channel": 1024, "upsample_kernel_sizes": [16, 16, 8,
        4, 4], "upsample_rates": [5, 4, 2, 2, 2],
    },
)
published(
    "stable-audio-open-1.0",
    "dlwowlb/non-monotonous-music@534c81c0",
    index={
        "_class_name": "StableAudioPipeline", "_diffusers_version": "0.30.0.dev0",
        "projection_model": ["stable_audio", "StableAudioProjectionModel"], "scheduler": ["diffusers",
        "CosineDPMSolverMultistepScheduler"], "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"], "transformer": ["diffusers", "StableAudioDiTModel"],
        "vae": ["diffusers", "AutoencoderOobleck"],
    },
    projection_model={
        "_class_name": "StableAudioProjectionModel", "_diffusers_version": "0.30.0.dev0", "conditioning_dim": 768,
        "max_value": 512, "min_value": 0, "text_encoder_dim": 768,
    },
    scheduler={
        "_class_name": "CosineDPMSolverMultistepScheduler", "_diffusers_version": "0.30.0.dev0",
        "euler_at_final": False, "final_sigmas_type": "zero", "lower_order_final": True, "num_train_timesteps": 1000,
        "prediction_type": "v_prediction", "rho": 7.0, "sigma_data": 1.0, "sigma_max": 500, "sigma_min": 0.3,
        "sigma_schedule": "exponential", "solver_order": 2, "solver_type": "midpoint",
    },
    text_encoder={
        "_name_or_path": "t5-base", "architectures": ["T5EncoderModel"], "classifier_dropout": 0.0, "d_ff": 3072,
        "d_kv": 64, "d_model": 768, "decoder_start_token_id": 0, "dense_act_fn": "relu", "dropout_rate": 0.1,
        "eos_token_id": 1, "feed_forward_proj": "relu", "initializer_factor": 1.0, "is_encoder_decoder": True,
        "is_gated_act": False, "layer_norm_epsilon": 1e-06, "model_type": "t5", "n_positions": 512,
        "num_decoder_layers": 12, "num_heads": 12, "num_layers": 12, "output_past": True, "pad_token_id": 0,
        "relative_attention_max_distance": 128, "relative_attention_num_buckets": 32, "torch_dtype": "float32",
        "transformers_version": "4.42.0.dev0", "use_cache": True, "vocab_size": 32128,
    },
    tokenizer={
        "added_tokens_decoder": {"0": {"content": "<pad>", "lstrip": False, "normalized": False, "rstrip": False,
        "single_word": False, "special": True}, "1": {"content": "</s>", "lstrip": False, "normalized": False,
        "rstrip": False, "single_word": False, "special": True}, "2": {"content": "<unk>", "lstrip": False,
        "normalized": False, "rstrip": False, "single_word": False, "special": True}},
        "additional_special_tokens": [], "clean_up_tokenization_spaces": True, "eos_token": "</s>", "extra_ids": 100,
        "model_max_length": 128, "pad_token": "<pad>", "tokenizer_class": "T5Tokenizer", "truncation": True,
        "unk_token": "<unk>",
    },
    transformer={
        "_class_name": "StableAudioDiTModel", "_diffusers_version": "0.30.0.dev0", "attention_head_dim": 64,
        "cross_attention_dim": 768, "cross_attention_input_dim": 768, "global_states_input_dim": 1536,
        "in_channels": 64, "num_attention_heads": 24, "num_key_value_attention_heads": 12, "num_layers": 24,
        "out_channels": 64, "sample_size": 1024.0, "time_proj_dim": 256,
    },
    vae={
        "_class_name": "AutoencoderOobleck", "_diffusers_version": "0.30.0.dev0", "audio_channels": 2,
        "channel_multiples": [1, 2, 4, 8, 16], "decoder_channels": 128, "decoder_input_channels": 64,
        "downsampling_ratios": [2, 4, 4, 8, 8], "encoder_hidden_size": 128, "sampling_rate": 44100,
    },
)
