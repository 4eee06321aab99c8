"""The samples that a user asks for: prompts or classes and their seeds; the names of devices and dtypes."""

import json
from dataclasses import dataclass

import torch

from scm_distill.data import media
from scm_distill.errors import UserError
from scm_distill.sampling.backends import Condition, Facts

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
USUAL = 16  # samples, where nothing says how many
MOST = 100_000  # classes of a range: more than any model has, and few enough to be listed


@dataclass(frozen=True)
class SampleRequest:
    """Which samples are to be drawn, in the words of the command line."""

    prompts: list[str]
    file: str | None  # of prompts: a text file, or .jsonl of {"prompt": ..., "seed": ...}
    classes: str | None  # such as "0-9" or "1,3,7"
    n: int | None  # samples; None: one a prompt, or USUAL
    seed: int  # of the first sample; the next ones count on

    def check(self) -> None:
        """Raise UserError for what is wrong whatever the model, before one is loaded."""
        self._all_prompts()
        if self.classes is not None:
            class_list(self.classes)

    def samples(self, facts: Facts, model: str) -> tuple[list[int], list[Condition]]:
        """The seed and the condition of every sample, from a model of these `facts`. Raises UserError."""
        prompts, seeds = self._all_prompts()
        if prompts and facts.driver != "prompt":
            raise UserError(f"{model} takes no prompt.", "Leave --prompt and --prompts away.")
        if self.classes is not None and facts.driver != "labels":
            raise UserError(f"{model} takes no classes.", "Leave --classes away.")
        conditions: list[Condition] = list(prompts)
        if facts.driver == "prompt" and not prompts:
            raise UserError(f"{model} wants a prompt.", "Give --prompt 'a photo of a cat'.")
        if facts.driver == "labels":
            assert facts.classes is not None
            if self.classes is None and not facts.pixels:
                raise UserError(f"{model} wants classes.", "Give --classes 0-9.")
            classes = class_list(self.classes or f"0-{facts.classes - 1}")
            if max(classes) >= facts.classes:
                raise UserError(f"The classes of {model} are 0 to {facts.classes - 1}.", "Choose among them.")
            conditions = list(classes)
        n = self.n or len(prompts) or USUAL
        if seeds:
            if n > len(seeds):
                raise UserError(f"{self.file} names {len(seeds)} seeds, and -n is {n}.", "Leave -n away.")
            return seeds[:n], conditions[:n]
        conditions = conditions or [None]
        return list(range(self.seed, self.seed + n)), [conditions[i % len(conditions)] for i in range(n)]

    def _all_prompts(self) -> tuple[list[str], list[int]]:
        """The prompts, those of the file last, and their own seeds where the file has any. Raises UserError."""
        if any(not prompt.strip() for prompt in self.prompts):
            raise UserError("A --prompt is empty.", "Say what to draw.")
        if self.file is None:
            return self.prompts, []
        lines = [line for line in media.read_prompts(self.file) if not line.startswith("#")]
        if not lines:
            raise UserError(f"{self.file} holds no prompts.", "Write one a line.")
        if not self.file.endswith(".jsonl"):
            return self.prompts + lines, []
        prompts, seeds = _records(lines, self.file)
        if seeds and (self.prompts or self.seed):
            raise UserError(f"{self.file} has seeds of its own.", "Leave --prompt and --seed away.")
        return self.prompts + prompts, seeds


def _records(lines: list[str], file: str) -> tuple[list[str], list[int]]:
    """The prompts and the seeds of the lines of a .jsonl `file`; seeds for all of them, or for none."""
    prompts, seeds = [], []
    for i, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            prompt, seed = record.pop("prompt"), record.pop("seed", None)
        except (ValueError, KeyError, AttributeError, TypeError):
            prompt, seed, record = None, None, {}
        if not isinstance(prompt, str) or not prompt.strip() or record:
            raise UserError(
                f'Record {i} of {file} is no {{"prompt": ..., "seed": ...}}.', "Write such an object a line."
            )
        if seed is not None and (type(seed) is not int or not 0 <= seed < 2**63):
            raise UserError(f"Record {i} of {file} has the seed {seed!r}.", "Give an integer from 0 on.")
        prompts.append(prompt)
        seeds += [] if seed is None else [seed]
    if seeds and (len(seeds) < len(prompts) or len(set(seeds)) < len(seeds)):
        raise UserError(f"The seeds of {file} are not one a prompt, each another.", "Files are named by their seed.")
    return prompts, seeds


def class_list(text: str) -> list[int]:
    """The classes of "0-9" or "1,3,7". Raises UserError."""
    chosen: list[int] = []
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not first.isdecimal() or (dash and not last.isdecimal()) or int(last or first) < int(first):
            raise UserError(f"--classes {text!r} is no list of classes.", "Write for example 0-9 or 1,3,7.")
        chosen += range(int(first), min(int(last or first), int(first) + MOST) + 1)
    return chosen


def dtype_of(text: str) -> torch.dtype:
    """The dtype of the name fp32, bf16 or fp16. Raises UserError for an unknown one."""
    if text not in DTYPES:
        raise UserError(f"There is no dtype {text!r}.", f"Choose --dtype {', '.join(DTYPES)}.")
    return DTYPES[text]


def device_of(text: str | None) -> torch.device:
    """The device of the name cpu, cuda, cuda:N or mps; None: the first GPU, or the CPU. Raises UserError."""
    if text is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    here += ["mps"] if torch.backends.mps.is_available() else []
    if text not in here and not (text == "cuda" and torch.cuda.is_available()):
        raise UserError(f"This machine has no device {text!r}.", f"It has {', '.join(here)}.")
    return torch.device(text)
