"""What a request for samples comes to: a seed and a condition for each of them."""

from pathlib import Path
from typing import Any

import pytest

from scm_distill.errors import UserError
from scm_distill.sampling.backends import Facts
from scm_distill.sampling.request import SampleRequest, class_list

PROMPT = Facts("prompt", None, "image", "DDIMScheduler", 50)
LABELS = Facts("labels", 4, "image", "DDIMScheduler", 50)
PIXELS = Facts("labels", 3, "image", "DDPMScheduler", 50, shape=(1, 8, 8))
NONE = Facts("none", None, "image", "DDPMScheduler", 50, shape=(1, 8, 8))


def samples(facts: Facts, **asked: Any) -> tuple[list[int], list[Any]]:
    return SampleRequest(**{"prompts": [], "file": None, "classes": None, "n": None, "seed": 0, **asked}).samples(
        facts, "this model"
    )


def test_seeds_count_on_and_conditions_are_taken_in_turn() -> None:
    assert samples(PROMPT, prompts=["a", "b"], seed=5) == ([5, 6], ["a", "b"])
    assert samples(PROMPT, prompts=["a", "b"], seed=5, n=5) == ([5, 6, 7, 8, 9], ["a", "b", "a", "b", "a"])
    assert samples(PROMPT, prompts=["a", "b"], n=1) == ([0], ["a"])
    assert samples(NONE, n=3, seed=2) == ([2, 3, 4], [None, None, None])
    assert samples(NONE) == (list(range(16)), [None] * 16)


def test_classes_are_those_asked_for_or_all_of_a_pixel_model() -> None:
    assert samples(LABELS, classes="0-1,3", n=4) == ([0, 1, 2, 3], [0, 1, 3, 0])
    assert samples(PIXELS, n=5)[1] == [0, 1, 2, 0, 1]
    assert samples(LABELS, classes="3", n=1)[1] == [3]
    with pytest.raises(UserError, match="are 0 to 3"):
        samples(LABELS, classes="4", n=1)
    with pytest.raises(UserError, match="wants classes"):
        samples(LABELS)


def test_a_range_of_classes_holds_both_its_ends() -> None:
    assert class_list("0-9") == list(range(10))
    assert class_list("1, 3 , 7-7") == [1, 3, 7]
    for wrong in ("", "a", "3-1", "1-", "-1", "1,,2"):
        with pytest.raises(UserError, match="no list of classes"):
            class_list(wrong)


def test_a_file_may_bring_its_own_seeds_of_which_n_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a", "seed": 70}\n{"prompt": "b", "seed": 3}\n{"prompt": "c", "seed": 9}\n')
    assert samples(PROMPT, file=str(file)) == ([70, 3, 9], ["a", "b", "c"])
    assert samples(PROMPT, file=str(file), n=2) == ([70, 3], ["a", "b"])
    with pytest.raises(UserError, match="names 3 seeds, and -n is 4"):
        samples(PROMPT, file=str(file), n=4)
    for changes in ({"seed": 1}, {"prompts": ["d"]}):
        with pytest.raises(UserError, match="seeds of its own"):
            samples(PROMPT, file=str(file), **changes)


def test_what_the_model_does_not_take_is_refused() -> None:
    with pytest.raises(UserError, match="takes no prompt"):
        samples(NONE, prompts=["a"])
    with pytest.raises(UserError, match="takes no classes"):
        samples(PROMPT, prompts=["a"], classes="1")
    with pytest.raises(UserError, match="wants a prompt"):
        samples(PROMPT)
