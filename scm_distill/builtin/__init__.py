"""What ships with the package for a first run, 8x8 digits and a teacher of them; `make_digits` makes both again."""

from pathlib import Path

SCHEME = "builtin:"


def path(name: str) -> Path | None:
    """The packaged file or folder of the name `builtin:NAME`, which may be missing; None for any other name."""
    return Path(__file__).parent / name.removeprefix(SCHEME) if name.startswith(SCHEME) else None
