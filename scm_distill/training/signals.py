"""SIGINT and SIGTERM as requests to save and stop."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class Interrupted(Exception):
    """A signal ended the run; `saved` is the checkpoint to resume from."""

    def __init__(self, number: int, saved: Path) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.saved = number, saved


@contextmanager
def as_exit() -> Iterator[None]:
    """Let SIGTERM unwind like Ctrl-C does, with exit code 143, so that nothing half made stays behind."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def held_back() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second one is not held back."""
    received: list[int] = []

    def handler(number: int, _: FrameType | None) -> None:
        received.append(number)
        for which, old in previous.items():
            signal.signal(which, old)

    previous = {which: signal.signal(which, handler) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for which, old in previous.items():
            signal.signal(which, old)
