"""What a run tells its surroundings. The command line draws it; the library never prints."""

from typing import Protocol


class Reporter(Protocol):
    """Receives phases, their progress, and sentences."""

    def begin(self, phase: str, total: int, done: int = 0) -> None:
        """A phase of `total` steps starts, `done` of them already taken."""
        ...

    def advance(self, done: int, figures: dict[str, float] | None = None) -> None:
        """`done` steps of the phase are taken."""
        ...

    def end(self) -> None:
        """The phase is over."""
        ...

    def say(self, text: str) -> None:
        """One line for the person who waits."""
        ...


class Silent:
    """Reports to nobody: for tests and workers."""

    def begin(self, phase: str, total: int, done: int = 0) -> None:
        """Ignore."""

    def advance(self, done: int, figures: dict[str, float] | None = None) -> None:
        """Ignore."""

    def end(self) -> None:
        """Ignore."""

    def say(self, text: str) -> None:
        """Ignore."""
