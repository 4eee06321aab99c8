"""The digits teacher and data of the newcomer's first run; `make_digits` reproduces both."""

from pathlib import Path

SCHEME = "builtin:"


def path(name: str) -> Path | None:
    """The packaged file or folder that `builtin:NAME` means; None for any other name. It may not exist."""
    return Path(__file__).parent / name.removeprefix(SCHEME) if name.startswith(SCHEME) else None
