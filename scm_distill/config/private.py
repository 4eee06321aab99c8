"""What may leave this machine: no tokens, no credentials in addresses, and of a local path its last name only."""

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

TOKEN = re.compile(r"\b(hf|api_org)_[A-Za-z0-9]{8,}")
CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
NAME = r"[^\s'\",;:{}()\[\]/\\]+"
PATH = re.compile(rf"(?<![\w.:/~<\\-])(?:file://|~|[A-Za-z]:)?[/\\]+(?:{NAME}[/\\]+)*({NAME})")


def hidden(text: str) -> str:
    """`text` without tokens, and with the last names of the absolute paths in it."""
    text = CREDENTIALS.sub("", TOKEN.sub("(token)", text))
    key, equals, value = text.rpartition("=")
    for kind in (PurePosixPath, PureWindowsPath):  # a path as a whole may hold spaces
        if kind(value).is_absolute() or value.startswith("~/"):
            return f"{key}{equals}{kind(value).name}"
    return PATH.sub(r"\1", text)


def without_paths(content: Any) -> Any:
    """Nested settings or figures whose texts are `hidden`."""
    if isinstance(content, dict):
        return {name: without_paths(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_paths(value) for value in content]
    return hidden(content) if isinstance(content, str) else content
