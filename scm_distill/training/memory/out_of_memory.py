"""Running out of memory, explained: what to change, and how much each change is expected to save."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from scm_distill import config
from scm_distill.autodiff.derivatives import Memory
from scm_distill.errors import UserError, one_line
from scm_distill.memory import fragmentation, out_of_memory
from scm_distill.training.memory.plan import Planner, gib

SHOWN = 6  # changes at most


@contextmanager
def explained(
    planner: Planner, recipe: config.Recipe, memory: Memory, saved: Callable[[], Path | None]
) -> Iterator[None]:
    """Raises a UserError where memory runs out within it, with the settings of `planner.advice` that save most.

    `memory` is the layout of the run; `saved` returns its newest checkpoint, if there is any.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or not out_of_memory(error):
            raise
        changes: list[tuple[str, int]] = []
        with suppress(Exception):  # the error that is explained matters more than one of the explanation
            changes = planner.advice(recipe, memory)[:SHOWN]
        advice = [f"{change} (saves about {gib(n)})" for change, n in changes if change != f"train.memory={memory}"]
        fix = f"One of these, most effective first: {'; '.join(advice)}." if advice else "Use a smaller teacher.call."
        fix += fragmentation()
        if path := saved():
            fix += f" Then --resume {path}."
        raise UserError(f"Out of memory: {one_line(error)}", fix, code=1) from error
