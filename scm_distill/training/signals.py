"""Signals that ask a process to stop: collected while work goes on, or raised as an exception. Knows no torch.

Python runs signal handlers in the main thread only; in any other thread nothing here changes how signals are handled.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

Handler = Callable[[int, FrameType | None], None]


class Interrupted(KeyboardInterrupt):
    """A signal ended the work before it was done.

    `number` is the signal, `code` the exit code that a shell expects after it (128 + number), and `saved` the
    checkpoint to resume from, or None where nothing was worth saving.
    """

    def __init__(self, number: int, saved: Path | None = None) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.code, self.saved = number, 128 + number, saved


@contextmanager
def raised() -> Iterator[None]:
    """Let SIGTERM raise Interrupted where the program is, so that it unwinds as after Ctrl-C and cleans up."""

    def handler(number: int, _: FrameType | None) -> None:
        raise Interrupted(number)

    with _handled([signal.SIGTERM], handler):
        yield


@contextmanager
def held_back(*, most: int | None = 1, again: float = 0.0, hangup: bool = False) -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in the yielded list, in the order of their arrival, instead of dying of them.

    After `most` of them the earlier handlers are back, so that the next one is not held back; with None all are
    collected. A signal less than `again` seconds after the last one that counted is taken for the same one (`timeout`
    sends two). With `hangup`, SIGHUP is collected as a SIGTERM, unless it is ignored, as under nohup.
    """
    received: list[int] = []
    counted = -math.inf

    def handler(number: int, _: FrameType | None) -> None:
        nonlocal counted
        if time.monotonic() - counted < again:
            return
        counted = time.monotonic()
        received.append(signal.SIGTERM if number == signal.SIGHUP else number)
        if most is not None and len(received) >= most:
            restore()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hangup and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    with _handled(numbers, handler) as restore:
        yield received


@contextmanager
def _handled(numbers: Iterable[int], handler: Handler) -> Iterator[Callable[[], None]]:
    """Handle these signals by `handler`; yields the function that puts the earlier handlers back, as the end does."""
    previous = {number: signal.getsignal(number) for number in numbers}
    here = threading.current_thread() is threading.main_thread()

    def install(handlers: Iterable[tuple[int, Handler | int | signal.Handlers | None]]) -> None:
        for number, new in handlers if here else ():
            if new is not None:  # one that was not installed from Python cannot be put back
                signal.signal(number, new)

    install((number, handler) for number in previous)
    try:
        yield lambda: install(previous.items())
    finally:
        install(previous.items())
