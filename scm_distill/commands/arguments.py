"""Arguments of the public functions, as callers like to give them, turned into what the rooms below take."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scm_distill import config
from scm_distill.errors import UserError

AnyPath = str | Path
AnyRecipe = str | Path | Mapping[str, Any] | config.Recipe
Overrides = Sequence[str] | Mapping[str, object]


def read_recipe(recipe: AnyRecipe, overrides: Overrides = ()) -> config.Recipe:
    """The recipe of a packaged name, a .yaml file, nested settings or a Recipe, changed by `overrides`.

    `overrides` are KEY=VALUE strings, as after `-s`, or a mapping, with dotted keys such as "train.steps" in both.
    They are applied in their order. Raises UserError for a recipe that is not there, and for a wrong setting.
    """
    if isinstance(overrides, Mapping):
        overrides = [f"{key}={json.dumps(value, default=str, ensure_ascii=False)}" for key, value in overrides.items()]
    elif isinstance(overrides, str):
        overrides = [overrides]
    if isinstance(recipe, config.Recipe):
        return config.parse(recipe.model_dump(mode="json"), overrides) if overrides else recipe
    if isinstance(recipe, Mapping):
        return config.parse(dict(recipe), overrides)
    return config.read(str(recipe), overrides)


def run_folder(recipe: AnyRecipe, out: AnyPath | None) -> Path:
    """`out`, or runs/NAME of a recipe that has a name. Raises UserError where there is neither."""
    if out is not None:
        return Path(out)
    if isinstance(recipe, Mapping | config.Recipe):
        raise UserError("A recipe that is no file has no name for its run folder.", "Give the folder: out='runs/mine'.")
    return Path("runs") / (recipe if recipe in config.names() else Path(recipe).stem)


def refuse_below(least: int, **numbers: int | None) -> None:
    """Raise UserError for a number that is smaller than `least`; None is none."""
    for name, value in numbers.items():
        if value is not None and value < least:
            raise UserError(f"{name} is {value}.", f"Give {least} or more.")


def class_text(classes: str | Sequence[int] | None) -> str | None:
    """Classes as they are typed, such as 0-9 or 1,3,7."""
    return classes if classes is None or isinstance(classes, str) else ",".join(map(str, classes))
