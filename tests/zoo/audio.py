"""Pipelines that make sound."""

from typing import Any

from diffusers import (
    AudioLDM2Pipeline,
    AudioLDM2ProjectionModel,
    AudioLDM2UNet2DConditionModel,
    DDIMScheduler,
    DiffusionPipeline,
)
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    GPT2Config,
    GPT2LMHeadModel,
    RobertaTokenizer,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
    T5Tokenizer,
)

from zoo import family, parts


def roberta_tokenizer() -> RobertaTokenizer:
    """Letters as tokens, for CLAP."""
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *parts.LETTERS]
    return RobertaTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=16)


def t5_tokenizer() -> T5Tokenizer:
    """Letters as tokens; the pipeline looks at the tokenizer's class."""
    pieces = ["<pad>", "</s>", "<unk>", *parts.LETTERS[:-1], "▁"]  # as many as parts.t5 has
    return T5Tokenizer(vocab=[(piece, -1.0) for piece in pieces], extra_ids=0, model_max_length=16)


def clap() -> ClapModel:
    """Text and audio in one space; only the scoring of several waveforms listens to the audio half."""
    text: dict[str, Any] = {
        "vocab_size": 6 + len(parts.LETTERS), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 20,
    }  # fmt: skip
    audio: dict[str, Any] = {
        "window_size": 2, "num_mel_bins": 8, "spec_size": 32, "patch_size": 4, "patch_stride": 4, "depths": [1, 1],
        "num_attention_heads": [1, 2], "patch_embeds_hidden_size": 8, "hidden_size": 16, "num_hidden_layers": 2,
    }  # fmt: skip
    config = ClapConfig(text_config=text, audio_config=audio, projection_dim=16, hidden_size=16, num_hidden_layers=1)
    return ClapModel(config).eval()


def vocoder() -> SpeechT5HifiGan:
    """Sixteen mel bins at 100 frames a second to a waveform of 400 samples a second."""
    config = SpeechT5HifiGanConfig(
        model_in_dim=16, sampling_rate=400, upsample_initial_channel=8, upsample_rates=[2, 2],
        upsample_kernel_sizes=[4, 4], resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1]], normalize_before=False,
        initializer_range=0.3,
    )  # fmt: skip
    return SpeechT5HifiGan(config).eval()


def scheduler() -> DDIMScheduler:
    """Audio's own betas, epsilon."""
    return DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.0015, beta_end=0.0195, clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip


@family("audioldm2", modality="audio", audio_length_in_s=0.16)
def audioldm2() -> DiffusionPipeline:
    """AudioLDM2: CLAP and T5 through a language model, two cross-attended sequences, one of a varying length."""
    net = AudioLDM2UNet2DConditionModel(
        sample_size=8, in_channels=8, out_channels=8, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=[[None, 16, 16], [None, 16, 16]], attention_head_dim=2,
    )  # fmt: skip
    language = GPT2Config(
        vocab_size=8, n_embd=16, n_layer=1, n_head=2, n_positions=64, max_new_tokens=4, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return AudioLDM2Pipeline(
        vae=parts.vae(8, in_channels=1, out_channels=1), text_encoder=clap(), text_encoder_2=parts.t5(),
        projection_model=parts.awaken(AudioLDM2ProjectionModel(16, 16, 16)),
        language_model=GPT2LMHeadModel(language).eval(), tokenizer=roberta_tokenizer(), tokenizer_2=t5_tokenizer(),
        feature_extractor=ClapFeatureExtractor(), unet=net.eval(), scheduler=scheduler(), vocoder=vocoder(),
    )  # fmt: skip
