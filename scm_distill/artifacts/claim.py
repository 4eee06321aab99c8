"""Folders that a command writes to: made before the work, and put back as they were when the work fails."""

import contextlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scm_distill.errors import UserError


@contextmanager
def claimed(folder: Path, *, parts: tuple[str, ...] = ()) -> Iterator[list[bool]]:
    """Make `folder` and the folders `parts` in it, and yield a list: add an entry to keep what is written.

    On an exception, all that is new in `folder` is removed if the list is still empty. Raises UserError when the
    folder cannot be written.
    """
    keep: list[bool] = []
    parents = [path for path in folder.parents if not path.exists()]  # nearest first
    existed = folder.exists()
    before = set(folder.iterdir()) if folder.is_dir() else set()

    def undo() -> None:
        for path in set(folder.iterdir()) - before if folder.is_dir() else ():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        for path in [] if existed else [folder, *parents]:
            with contextlib.suppress(OSError):  # another run may have moved in beside
                path.rmdir()

    try:
        for name in parts or (".",):
            (folder / name).mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        undo()
        raise UserError(f"{folder} cannot be written: {error.strerror}.", "Choose another folder with -o.") from error
    try:
        yield keep
    except BaseException:
        if not keep:
            undo()
        raise
