"""Sizes in teacher.call that a stock call does not make: those that it refuses, rounds or passes over.

diffusers raises for some sizes, rounds others with a logged warning, and passes over a height without a width in a few
pipelines. One start of the stock call, stopped at its denoiser, shows all three before the pipeline is read.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

from scm_distill.errors import UserError, one_line
from scm_distill.memory import out_of_memory
from scm_distill.teachers import trace
from scm_distill.teachers.guidance import ids_of
from scm_distill.teachers.stock_call import StockCall

SIZES = ("height", "width", "num_frames", "video_length")
REFUSED = re.compile(r"divisible|multiple of", re.IGNORECASE)


class _Said(logging.Handler):
    """Keeps the messages of diffusers' loggers, in a context in which nobody else hears them."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    def __enter__(self) -> "_Said":
        logger = logging.getLogger("diffusers")
        self.before = logger.handlers, logger.level, logger.propagate
        logger.handlers, logger.propagate = [self], False
        logger.setLevel(logging.WARNING)
        return self

    def __exit__(self, *_: object) -> None:
        logger = logging.getLogger("diffusers")
        logger.handlers, level, logger.propagate = self.before
        logger.setLevel(level)


def check(stock: StockCall) -> None:
    """Raises UserError where teacher.call names a size that the call of `stock` does not make.

    Nothing is run where it names none. What else the call raises is left to the reading.
    """
    asked = {name: stock.extra[name] for name in SIZES if name in stock.extra}
    if not asked:
        return
    lone = [name for name in ("height", "width") if name in asked]
    try:
        with _Said() as said:
            shape = _first_shape(stock, {})
            ignored = len(lone) == 1 and _first_shape(stock, {lone[0]: 2 * asked[lone[0]]}) == shape
    except Exception as error:  # whatever a pipeline raises that does not like its call
        if out_of_memory(error):
            raise
        if REFUSED.search(str(error)):
            raise _wrong(stock, asked, one_line(error)) from error
        return
    if rounded := next((message for message in said.messages if REFUSED.search(message)), None):
        raise _wrong(stock, asked, one_line(rounded))
    if ignored:
        raise _wrong(stock, asked, f"it takes height and width together, and {lone[0]} alone changes nothing")


def _first_shape(stock: StockCall, changes: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape of the first sample that the denoiser is given, with these `changes` of the call; no network runs."""
    shapes: list[tuple[int, ...]] = []

    def stop(arguments: Mapping[str, Any]) -> Any:
        first = next(iter(arguments.values()))
        shapes.append(tuple((first[0] if isinstance(first, list) else first).shape))
        raise trace.Stopped

    arguments = {**stock.arguments(ids_of(stock), 2), **changes}
    trace.watch(stock.pipeline, stock.denoisers, arguments, fake=stop)
    return shapes[0]


def _wrong(stock: StockCall, asked: Mapping[str, Any], why: str) -> UserError:
    sizes = ", ".join(f"{name}: {value}" for name, value in asked.items())
    return UserError(
        f"{type(stock.pipeline).__name__} does not make the size of teacher.call ({sizes}): {why.rstrip('.')}.",
        f"Set {' and '.join(f'teacher.call.{name}' for name in asked)} to what it makes.",
    )
