"""What the processes of a run tell each other beside the device's collectives: who is done, and who has failed.

It goes through the store in which the processes met: no device takes part, nothing times out while one process draws
the data or writes a checkpoint, and no process waits for one that has failed, it raises what that one raised. A single
process goes on at once.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import count

import torch

from scm_distill.autodiff.torch_private import default_store
from scm_distill.errors import UserError, one_line

WAIT = timedelta(days=2)  # for what may take long: one process draws or encodes the data
PATIENCE = timedelta(minutes=5)  # for processes that may hang in a collective which this one has left
PAUSE = 0.2  # seconds between two looks at the store, at most

_turns = count()  # of `exchange`, which all processes call in the same order
_run = 0  # the number of the run, which may be one of several that the same processes make


def exchange(what: str, said: str = "", wait: timedelta | None = None) -> list[str]:
    """What every process `said` at this point of the run, by rank; each waits until all are here.

    `what` names the work that ends here. Raises UserError where another process has failed, or did not get here in the
    time `wait` (default: WAIT).
    """
    if not torch.distributed.is_initialized():
        return [said]
    rank, world, turn = torch.distributed.get_rank(), torch.distributed.get_world_size(), next(_turns)
    keys, store = [f"scm-distill {_run} {turn} {what} {r}" for r in range(world)], default_store()
    store.set(keys[rank], said)
    end, pause = time.monotonic() + (wait or WAIT).total_seconds(), 1e-3
    while True:
        if error := failure():
            raise error
        if store.check(keys):
            return [store.get(key).decode() for key in keys]
        if time.monotonic() > end:
            missing = [r for r, key in enumerate(keys) if not store.check([key])]
            reason = f" Process {rank} says: {said}." if said else ""
            raise UserError(
                f"{_named(missing, world)} did not get to the end of {what}.{reason}",
                "If memory is short, lower train.micro_batch_size; a run continues with --resume auto.",
                code=1,
            )
        time.sleep(pause := min(2 * pause, PAUSE))


def _named(ranks: Sequence[int], world: int) -> str:
    return f"Process{'es' * (len(ranks) > 1)} {', '.join(map(str, ranks))} of {world}"


def largest(what: str, value: float) -> float:
    """The largest of the values of all processes; NaN where one is NaN. As `exchange`."""
    return float(torch.tensor([float(x) for x in exchange(what, repr(value))], dtype=torch.float64).max())


def of_first(what: str, *values: float) -> list[float]:
    """The values of the first process, so that all go on with the same ones. As `exchange`."""
    return [float(x) for x in exchange(what, " ".join(map(repr, values)))[0].split()]


@contextmanager
def together(what: str) -> Iterator[None]:
    """Around work without collectives that each process does for itself: it ends when all are done, or one fails.

    The process that fails raises its own error, the others a UserError with what it said.
    """
    with told():
        yield
    exchange(what)


@contextmanager
def first(what: str) -> Iterator[None]:
    """Around work without collectives that the first process does first, and the others after it.

    Where it fails there, the others raise a UserError with what it said.
    """
    alone = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    if not alone:
        exchange(what)
    with told():
        yield
    if alone:
        exchange(what)


@contextmanager
def run() -> Iterator[None]:
    """Around a whole run, which all processes begin: as `told`, and what an earlier run failed of is forgotten."""
    global _run, _turns
    _run, _turns = _run + 1, count()
    with told():
        yield


def _failed() -> str:
    return f"scm-distill {_run} failed"  # the key of the first failure


@contextmanager
def told() -> Iterator[None]:
    """Whoever raises within it tells the others; an error that is the echo of another process's failure becomes that.

    Such an echo is "connection closed by peer", which a collective raises when another process is gone.
    """
    try:
        yield
    except UserError as error:
        fail(error)
        raise
    except Exception as error:
        if cause := failure():
            raise cause from error
        fail(error)
        raise
    except KeyboardInterrupt as error:
        fail(error)
        raise


def fail(error: BaseException) -> None:
    """Tell the other processes that this one cannot go on; the first failure is the one that is told."""
    if not torch.distributed.is_initialized():
        return
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    if isinstance(error, UserError):
        told = [rank, f"{_named([rank], world)}: {error.problem}", error.fix, error.code]
    else:
        what = f"{_named([rank], world)} failed with {type(error).__name__}: {one_line(error)}"
        told = [rank, what.rstrip(".: ") + ".", "A run continues with --resume auto.", 1]
    try:
        default_store().compare_set(_failed(), "", json.dumps(told))
    except RuntimeError:  # the process that kept the store is gone, and the others see that
        return


def failure() -> UserError | None:
    """The error of another process that has failed, if there is one."""
    if not torch.distributed.is_initialized():
        return None
    try:
        store = default_store()
        if not store.check([_failed()]):
            return None
        rank, problem, fix, code = json.loads(store.get(_failed()))
    except RuntimeError:
        return UserError("The process that started this run is gone.", "A run continues with --resume auto.", code=1)
    return None if rank == torch.distributed.get_rank() else UserError(problem, fix, code=code)
