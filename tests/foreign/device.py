"""Turns the foreign device on, and counts what runs on it."""

import ctypes
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foreign import build

HARNESS = str(Path(__file__).parent)
WRITES, WAITS = 0, 1  # of device.h


@dataclass(frozen=True)
class Wait:
    """Something that makes the host wait for the device, and the innermost line of no PyTorch that asked for it."""

    what: str
    line: str
    stack: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return f"{self.line}: {self.what}"


@dataclass
class Count:
    """What ran within `counting`."""

    by_operator: Counter[str] = field(default_factory=Counter)
    synchronisations: list[Wait] = field(default_factory=list)

    @property
    def operators(self) -> int:
        """How many operators wrote a tensor of the device: no views, no allocations, no checks of the host."""
        return self.by_operator.total()


_open: list[Count] = []
_paused: list[str] = []  # names of operators that stand for all that runs within them
_kept: list[Any] = []  # the library and the callback: alive as long as the process


def _stack() -> tuple[str, ...]:
    """The lines of the calling thread outside of PyTorch and of this folder, innermost first."""
    lines, frame = [], sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((HARNESS, "<")) and "/torch/" not in name:
            lines.append(f"{name.partition('/site-packages/')[2] or name}:{frame.f_lineno}")
        frame = frame.f_back  # type: ignore[assignment]
    return tuple(lines)


def _waited(what: str) -> None:
    if _open:
        stack = _stack()
        for count in _open:
            count.synchronisations.append(Wait(what, stack[0] if stack else "a thread of the backward", stack))


def _recorded(what: bytes, kind: int) -> None:
    if _paused:
        return
    if kind == WAITS:
        _waited(what.decode())
    else:
        for count in _open:
            count.by_operator[what.decode()] += 1


@contextmanager
def one_operator(name: str) -> Iterator[None]:
    """Count all that runs within it as one operator of this name, which waits for nothing."""
    _recorded(name.encode(), WRITES)
    _paused.append(name)
    try:
        yield
    finally:
        _paused.pop()


def activate() -> None:
    """Make the device. Call it before torch is imported. Raises RuntimeError where its library cannot be built."""
    if _kept:
        return
    if "torch" in sys.modules:
        raise RuntimeError("The foreign device comes before torch: call foreign.activate() first.")
    path = build.library()
    ctypes.CDLL(str(build.torch_folder() / "lib" / "libtorch_global_deps.so"), ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    callback = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int)(_recorded)
    _kept.extend((library, callback))

    from foreign import cuda, kernel

    cuda.patch(library, _waited)
    kernel.patch()


@contextmanager
def counting() -> Iterator[Count]:
    """Count what runs on the device within it, in all threads; may be nested."""
    assert _kept, "foreign.activate() comes first"
    library, callback = _kept
    count = Count()
    _open.append(count)
    library.foreign_record(callback)
    try:
        yield count
    finally:
        _open.remove(count)
        if not _open:
            library.foreign_record(None)
