"""Running out of memory in a command is told in two lines, as every other refusal is."""

from collections.abc import Iterator
from contextlib import contextmanager

from scm_distill.errors import UserError, one_line
from scm_distill.memory import fragmentation, out_of_memory


@contextmanager
def told(problem: str, fix: str) -> Iterator[None]:
    """Raise a UserError, `problem` with the reason and `fix`, where memory runs out within it; also a decorator."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or not out_of_memory(error):
            raise
        raise UserError(f"{problem}: {one_line(error)}", fix + fragmentation(), code=1) from error
