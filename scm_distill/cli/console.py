"""The terminal: results on stdout, progress and hints on stderr; the only module that imports rich."""

import dataclasses
import gc
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from scm_distill.errors import UserError
from scm_distill.training.signals import Interrupted

WIDE = 160  # columns of a table where there is no terminal
EVERY = 30.0  # seconds between lines where there is no terminal

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


def say(text: str) -> None:
    """One line for the person who waits, on stderr."""
    err.print(text, markup=False)


def hint(command: str) -> None:
    """The command to type next, on stderr."""
    err.print(f"next: {command}", style="dim", markup=False)


def result(text: str) -> None:
    """One line of result, on stdout."""
    out.print(text, markup=False)


def result_json(value: object) -> None:
    """A result as JSON, on stdout."""
    sys.stdout.write(json.dumps(_plain(value), indent=1) + "\n")


def _plain(value: Any) -> Any:
    """What json knows: a dataclass becomes an object without the fields that are None, a path its text."""
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {name: _plain(inner) for name, inner in fields.items() if inner is not None}
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def facts(rows: Mapping[str, Any], *, as_json: bool = False) -> None:
    """Named facts on stdout, a line each, or one JSON object."""
    if as_json:
        result_json(rows)
        return
    width = max(map(len, rows))
    for name, value in rows.items():
        text = ", ".join(f"{key} {inner}" for key, inner in value.items()) if isinstance(value, Mapping) else value
        result(f"{name:<{width}}  {text}")


def shape(sizes: Sequence[int]) -> str:
    """A shape as it is said: 1 x 8 x 8."""
    return " x ".join(map(str, sizes))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table of results, on stdout."""
    drawing = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(columns):
        drawing.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        drawing.add_row(*row)
    if not out.is_terminal:
        out.width = WIDE
    out.print(drawing)


@contextmanager
def importing() -> Iterator[None]:
    """Around the import of torch and diffusers: a fifth faster without collections that walk half a million objects."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def user_errors(*, as_json: bool = False) -> Iterator[None]:
    """Show a UserError as two lines, or one JSON object, and exit with its code; a signal exits with its own code."""
    try:
        yield
    except UserError as error:
        if os.environ.get("SCM_DISTILL_DEBUG"):
            err.print_exception()
        if as_json:
            body = {"error": {"type": type(error).__name__, "message": error.problem, "hint": error.fix}}
            sys.stderr.write(json.dumps(body) + "\n")
        else:
            err.print(f"error: {error.problem}", style="bold red", markup=False)
            err.print(f"  fix: {error.fix}", markup=False)
        raise SystemExit(error.code) from None
    except Interrupted as stop:
        raise SystemExit(stop.code) from None
    except KeyboardInterrupt:
        err.print("interrupted", style="bold")
        raise SystemExit(130) from None


class Live:
    """Progress of a run: a bar with ETA on a terminal, one line every 30 s elsewhere; silent with `quiet`.

    As a context, it sends what libraries print to stderr: stdout is for results.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.bar: Progress | None = None
        self.task = TaskID(0)
        self.phase, self.total, self.first, self.began, self.last = "", 0, 0, 0.0, 0.0

    def begin(self, phase: str, total: int, done: int = 0) -> None:
        """Start a bar, or the clock of the lines."""
        self.phase, self.total, self.first = phase, total, done
        self.began = self.last = time.monotonic()
        if err.is_terminal and not self.quiet:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self.bar = Progress(
                *columns, TextColumn("ETA"), TimeRemainingColumn(), TextColumn("{task.fields[figures]}"), console=err
            )
            self.bar.start()
            self.task = self.bar.add_task(phase, total=total, completed=done, figures="")

    def advance(self, done: int, figures: dict[str, float] | None = None) -> None:
        """Move the bar, or print a line if the last one is 30 s old."""
        shown = "  ".join(f"{name} {value:.4g}" for name, value in (figures or {}).items())
        if self.bar is not None:
            self.bar.update(self.task, completed=done, figures=shown)
        elif not self.quiet and time.monotonic() - self.last >= EVERY:
            self.last = time.monotonic()
            left = (self.last - self.began) / max(1, done - self.first) * (self.total - done)
            say(f"{self.phase} {done}/{self.total}, {left:.0f} s left  {shown}")

    def end(self) -> None:
        """Take the bar away, or print how long the phase took."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
        if not self.quiet:
            say(f"{self.phase}: {self.total - self.first} done in {time.monotonic() - self.began:.0f} s")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if not self.quiet:
            say(text)

    def __enter__(self) -> "Live":
        self.printed = redirect_stdout(sys.stderr)
        self.printed.__enter__()
        return self

    def __exit__(self, *failed: Any) -> None:
        self.printed.__exit__(*failed)
        if self.bar is not None:
            self.bar.stop()
