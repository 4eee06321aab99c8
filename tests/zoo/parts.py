"""Text encoders, tokenizers and VAEs of a few thousand parameters, made without the Hub."""

from typing import Any

import torch
from diffusers import AutoencoderKL
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def clip_tokenizer() -> CLIPTokenizer:
    """Letters as tokens; 77 long, as CLIP's."""
    vocab = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(vocab)}, merges=[], model_max_length=77)


def clip(*, projection: bool = False, hidden: int = 16, layers: int = 2) -> Any:
    """A CLIP text encoder over `clip_tokenizer`."""
    config = CLIPTextConfig(
        vocab_size=2 * len(LETTERS) + 2, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers,
        num_attention_heads=2, max_position_embeddings=77, projection_dim=hidden,
        bos_token_id=2 * len(LETTERS), eos_token_id=2 * len(LETTERS) + 1, pad_token_id=2 * len(LETTERS) + 1,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def letter_tokenizer(max_length: int = 64, **special: Any) -> PreTrainedTokenizerFast:
    """One token per letter, </s> at the end, <pad> after it: what stands in for T5's and other tokenizers."""
    words = ["<pad>", "</s>", "<unk>", *LETTERS]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        model_max_length=max_length, **special,
    )  # fmt: skip


def t5(hidden: int = 16) -> T5EncoderModel:
    """A T5 encoder over `letter_tokenizer`."""
    config = T5Config(
        vocab_size=len(LETTERS) + 3, d_model=hidden, d_kv=8, d_ff=2 * hidden, num_layers=1, num_heads=2,
        feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False,
    )  # fmt: skip
    return T5EncoderModel(config).eval()


def vae(channels: int = 4, **changes: Any) -> AutoencoderKL:
    """An AutoencoderKL that halves the image once."""
    config: dict[str, Any] = {
        "in_channels": 3, "out_channels": 3, "latent_channels": channels, "block_out_channels": (4, 8),
        "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D"),
        "up_block_types": ("UpDecoderBlock2D", "UpDecoderBlock2D"), "layers_per_block": 1, "norm_num_groups": 2,
        "sample_size": 16,
    }  # fmt: skip
    return AutoencoderKL(**{**config, **changes}).eval()


@torch.no_grad()
def awaken(net: torch.nn.Module, std: float = 0.1) -> torch.nn.Module:
    """Give every constant parameter (zero gates, ones) some noise, so that the output depends on all inputs."""
    for parameter in net.parameters():
        if parameter.numel() > 1 and parameter.std() < 1e-6:
            parameter.add_(std * torch.randn_like(parameter))
    return net.eval()
