"""Signals that ask to stop: which are held back, which count, and that the handlers of before are back afterwards."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from scm_distill.training import signals

WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Passed(Exception):
    """Raised by the handler that was there before."""


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def before() -> Iterator[None]:
    def handler(number: int, _: object) -> None:
        raise Passed(number)

    previous = {number: signal.signal(number, handler) for number in WATCHED}
    yield
    assert all(signal.getsignal(number) is handler for number in WATCHED)
    for number, old in previous.items():
        signal.signal(number, old)


def test_the_first_is_held_back_and_the_second_is_not() -> None:
    with signals.held_back() as received:
        send(signal.SIGTERM)
        with pytest.raises(Passed):
            send(signal.SIGINT)
    assert received == [signal.SIGTERM]


def test_all_are_collected_and_a_closed_terminal_asks_like_sigterm() -> None:
    with signals.held_back(most=None, hangup=True) as received:
        send(signal.SIGINT, signal.SIGHUP, signal.SIGINT)
    assert received == [signal.SIGINT, signal.SIGTERM, signal.SIGINT]


def test_under_nohup_a_closed_terminal_is_nothing() -> None:
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with signals.held_back(most=None, hangup=True) as received:
        send(signal.SIGHUP)
    assert received == []
    assert signal.signal(signal.SIGHUP, handler) == signal.SIG_IGN


def test_a_signal_repeated_at_once_is_the_same_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 10.0, 10.5, 12.0, 12.0])
    monkeypatch.setattr(signals.time, "monotonic", lambda: next(clock))
    with signals.held_back(most=None, again=1.0) as received:
        send(signal.SIGTERM, signal.SIGINT, signal.SIGINT)
    assert received == [signal.SIGTERM, signal.SIGINT]


def test_sigterm_is_raised_where_the_program_is() -> None:
    with signals.raised():
        with pytest.raises(signals.Interrupted) as caught:
            send(signal.SIGTERM)
        with pytest.raises(Passed):
            send(signal.SIGINT)
    assert (caught.value.number, caught.value.code, caught.value.saved) == (signal.SIGTERM, 143, None)
    assert isinstance(caught.value, KeyboardInterrupt)


def test_a_thread_leaves_the_handlers_alone() -> None:
    def work() -> None:
        with signals.held_back() as received, signals.raised():
            results.append(received)

    results: list[list[int]] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [[]]
