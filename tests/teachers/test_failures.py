"""What the libraries raise on settings that do not fit is one sentence, with the part and the setting."""

import json
import shutil
from pathlib import Path

import pytest

from scm_distill import builtin, teachers
from scm_distill.errors import UserError
from scm_distill.teachers import failures


@pytest.mark.parametrize(
    ("file", "key", "value", "told"),
    [
        ("unet/config.json", "block_out_channels", "wide", "block_out_channels is 'wide' in unet/config.json"),
        ("unet/config.json", "norm_num_groups", [], "norm_num_groups is [] in unet/config.json"),
        ("unet/config.json", "mid_block_scale_factor", "one", "mid_block_scale_factor of its unet is 'one'"),
        ("unet/config.json", "act_fn", 3, "act_fn is 3 in unet/config.json"),
        ("unet/config.json", "down_block_types", ["Mine"], "its unet: "),
        ("scheduler/scheduler_config.json", "beta_start", ["a"], "beta_start is ['a'] in scheduler/"),
        ("scheduler/scheduler_config.json", "num_train_timesteps", "many", "num_train_timesteps is 'many' in "),
        ("scheduler/scheduler_config.json", "beta_schedule", None, "its scheduler: "),
        ("scheduler/scheduler_config.json", "_class_name", 0, "its scheduler: "),
    ],
)  # fmt: skip
def test_a_setting_that_does_not_fit(file: str, key: str, value: object, told: str, tmp_path: Path) -> None:
    folder = shutil.copytree(str(builtin.path("builtin:digits/teacher")), tmp_path / "digits")
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**config, key: value}))
    with pytest.raises(UserError) as caught:
        teachers.load(str(folder))
    assert caught.value.code == 2
    assert told in caught.value.problem


@pytest.mark.parametrize(
    ("value", "usual", "alike"),
    [
        (0, 4, True), ([1], 16, True), ((8, 16), [32], True), ([True], [False], True), ("x", "y", True),
        (None, 3, True), ([], [], True), (-1, -1, True), ("a", 1.0, False), (True, 3, False), (3, "y", False),
        ([], (3, 4), False), (-1, 0.5, False), (float("inf"), 3, False), (0, True, False), ({}, 1, False),
    ],
)  # fmt: skip
def test_values_like_a_default(value: object, usual: object, alike: bool) -> None:
    class Part:
        def __init__(self, setting: object = usual) -> None: ...

    assert (failures.odd(Part, {"setting": value}) is None) == alike


def test_a_mistake_of_ours_is_not_told_as_the_librarys() -> None:
    with pytest.raises(KeyError) as caught:
        {}[4]  # type: ignore[index]
    assert not failures.by_a_library(caught.value)


def test_what_reading_raises_becomes_a_sentence_and_a_lack_of_memory_stays_one() -> None:
    def raising(error: Exception) -> None:
        with failures.told("it", "cannot be read", {}, "Mend it."):
            raise error

    with pytest.raises(UserError, match=r"^it cannot be read: KeyError: 4\. Mend it\.$"):
        raising(KeyError(4))
    with pytest.raises(UserError, match=r"^mine "):
        raising(UserError("mine"))
    with pytest.raises(MemoryError):
        raising(MemoryError())
