"""What the tests of diffusers fetch from the Hub, made on this machine: tokenizers, encoders, their configurations.

Within `made_here()`, `from_pretrained` of a name that is no folder gives a tiny part of the class that was asked for.
"""

import importlib
import importlib.util
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers import ConfigMixin, ModelMixin
from diffusers.models.transformers import transformer_cosmos
from diffusers.pipelines import cosmos
from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel
from diffusers.pipelines.omnigen import pipeline_omnigen, processor_omnigen
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoProcessor,
    AutoTokenizer,
    FeatureExtractionMixin,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    T5Config,
)
from zoo import audio, parts

CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}{{ part.text or '' }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = [
    "<pad>", "</s>", "<unk>", "<s>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<image>", "<|vision_start|>",
    "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
PRINTED = [chr(code) for code in range(33, 127)]
T5: dict[str, Any] = {
    "vocab_size": 200, "d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4,
    "is_encoder_decoder": False, "use_cache": False,
}  # fmt: skip
LANGUAGE: dict[str, Any] = {
    "vocab_size": 200, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 3, "eos_token_id": 1,
}  # fmt: skip
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}


class CosmosSafetyChecker(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """In place of the one of the package cosmos_guardrail: nothing is unsafe."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("where", torch.zeros(1))

    def check_text_safety(self, prompt: str) -> bool:
        return True

    def check_video_safety(self, frames: Any) -> Any:
        return frames


class Missing(Exception):
    """A file of the Hub that has no stand-in here."""


def characters(most: int = 200, *, ends: bool = True) -> PreTrainedTokenizerFast:
    """Characters as tokens, at `most` so many, with a chat template; </s> at the end where `ends`."""
    special = SPECIAL if most > len(SPECIAL) else SPECIAL[:4]
    pieces = [*special, *" aeot", "\n", *(piece for piece in PRINTED if piece not in "aeot")]
    vocab = {piece: i for i, piece in enumerate(pieces[:most])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    if ends:
        tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<s>",
        additional_special_tokens=special[4:], model_max_length=512, chat_template=CHAT,
    )  # fmt: skip


def chatglm_tokenizer(kind: Any) -> Any:
    """ChatGLM's, over a SentencePiece model of characters."""
    import sentencepiece

    with tempfile.TemporaryDirectory() as folder:
        text, prefix = Path(folder) / "text", Path(folder) / "tokenizer"
        text.write_text("\n".join(" ".join(PRINTED[i:] + PRINTED[:i]) for i in range(0, 90, 9)))
        sentencepiece.SentencePieceTrainer.train(
            input=str(text), model_prefix=str(prefix), vocab_size=len(PRINTED) + 4, model_type="char", pad_id=3,
            character_coverage=1.0, minloglevel=2,
        )  # fmt: skip
        tokenizer = kind(f"{prefix}.model")
        kept = Path(tempfile.mkdtemp()) / "tokenizer.model"  # it copies its model file when it is saved
        kept.write_bytes(Path(f"{prefix}.model").read_bytes())
        tokenizer.vocab_file = str(kept)
        return tokenizer


def _tokenizer(kind: type, name: str, options: dict[str, Any]) -> Any:
    """A tokenizer for the class that was asked for; what the call sets (a length) is set."""
    if kind is transformers.CLIPTokenizer:
        return parts.clip_tokenizer()
    if kind is transformers.RobertaTokenizer:
        return audio.roberta_tokenizer()
    if kind is transformers.T5Tokenizer and "t5" in name.lower():
        tokenizer: Any = audio.t5_tokenizer()
    elif kind.__name__ == "ChatGLMTokenizer":
        return chatglm_tokenizer(kind)
    else:
        tokenizer = characters(ends="t5" in name.lower() or "bert" in name.lower())
    if "model_max_length" in options:
        tokenizer.model_max_length = options["model_max_length"]
    return tokenizer


def _config(kind: type, name: str, options: dict[str, Any]) -> Any:
    if "t5" in name.lower():
        return T5Config(**T5)
    raise Missing(name)


def _model(kind: Any, name: str, options: dict[str, Any]) -> Any:
    """An encoder of the class that was asked for, with random weights."""
    if kind is ChatGLMModel:
        config: Any = ChatGLMConfig(
            num_layers=1, padded_vocab_size=200, hidden_size=8, ffn_hidden_size=16, kv_channels=4,
            num_attention_heads=2, seq_length=256, multi_query_attention=True, multi_query_group_num=1,
            original_rope=True, rmsnorm=True, add_qkv_bias=True, bias_dropout_fusion=True,
        )  # fmt: skip
        network = ChatGLMModel(config).eval()
        for parameter in network.parameters():  # its class leaves them as they lie in memory
            torch.nn.init.normal_(parameter, std=0.02)
        return network
    config_class = kind.config_class
    settings: dict[str, Any] = dict(LANGUAGE)
    if "T5" in kind.__name__:
        settings = dict(T5)
    elif kind.__name__ == "BertModel":
        settings = {**LANGUAGE, "hidden_size": 32}
    elif "VL" in kind.__name__:
        vision = {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "out_hidden_size": 16}
        settings = {"text_config": {**LANGUAGE, "rope_parameters": MROPE}, "vision_config": vision}
    elif "Gemma3" in kind.__name__:
        vision = {
            "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 16,
        }  # fmt: skip
        settings = {
            "text_config": {**LANGUAGE, "hidden_size": 32, "head_dim": 8},
            "vision_config": vision,
            "mm_tokens_per_image": 4,
        }
    return kind(config_class(**settings)).eval()


def _processor(kind: type, name: str, options: dict[str, Any]) -> Any:
    """The tokenizer alone: what a processor does with pictures is not asked for."""
    return characters(ends=False)


def _extractor(kind: Any, name: str, options: dict[str, Any]) -> Any:
    return kind()


KINDS: tuple[tuple[Any, Callable[..., Any]], ...] = (
    (AutoTokenizer, _tokenizer),
    (PreTrainedTokenizerBase, _tokenizer),
    (AutoConfig, _config),
    (transformers.PreTrainedModel, _model),
    (AutoProcessor, _processor),
    (ProcessorMixin, _processor),
    (FeatureExtractionMixin, _extractor),
)


@contextmanager
def made_here() -> Iterator[None]:
    """A context in which `from_pretrained` of what is not on this machine gives a tiny stand-in, or raises Missing."""
    before = [(owner, owner.__dict__["from_pretrained"]) for owner, _ in KINDS]
    for owner, make in KINDS:
        owner.from_pretrained = classmethod(_patched(owner.__dict__["from_pretrained"].__func__, make))
    try:
        yield
    finally:
        for owner, function in before:
            owner.from_pretrained = function


def _patched(original: Callable[..., Any], make: Callable[..., Any]) -> Callable[..., Any]:
    def from_pretrained(cls: Any, name: str, *args: Any, **options: Any) -> Any:
        if Path(name).is_dir():
            return original(cls, name, *args, **options)
        return make(cls, str(name), options)

    return from_pretrained


def packages() -> None:
    """Make what packages would hold that may not be installed: of the tests' own, and of three pipelines."""
    for name in ("parameterized", "requests_mock", "cosmos_guardrail"):
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = module = types.ModuleType(name)
            module.__spec__ = ModuleSpec(name, None)
            vars(module)[name] = types.SimpleNamespace(expand=lambda *_, **__: lambda test: test)
            vars(module).update(CosmosSafetyChecker=CosmosSafetyChecker, ModelMixin=ModelMixin)
    CosmosSafetyChecker.__module__ = "cosmos_guardrail"
    for path in Path(cosmos.__path__[0]).glob("pipeline_cosmos*.py"):
        owner = importlib.import_module(f"{cosmos.__name__}.{path.stem}")
        if hasattr(owner, "CosmosSafetyChecker"):
            vars(owner)["CosmosSafetyChecker"] = sys.modules["cosmos_guardrail"].CosmosSafetyChecker
    if importlib.util.find_spec("torchvision") is None:
        no_pictures()


def no_pictures() -> None:
    """What pipelines take from torchvision at import, without torchvision; no picture is ever transformed."""
    nothing: dict[str, Any] = dict.fromkeys(("Compose", "Lambda", "ToTensor", "Normalize"), lambda *_, **__: None)
    vars(processor_omnigen)["transforms"] = types.SimpleNamespace(**nothing)
    vars(pipeline_omnigen)["OmniGenMultiModalProcessor"] = processor_omnigen.OmniGenMultiModalProcessor

    def resize(mask: torch.Tensor, size: list[int], interpolation: str) -> torch.Tensor:
        return torch.nn.functional.interpolate(mask, size, mode=interpolation)

    vars(transformer_cosmos)["transforms"] = types.SimpleNamespace(
        functional=types.SimpleNamespace(resize=resize), InterpolationMode=types.SimpleNamespace(NEAREST="nearest")
    )
