"""The settings page: every setting of a recipe with its type, default, meaning and source, as text."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.fields import FieldInfo

from scm_distill.config.schema import Recipe, Section

INTRODUCTION = """\
A recipe is YAML with these sections; -s SECTION.KEY=VALUE beats the file. Steps are optimizer steps, batch sizes are
summed over processes, times are radians (0 is data, pi/2 noise), images are in [-1, 1].

Sources of defaults: "paper" is Lu & Song 2024, arXiv 2410.11081; "trials on the digits" were made with the recipe
digits; "neutral" changes nothing unless you ask; a "choice" of this project was not tuned."""

_BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
_NAMES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true | false", "null": "null"}


def settings_page() -> str:
    """The page: a paragraph a section, and for each setting `key  type  = default`, what it does, and its source."""
    lines = [INTRODUCTION]
    for name, field in Recipe.model_fields.items():
        section = field.annotation
        assert isinstance(section, type)
        assert issubclass(section, Section)
        lines += ["", f"{name}: {(section.__doc__ or '').splitlines()[0]}"]
        lines += _settings(section)
    return "\n".join(lines)


def _settings(section: type[Section]) -> Iterator[str]:
    properties = section.model_json_schema()["properties"]
    for key, field in section.model_fields.items():
        default = "required" if field.is_required() else f"= {_yaml(field.default)}"
        yield f"  {key}  {_type(properties[key])}  {default}"
        yield f"      {field.description}"
        if not field.is_required():
            yield f"      source: {source_of(field)}"


def source_of(field: FieldInfo) -> str:
    """Where a setting's default comes from."""
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    return str(extra["source"])


def _yaml(value: Any) -> str:
    """A default as it is written in a recipe."""
    return value if isinstance(value, str) and value else json.dumps(value)


def _type(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words: alternatives are separated by |."""
    if "anyOf" in schema:
        return " | ".join(_type(part) for part in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " | ".join(map(str, schema.get("enum", [schema.get("const")])))
    match schema["type"]:
        case "array" if "prefixItems" in schema:
            return f"[{', '.join(_type(part) for part in schema['prefixItems'])}]"
        case "array":
            return f"list of {_type(schema['items'])}"
        case "object":
            return "{name: value}"
        case name:
            bounds = [f"{sign} {schema[bound]:g}" for bound, sign in _BOUNDS.items() if bound in schema]
            return " ".join([_NAMES[name], " and ".join(bounds)]).strip()
