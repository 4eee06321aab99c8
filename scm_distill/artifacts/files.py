"""Files and folders that are on disk completely or not at all, and JSON that may be damaged."""

import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from scm_distill.errors import UserError, one_line

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

WRITING, OLD = ".writing-", ".old-"  # before the name of what is not complete yet, and of what is being replaced


class Damaged(UserError):
    """A file that cannot be used as it is; `reason` is the part of a sentence that follows its path."""

    FIX = "Remove it, and make it again."

    def __init__(self, path: Path, reason: str, fix: str = FIX) -> None:
        super().__init__(f"{path} {reason}.", fix)
        self.reason = reason


@contextmanager
def atomically(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Yield a path beside `path`, with its ending; the file or folder made there replaces `path` when the block ends.

    On any exception it is removed, and `path` stays as it was. A folder that is replaced is moved aside first: when
    the process is killed in between, `recover` puts it back. `shared`: other processes may write `path` meanwhile.
    """
    beside = path.with_name(WRITING + (f"{secrets.token_hex(4)}-" if shared else "") + path.name)
    remove(beside)  # left by a process that was killed
    try:
        yield beside
        if beside.is_dir():
            old = path.with_name(OLD + path.name)
            remove(old)
            if path.exists():
                path.rename(old)
            beside.rename(path)
            remove(old)
        else:
            beside.replace(path)
    finally:
        remove(beside)


@contextmanager
def scratch(folder: Path) -> Iterator[None]:
    """A context in which `folder` is there, empty at first; afterwards, and on any exception, it is gone."""
    remove(folder)  # left by a process that was killed
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        remove(folder)


def recover(path: Path) -> None:
    """Put back the folder `path` that a killed process had moved aside in `atomically`."""
    old = path.with_name(OLD + path.name)
    if old.exists() and not path.exists():
        old.rename(path)


def remove(path: Path) -> None:
    """Remove a file or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file, as UTF-8."""
    with atomically(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    """Write `content` as JSON, indented, as UTF-8."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_text(path: Path) -> str:
    """The text of a file. Raises Damaged where it is missing, is a folder, may not be read, or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Damaged(path, "is no UTF-8 text") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def read_json(path: Path) -> dict[str, object]:
    """The JSON object in a file. Raises Damaged as `read_text` does, and where the file holds no JSON object."""
    return json_object(read_text(path), path)


def json_object(text: str, path: Path) -> dict[str, object]:
    """The JSON object that `text` of the file `path` is. Raises Damaged where it is none."""
    if not text.strip("\0 \t\r\n"):
        raise Damaged(path, "is empty")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged(path, f"is no JSON: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise Damaged(path, f"holds a {type(content).__name__} where a JSON object belongs")
    return content


def save_tensors(tensors: Mapping[str, "Tensor"], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, complete or not at all: the same bytes for the same content, with the usual mode.

    safetensors writes its metadata in random order, and a file that only its owner can read.
    """
    from safetensors.torch import save_file

    with atomically(path, shared=True) as beside:
        beside.touch()
        mode = beside.stat().st_mode
        found = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
        save_file(found, beside, dict(metadata) if metadata else None)
        if metadata:
            _sort_metadata(beside)
        beside.chmod(mode)


def read_tensors(path: Path) -> dict[str, "Tensor"]:
    """All tensors of a safetensors file, on the CPU. Raises Damaged where it is missing or none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    except (SafetensorError, ValueError, KeyError) as error:
        raise Damaged(path, f"is no safetensors file: {one_line(error)}") from error


def is_tensors(path: Path) -> bool:
    """Whether `path` is a safetensors file that is there completely; only its header is read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt"):
            return True
    except (OSError, SafetensorError):
        return False


def _sort_metadata(path: Path) -> None:
    """Rewrite the header of a safetensors file: 8 bytes of length, then JSON, in place since its length is the same."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= length, "safetensors writes its header in another way"
        file.seek(8)
        file.write(text.ljust(length))


def follow_umask(folder: Path) -> None:
    """Give all files below `folder` the mode that new files have here: some libraries write for their owner only."""
    probe = folder / WRITING
    probe.touch()
    mode = probe.stat().st_mode
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)


def sha256_of(*files: Path) -> str:
    """The SHA-256 of one file, as sha256sum prints it; of several files, that of their names and sums."""
    sums = []
    for file in sorted(files):
        with file.open("rb") as stream:
            sums.append((file.name, hashlib.file_digest(stream, "sha256").hexdigest()))
    return sums[0][1] if len(sums) == 1 else hashlib.sha256(repr(sums).encode()).hexdigest()


def read_picture(path: Path) -> "Image":
    """The picture in a file, or the first frame of a clip, as RGB. Raises Damaged where it is missing or none."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise _unreadable(path, error) from error
    except Exception as error:  # each of Pillow's decoders has errors of its own for what it cannot read
        raise Damaged(path, "is no readable picture") from error


def lines_of(path: Path) -> list[str]:
    """The lines of a text file that is appended to; none where it is missing. Bytes that are no UTF-8 become U+FFFD.

    Raises Damaged where it is a folder or may not be read.
    """
    try:
        lines = path.read_bytes().decode("utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(path, error) from error
    return [line for line in lines if line.strip()]


def _unreadable(path: Path, error: OSError) -> Damaged:
    if isinstance(error, FileNotFoundError):
        return Damaged(path, "is missing")
    if isinstance(error, IsADirectoryError):
        return Damaged(path, "is a folder, not a file", "Move it away.")
    return Damaged(path, f"cannot be read: {error.strerror}", "Give yourself the right to read it.")
