"""Audio pipelines over a latent waveform."""

import warnings

import torch
from diffusers import (
    AceStepPipeline,
    AceStepTransformer1DModel,
    AutoencoderOobleck,
    CosineDPMSolverMultistepScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    LongCatAudioDiTPipeline,
    LongCatAudioDiTTransformer,
    LongCatAudioDiTVae,
    StableAudioDiTModel,
    StableAudioPipeline,
    StableAudioProjectionModel,
)
from diffusers.pipelines.ace_step import AceStepConditionEncoder
from diffusers.pipelines.ace_step.pipeline_ace_step import DEFAULT_DIT_INSTRUCTION, SFT_GEN_PROMPT
from tokenizers import AddedToken
from transformers import Qwen3Config, Qwen3Model

from zoo import family, parts
from zoo.flow_video import umt5


def oobleck(channels: int = 8, rate: int = 16) -> AutoencoderOobleck:
    """A stereo waveform VAE that shortens by 4; diffusers builds it of a torch function that announces its end."""
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        return AutoencoderOobleck(
            encoder_hidden_size=8, downsampling_ratios=[2, 2], channel_multiples=[1, 2], decoder_channels=8,
            decoder_input_channels=channels, sampling_rate=rate,
        ).eval()  # fmt: skip


@family("stable_audio", modality="audio")
def stable_audio() -> DiffusionPipeline:
    """Stable Audio Open 1.0: v-prediction on EDM's noise scale."""
    scheduler = CosineDPMSolverMultistepScheduler(sigma_min=0.3, sigma_max=500.0)
    transformer = StableAudioDiTModel(
        sample_size=16, in_channels=8, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        num_key_value_attention_heads=1, out_channels=8, cross_attention_dim=8, time_proj_dim=16,
        global_states_input_dim=32, cross_attention_input_dim=16,
    ).eval()  # fmt: skip
    projection = StableAudioProjectionModel(text_encoder_dim=16, conditioning_dim=16, min_value=0, max_value=512)
    return StableAudioPipeline(
        vae=oobleck(), text_encoder=parts.t5(), projection_model=projection.eval(),
        tokenizer=parts.letter_tokenizer(16), transformer=transformer, scheduler=scheduler,
    )  # fmt: skip


@family("ace_step", modality="audio", audio_duration=4.0)
def ace_step() -> DiffusionPipeline:
    """ACE-Step 1.5 base: music from a caption and lyrics; times from 1 to 0, shifted by the pipeline."""
    qwen = Qwen3Config(
        vocab_size=len(parts.LETTERS) + 8, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=2048, pad_token_id=0,
        eos_token_id=1, bos_token_id=1, initializer_range=0.5,
    )  # fmt: skip
    tokenizer = parts.letter_tokenizer(2048)
    template = [text for text in (*SFT_GEN_PROMPT.split("{}"), DEFAULT_DIT_INSTRUCTION) if text]
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=True) for text in template])
    size = {
        "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
    }  # fmt: skip
    transformer = AceStepTransformer1DModel(
        num_hidden_layers=2, in_channels=24, audio_acoustic_hidden_dim=8, sliding_window=4, **size
    )
    condition = AceStepConditionEncoder(
        text_hidden_dim=16, timbre_hidden_dim=8, num_lyric_encoder_hidden_layers=1,
        num_timbre_encoder_hidden_layers=1, **size,
    )  # fmt: skip
    return AceStepPipeline(
        vae=oobleck(), text_encoder=Qwen3Model(qwen).eval(), tokenizer=tokenizer,
        transformer=transformer.eval(), condition_encoder=condition.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0),
    )  # fmt: skip


@family("longcat_audio", modality="audio", audio_duration_s=1.0)
def longcat_audio() -> DiffusionPipeline:
    """LongCat-AudioDiT: times that rise from 0 to 1, from noise to sound."""
    transformer = LongCatAudioDiTTransformer(dit_dim=16, dit_depth=2, dit_heads=2, dit_text_dim=16, latent_dim=8)
    for module in transformer.modules():
        if isinstance(module, torch.nn.Linear):  # its own 0.02 leaves an output that hardly sees the sample
            torch.nn.init.xavier_normal_(module.weight)
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        vae = LongCatAudioDiTVae(
            channels=8, c_mults=[1, 2], strides=[2, 2], latent_dim=8, encoder_latent_dim=16, downsampling_ratio=4,
            sample_rate=64,
        )  # fmt: skip
    return LongCatAudioDiTPipeline(
        vae=vae.eval(), text_encoder=umt5(), tokenizer=parts.letter_tokenizer(),
        transformer=parts.awaken(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, invert_sigmas=True),
    )  # fmt: skip
