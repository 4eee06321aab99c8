"""What the public functions take: recipes and overrides in every form, folders, numbers."""

from pathlib import Path

import pytest

from scm_distill import config
from scm_distill.commands.arguments import class_text, read_recipe, refuse_below, run_folder
from scm_distill.errors import UserError

SECTIONS = {"teacher": {"repo": "x"}, "data": {"source": "y"}, "train": {"steps": 3, "batch_size": 4}}
CHANGES = {"optimizer.lr": 3e-7, "train.offload": ("ema",), "guidance.negative_prompt": "ein Bär 🐻", "lora.rank": None}


def test_a_recipe_is_the_same_in_every_form(tmp_path: Path) -> None:
    whole = config.parse(SECTIONS)
    (tmp_path / "mine.yaml").write_text(config.dump(whole))
    forms = [SECTIONS, whole, tmp_path / "mine.yaml", str(tmp_path / "mine.yaml")]
    assert all(read_recipe(form) == whole for form in forms)
    changed = [read_recipe(form, CHANGES) for form in forms]
    assert all(recipe == changed[0] for recipe in changed)
    recipe = changed[0]
    assert (recipe.optimizer.lr, recipe.train.offload, recipe.lora.rank) == (3e-7, ("ema",), None)
    assert recipe.guidance.negative_prompt == "ein Bär 🐻"
    assert SECTIONS == {"teacher": {"repo": "x"}, "data": {"source": "y"}, "train": {"steps": 3, "batch_size": 4}}
    assert read_recipe("digits").teacher.repo == "builtin:digits/teacher"


def test_overrides_may_be_text_and_the_last_one_wins() -> None:
    assert read_recipe(SECTIONS, "train.steps=7").train.steps == 7
    assert read_recipe(SECTIONS, ["train.steps=7", "train.steps=9"]).train.steps == 9
    with pytest.raises(UserError, match=r"did you mean 'train\.steps'"):
        read_recipe(config.parse(SECTIONS), {"train.stesp": 7})


def test_the_run_folder_has_the_recipes_name() -> None:
    assert run_folder("digits", None) == Path("runs/digits")
    assert run_folder("some/where/mine.yaml", None) == Path("runs/mine")
    assert run_folder(SECTIONS, "here") == Path("here")
    with pytest.raises(UserError, match="has no name"):
        run_folder(SECTIONS, None)


def test_numbers_and_classes() -> None:
    refuse_below(1, n=1, batch=None)
    with pytest.raises(UserError, match="batch is 0"):
        refuse_below(1, n=1, batch=0)
    assert (class_text(None), class_text("0-9"), class_text([1, 3])) == (None, "0-9", "1,3")
