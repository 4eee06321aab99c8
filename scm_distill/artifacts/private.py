"""What may leave this machine: no tokens, no credentials in addresses, and of a local path its last name only.

Paths are `named`, prompts are `tokenless`, and any other text is `hidden`; a recipe has all three.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

from pydantic import JsonValue

PATHS = (("teacher", "repo"), ("teacher", "config"), ("data", "source"), ("data", "prompts"))  # of a recipe
LOADED_FROM = ("_name_or_path", "name_or_path")  # keys under which save_pretrained notes a folder
PROMPT = re.compile(
    r"(negative_)?prompt(_\d+)?|negative|example"
)  # keys of texts that are no paths, whatever they hold
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
TOKEN = re.compile(r"(?<![A-Za-z0-9])(?:hf|api_org)_[A-Za-z0-9]{16,}")
CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")

_KEPT = r"(?P<kept>(?:https?|s3|gs|hf|ftp)://[^\s'\"<>,;()]*|</[\w-]+>)"  # addresses and closing tags
_BEFORE = r"(?<![\w.~/\\-])"  # and/or, 24/7, a/b are no paths
_HOME = r"~(?:[A-Za-z_][\w.-]*)?[/\\]+"
_ROOT = rf"(?:file:[/\\]+|{_HOME}|\.{{1,2}}[/\\]+|[A-Za-z]:[/\\]+|\\{{2,}}|/+)"
_WORD = r"[^\s'\"`,;:{}()\[\]<>|/\\]+"
_FOLDER = rf"{_WORD}(?: +{_WORD})*[/\\]+"  # with spaces in it, or with a few words too many: better so than too few
PATH = re.compile(rf"{_KEPT}|{_BEFORE}{_ROOT}(?:{_FOLDER})*(?P<name>{_WORD})[/\\]*", re.IGNORECASE)
KEY_AND_VALUE = re.compile(r"(?P<key>(?:-{0,2}[\w.-]+=)?)(?P<value>.*)", re.DOTALL)
ROOT = re.compile(_ROOT, re.IGNORECASE)
ABSOLUTE = re.compile(
    rf"{_KEPT}|{_BEFORE}(?:(?:file:[/\\]+|{_HOME}){_WORD}|(?:/+|[A-Z]:[/\\]+|\\{{2,}}){_WORD}[/\\]+{_WORD})",
    re.IGNORECASE,
)


def tokenless(text: str) -> str:
    """`text` without tokens."""
    return TOKEN.sub("(token)", text)


def named(path: str, *names: str | None) -> str:
    """The last name of a path, relative ones too; builtin:NAME and `names`, which are no paths, stay as they are."""
    return tokenless(path if path in names or path.startswith("builtin:") else PureWindowsPath(path).name)


def public(name: object) -> str:
    """A Hub id or a path: of a path the last name. A relative folder of two parts passes for a Hub id."""
    text = str(name)
    return hidden(text) if "://" in text else named(text, text if HUB_ID.fullmatch(text) else None)


def hidden(text: str) -> str:
    """`text` without tokens and credentials, and with the last names of the paths that begin at /, ~, ./, ../ or C:."""
    text = CREDENTIALS.sub("", tokenless(text))
    parts = KEY_AND_VALUE.fullmatch(text)
    assert parts is not None
    key, value = parts["key"], parts["value"]
    if ROOT.match(value) and not any(end in value for end in (": ", " /", "\n", "</")):  # may hold any punctuation
        return key + PureWindowsPath(value).name
    return PATH.sub(lambda found: found["kept"] or found["name"], text)


def without_paths(content: Any, clean: Callable[[str], str] = hidden) -> Any:
    """Nested settings or figures with each text made `clean`, and each prompt `tokenless`."""
    if isinstance(content, Mapping):
        return {
            name: without_paths(value, tokenless if PROMPT.fullmatch(str(name)) else clean)
            for name, value in content.items()
        }
    if isinstance(content, list | tuple):
        return [without_paths(value, clean) for value in content]
    return clean(content) if isinstance(content, str) else content


def recipe(settings: Mapping[str, Mapping[str, object]], hub_id: str | None) -> dict[str, dict[str, object]]:
    """The settings of a whole recipe, {section: {key: value}}, cleaned; a teacher that is `hub_id` keeps its name."""
    cleaned: dict[str, dict[str, object]] = without_paths(settings)
    for section, key in PATHS:
        if (path := settings[section][key]) is not None:
            cleaned[section][key] = named(str(path), "teacher", hub_id)
    return cleaned


def leak(text: str) -> str | None:
    """What in `text` reads as an absolute path of some machine; None where nothing does."""
    return next((found[0] for found in ABSOLUTE.finditer(text) if not found["kept"]), None)


def forget_paths(folder: Path) -> None:
    """Take out of a pipeline folder's JSON files where on this machine its parts were loaded from: the LOADED_FROM."""
    for file in sorted(folder.rglob("*.json")):
        text = file.read_text(encoding="utf-8")
        if any(f'"{name}"' in text for name in LOADED_FROM):
            kept = json.dumps(_forgotten(json.loads(text)), indent=2, ensure_ascii=False)
            file.write_text(kept + "\n", encoding="utf-8")


def _forgotten(value: JsonValue) -> JsonValue:
    """`value` without the keys LOADED_FROM, at any depth."""
    if isinstance(value, dict):
        return {name: _forgotten(inner) for name, inner in value.items() if name not in LOADED_FROM}
    return [_forgotten(inner) for inner in value] if isinstance(value, list) else value
