"""Errors of the libraries that load and run a pipeline, as errors that say what is wrong with the teacher."""

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import Any

from scm_distill.artifacts import files
from scm_distill.errors import UserError, one_line
from scm_distill.memory import out_of_memory

SETTINGS = "Mend that setting in the part's configuration file, or in teacher.call: the reason names what does not fit."
LIBRARIES = ("diffusers", "transformers")  # whose code runs a pipeline


def not_loaded(folder: str, repo: str, error: Exception) -> UserError:
    """The UserError for `error`, which the libraries raised while `repo`, found at `folder`, was loaded."""
    if isinstance(error, UserError):
        return error
    local = Path(folder).is_dir()
    if local:
        fix = "Its files are damaged or incomplete, or a package they need is not installed: see the reason."
    else:
        fix = "Check the name, the network and `hf auth whoami`; HF_HUB_OFFLINE=1 reads the local cache only."
    where = "" if local else "there is no such folder, and from the Hub: "
    part, kind = _part_being_loaded(error)
    named = f"its {part}: " if part else ""
    path = Path(folder) / str(part) / str(getattr(kind, "config_name", None))
    if part and kind is not None and path.is_file() and (key := odd(kind, config := files.read_json(path))):
        named = f"{key} is {one_line(repr(config[key]), 40)} in {part}/{path.name}: "
        fix = f"Write a {key} as {kind.__name__} takes it, or download that file again."
    return UserError(f"{repo} could not be loaded: {where}{named}{reason_of(error)}", fix)


@contextmanager
def told(repo: str, what: str, components: Mapping[str, Any], fix: str) -> Iterator[None]:
    """A context in which an exception becomes a UserError: `repo` `what`, the part of `components`, and the reason.

    A UserError, and a lack of memory, go through as they are.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # whatever the code of a pipeline, or ours on what it shows, raises
        if out_of_memory(error):
            raise
        raise UserError(f"{repo} {what}: {cause(error, components)}.", fix) from error


def cause(error: Exception, components: Mapping[str, Any]) -> str:
    """Why a pipeline of these `components` raised `error`, as a clause: the reason, and the odd setting or the part."""
    part = part_of(error, components)
    setting = suspect(components, part) or (None if part is None else suspect(components))
    where = setting or (f"in its {part}" if part else "")
    return reason_of(error) + (f" ({where})" if where else "")


def suspect(components: Mapping[str, Any], part: str | None = None) -> str | None:
    """The setting of a `part` (or of any, where it is None) that is least like what its class has by default, in words.

    None where all are of the kind of the default: texts, truth values, numbers above zero or lists of them.
    """
    for name, component in components.items():
        config = getattr(component, "config", None)
        if name == (part or name) and isinstance(config, Mapping) and (key := odd(type(component), config)):
            return f"{key} of its {name} is {one_line(repr(config[key]), 40)}"
    return None


def odd(kind: type, config: Mapping[str, Any]) -> str | None:
    """The first key of `config` whose value is of another kind than the default of the class `kind`; None without."""
    for key, parameter in inspect.signature(kind).parameters.items():
        usual, value = parameter.default, config.get(key)
        if key in config and usual is not None and usual is not parameter.empty and not _alike(value, usual):
            return key
    return None


def _alike(value: Any, usual: Any) -> bool:
    """Whether `value` is of the kind of the default `usual`; a number may stand for a list of numbers, and back."""
    if value is None or value == usual:
        return True
    entries, like = (list(v) if isinstance(v, list | tuple) else [v] for v in (value, usual))
    if not like or not _is_number(like[0]):
        return bool(entries) and all(isinstance(entry, tuple({type(v) for v in like} or {object})) for entry in entries)
    return bool(entries) and all(_is_number(v) and (v > 0 or min(0, *like) <= v) for v in entries if v is not None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def reason_of(error: Exception) -> str:
    """An error of a library as part of a sentence: its kind where its text alone says little, and its text."""
    text = one_line(error, 240).rstrip(".")
    return text if isinstance(error, OSError) and text else f"{type(error).__name__}: {text}".removesuffix(": ")


def part_of(error: Exception, components: Mapping[str, Any]) -> str | None:
    """The innermost of a pipeline's `components` that `error` came through, by name; None where there is none."""
    found = None
    for frame, _ in walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        found = next((name for name, part in components.items() if owner is not None and part is owner), found)
    return found


def by_a_library(error: Exception) -> bool:
    """Whether `error` came through the code of the libraries that run a pipeline, not through ours alone."""
    names = (frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__))
    return any(name.split(".")[0] in LIBRARIES for name in names)


def _part_being_loaded(error: Exception) -> tuple[str | None, type | None]:
    """The part that diffusers was loading when `error` was raised, and its class."""
    for frame, _ in walk_tb(error.__traceback__):
        if frame.f_code.co_name == "load_sub_model":
            name, kind = frame.f_locals.get("name"), frame.f_locals.get("class_obj")
            return (name if isinstance(name, str) else None), (kind if isinstance(kind, type) else None)
    return None, None
