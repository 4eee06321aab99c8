"""The headers of safetensors files: what a file holds, without reading its weights.

A file is 8 bytes of length, a JSON object {name: {dtype, shape, data_offsets}} of that length, then the data.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scm_distill.artifacts.files import Damaged, read_json

if TYPE_CHECKING:
    import torch

POINTER = b"version https://git-lfs"  # of the text that git leaves where the file itself was not fetched
IS_POINTER, PULL = "is a pointer of Git LFS, not the file itself", "Run `git lfs pull` in its folder."
AGAIN = "Download it again: it is incomplete."


@dataclass(frozen=True)
class Held:
    """One tensor of a file: the name of its dtype, such as BF16, and its shape."""

    dtype: str
    shape: tuple[int, ...]


def header(path: Path) -> dict[str, Held]:
    """The tensors of a safetensors file by name. Raises Damaged where it is not one that is there completely."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            check_whole(path)
            length = int.from_bytes(file.read(8), "little")
            if 8 + length > size:
                raise Damaged(path, f"is cut off or no safetensors file: it has {size:,} bytes", AGAIN)
            content: Mapping[str, Any] = json.loads(file.read(length))
        held = {name: Held(e["dtype"], tuple(e["shape"])) for name, e in content.items() if name != "__metadata__"}
        ends = [e["data_offsets"][1] for name, e in content.items() if name != "__metadata__"]
        whole = 8 + length + max(ends, default=0)
    except OSError as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise Damaged(path, reason, AGAIN) from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise Damaged(path, "is no safetensors file", AGAIN) from error
    if size != whole:
        raise Damaged(path, f"has {size:,} bytes where its header promises {whole:,}", AGAIN)
    return held


def is_pointer(path: Path) -> bool:
    """Whether a file is the text that Git LFS leaves in the place of one that was not fetched."""
    with path.open("rb") as file:
        return file.read(len(POINTER)) == POINTER


def check_whole(path: Path) -> None:
    """Raises Damaged where a file of any kind is empty, or a pointer of Git LFS."""
    if not path.stat().st_size:
        raise Damaged(path, "is empty", AGAIN)
    if is_pointer(path):
        raise Damaged(path, IS_POINTER, PULL)


def shards(index: Path) -> tuple[Path, ...]:
    """The files that the index of a sharded checkpoint names, in its order. Raises Damaged where it is none."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise Damaged(index, "names no files of weights", AGAIN)
    files = tuple(index.parent / name for name in dict.fromkeys(places.values()))
    for file in files:
        if not file.is_file():
            raise Damaged(file, f"is missing, and {index.name} names it", AGAIN)
    return files


def empty_tensors(held: Mapping[str, Held]) -> "dict[str, torch.Tensor]":
    """Tensors of these names and shapes on the meta device; a dtype that torch has no number for becomes uint8."""
    import torch

    known = {
        "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
        "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "BOOL": torch.bool,
        "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    }  # fmt: skip
    return {
        name: torch.empty(tensor.shape, dtype=known.get(tensor.dtype, torch.uint8), device="meta")
        for name, tensor in held.items()
    }
