"""The licence fields in the front matter of a model card."""

from typing import Any

FIELDS = ("license", "license_name", "license_link")


def licence_fields(metadata: Any) -> dict[str, str]:
    """The licence fields of a card's front matter, as text; several licences are separated by commas.

    Fields that are no text are left out; none where the front matter is no mapping.
    """
    if not isinstance(metadata, dict):
        return {}
    found = {key: _text(metadata.get(key)) for key in FIELDS}
    return {key: text for key, text in found.items() if text}


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(_text, value)))
    return str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
