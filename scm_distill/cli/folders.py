"""Folders that a command writes to: claimed before the work, and taken away again when nothing came of it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scm_distill.errors import UserError


@contextmanager
def claimed(folder: Path, *, parts: tuple[str, ...] = ()) -> Iterator[list[bool]]:
    """Make `folder` and its `parts`. On an error all that was made goes, unless the yielded list was added to.

    Raises UserError when it cannot be written.
    """
    keep: list[bool] = []
    made = next((path for path in reversed([folder, *folder.parents]) if not path.exists()), None)
    try:
        for name in parts or (".",):
            (folder / name).mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        if made:
            shutil.rmtree(made, ignore_errors=True)
        raise UserError(f"{folder} cannot be written: {error.strerror}.", "Choose another folder with -o.") from error
    try:
        yield keep
    except BaseException:
        if made and not keep:
            shutil.rmtree(made, ignore_errors=True)
        raise
