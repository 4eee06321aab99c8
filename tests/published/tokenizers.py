"""Tokenizers of the published kinds over a few letters."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from zoo.parts import LETTERS

CHAT = "{% for message in messages %}{{ message.content }}{% endfor %}"  # stands in for the templates of chat models


def small(config: Any) -> Any:
    """The configuration of a tokenizer without the tokens that its small vocabulary has no room for."""
    if not isinstance(config, dict):
        return config
    out = dict(config)
    if isinstance(added := config.get("added_tokens_decoder"), dict):
        out["added_tokens_decoder"] = {i: token for i, token in added.items() if int(i) < 3}
    if isinstance(config.get("additional_special_tokens"), list):
        out["additional_special_tokens"] = []
    if "extra_ids" in config:
        out["extra_ids"] = 0
    return out


def clip() -> tuple[dict[str, int], str]:
    """CLIP's: letters, and letters that end a word; the end of the text comes last, as in CLIP's own."""
    ends = ["<|startoftext|>", "<|endoftext|>"]
    words = ["!", "!</w>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    words += [f"{i}</w>" for i in range(62 - len(words))]
    return {word: i for i, word in enumerate([*words, *ends])}, "#version: 0.2\n"


def byte_level() -> tuple[dict[str, int], str]:
    """RoBERTa's and Qwen's."""
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", "<|endoftext|>", "<|im_start|>", "<|im_end|>", *LETTERS]
    return {word: i for i, word in enumerate(words)}, "#version: 0.2\n"


def t5() -> Tokenizer:
    """T5's: </s> ends a text."""
    words = ["<pad>", "</s>", "<unk>", *LETTERS, "▁"]
    tokenizer = Tokenizer(models.Unigram([(word, -1.0) for word in words], unk_id=2, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def write_vocabulary(folder: Path, kind: str) -> None:
    """Write the files that a tokenizer of class `kind` loads its vocabulary from."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind.startswith("T5"):
        t5().save(str(folder / "tokenizer.json"))
        return
    if kind.startswith("Bert"):
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
        (folder / "vocab.txt").write_text("\n".join(words))
        return
    if kind.startswith("Qwen"):
        (folder / "chat_template.jinja").write_text(CHAT)
    vocabulary, merges = clip() if kind.startswith("CLIP") else byte_level()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text(merges)
