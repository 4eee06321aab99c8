"""Kinds of damage to a file, for sweeps over the files that a command reads."""

from collections.abc import Callable
from pathlib import Path

KINDS: dict[str, Callable[[bytes], bytes | None]] = {  # from the file as it was; None: a folder in its place
    "cut": lambda whole: whole[: len(whole) // 2],
    "brace": lambda _: b"{",
    "list": lambda _: b"[1]",
    "empty": lambda _: b"",
    "null": lambda _: b"null",
    "nothing in it": lambda _: b"{}",
    "empty parts": lambda _: b'{"version": 1, "call": {}, "lora": null, "facts": {}, "rows": [], "sessions": [{}]}\n',
    "nulls": lambda _: b'{"version": 1, "step": null, "call": null, "facts": null, "file": null, "unet": [null]}\n',
    "wrong types": lambda _: (
        b'{"version": 1, "step": "a", "loss": [], "call": 3, "facts": [], "rows": {}, "sessions": 4, "chosen": "x"}\n'
    ),
    "another version": lambda _: b'{"version": 99, "teacher": 3}',
    "deep": lambda _: b"[" * 100_000,
    "UTF-16": lambda whole: "\n".join(["{", *map(str, whole[:40]), "}"]).encode("utf-16"),
    "binary": lambda _: bytes(range(256)) * 4,
    "zeros": lambda _: bytes(4096),
    "broken PNG": lambda _: b"\x89PNG\r\n\x1a\n" + bytes(40),
    "broken GIF": lambda _: b"GIF89a\x01",
    "folder": lambda _: None,
}
FIRST = ("brace", "list", "empty parts", "UTF-16", "folder")  # of KINDS, in every run of the tests
OBJECTS = ("nothing in it", "empty parts", "nulls", "wrong types", "another version")  # are JSON objects


def damage(path: Path, kind: str) -> None:
    """Put damage of this kind where the file `path` is."""
    content = KINDS[kind](path.read_bytes())
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
