"""Reads recipes: YAML in, frozen models out; unknown keys are errors with a guess."""

import copy
import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from scm_distill.config.schema import Recipe
from scm_distill.errors import UserError, one_line

_PACKAGED = Path(__file__).parents[1] / "recipes"  # in a wheel; in a checkout the folder lies beside the package
RECIPES = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2] / "recipes"


def names() -> list[str]:
    """The packaged recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def path_of(recipe: str) -> Path:
    """The file of a packaged recipe's name or of a path. Raises UserError when there is none."""
    if recipe in names():
        return RECIPES / f"{recipe}.yaml"
    path = Path(recipe).expanduser()
    if path.is_file():
        return path
    near = _nearest(recipe, names())
    guess = f" Did you mean {near!r}?" if near else ""
    raise UserError(
        f"There is no recipe {recipe!r}.{guess}",
        f"Give the path of a .yaml file, or one of the packaged recipes: {', '.join(names())}.",
    )


def read(recipe: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or path; `overrides` are KEY=VALUE with dotted keys, and beat the file, left to right."""
    path = path_of(recipe)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path} is no readable YAML: {one_line(error, 400)}.", "Mend the file.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no sections.", f"A recipe has the sections {', '.join(Recipe.model_fields)}.")
    return parse(content, overrides)


def parse(content: Mapping[str, object], overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of nested settings {section: {key: value}}, changed by `overrides` as in `read`. Raises UserError."""
    changed = copy.deepcopy(dict(content))
    for override in overrides:
        _set(changed, override)
    try:
        return Recipe.model_validate(changed)
    except ValidationError as error:
        problems = [_explain(detail) for detail in error.errors()]
        text = "; ".join(problems)
        end = "" if text.endswith("?") else "."
        raise UserError(text + end, "See `scm-distill recipes schema` for every setting.") from error


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, every setting written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def differences(old: Recipe, new: Recipe) -> list[str]:
    """The settings in which two recipes differ, each as "key old -> new"."""
    a, b = dict(_flat(old.model_dump(mode="json"))), dict(_flat(new.model_dump(mode="json")))
    return [f"{key} {a[key]} -> {b[key]}" for key in a if a[key] != b[key]]


def _flat(content: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, object]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _set(content: dict[str, object], override: str) -> None:
    """Set what `override`, KEY=VALUE with a dotted key, names; the value is read as YAML. Raises UserError."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UserError(f"-s {override!r} is no KEY=VALUE.", "Write for example -s optimizer.lr=3e-4.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(
            f"The value of -s {override!r} is no YAML.", "Quote it, for example -s 'data.source=\"a: b\"'."
        ) from error
    for part in parts[:-1]:
        child = content.setdefault(part, {})
        if not isinstance(child, dict):
            raise UserError(
                f"{key}: {part} is a setting, not a section.{_guess(key)}", "See `scm-distill recipes schema`."
            )
        content = child
    content[parts[-1]] = value


def _explain(detail: ErrorDetails) -> str:
    """A problem that pydantic found, as "key: what is wrong"."""
    key = ".".join(
        str(part) for part in detail["loc"] if not str(part).startswith(("literal", "function", "constrained"))
    )
    if detail["type"] == "extra_forbidden":
        return f"{key}: unknown setting{_guess(key)}"
    if detail["type"] == "missing":
        return f"{key}: required"
    message = detail["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    return f"{key}: {message}, not {detail['input']!r}" if key else message


def _guess(key: str) -> str:
    """A question after the setting that was meant by an unknown key, or nothing."""
    known = list(_keys(Recipe))
    near = _nearest(key, known) or _nearest(key.rpartition(".")[2], [name.rpartition(".")[2] for name in known])
    full = next((name for name in known if name == near or name.rpartition(".")[2] == near), None)
    return f"; did you mean {full!r}?" if full else ""


def _keys(model: type[BaseModel], prefix: str = "") -> Iterable[str]:
    """The dotted names of all sections and settings."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{prefix}{name}.")


def _nearest(word: str, words: Sequence[str]) -> str | None:
    found = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return found[0] if found else None
