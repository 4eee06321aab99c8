"""`train --num-processes N`: N processes of this machine, in the environment that torchrun would give them.

Not torchrun's agent: it answers a signal with SIGKILL after 30 seconds, exits with 1 whatever the worker's code was,
and ends in a report of its own. Each worker is a session of its own, so a Ctrl-C reaches it once, from here.
"""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from scm_distill.errors import UserError
from scm_distill.training.signals import held_back

WORKER = "SCM_DISTILL_WORKER"  # set in the environment of the processes that are started here
CRASHED = 70  # exit code of a worker that shows a traceback
TICK = 0.1  # seconds between two looks at the workers
AGAIN = 1.0  # seconds within which a repeated signal is the same one: `timeout` sends two
OTHERS = 5.0  # seconds that the others have to fail of the same reason, before SIGTERM
LAST = 60.0  # seconds from there to SIGKILL


def refuse_nested(environment: Mapping[str, str]) -> None:
    """Raise UserError inside torchrun, accelerate launch or srun."""
    if found := [name for name in ("RANK", "WORLD_SIZE") if name in environment]:
        raise UserError(
            f"--num-processes starts processes, and this is one of several already ({', '.join(found)} set).",
            "Leave --num-processes away under torchrun, accelerate launch or srun.",
        )


def slurm(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of torch.distributed for a task of `srun`; none in a step of one task, or outside of one.

    A batch script has SLURM_PROCID and SLURM_NTASKS too, but no step; its other tasks would be waited for in vain.
    """
    wanted = {"SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_STEP_ID"}
    if "RANK" in environment or not wanted <= environment.keys():
        return {}
    world = environment.get("SLURM_STEP_NUM_TASKS") or environment["SLURM_NTASKS"]
    if int(world) < 2:
        return {}
    # Rank 0 runs on the first node of the step; the launch node is where srun was typed, perhaps a login node.
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or ""
    address = first_host(nodes) or environment.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1")
    port = str(10_000 + int(environment.get("SLURM_JOB_ID", "0")) % 50_000)
    return {
        "RANK": environment["SLURM_PROCID"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "WORLD_SIZE": world,
        "MASTER_ADDR": environment.get("MASTER_ADDR", address),
        "MASTER_PORT": environment.get("MASTER_PORT", port),
    }


def first_host(nodes: str) -> str:
    """The first host of a SLURM node list: node03 of "node[03-05,9]", a1 of "a1,b2"."""
    first = re.match(r"(?:\[[^]]*\]|[^,[])*", nodes)
    return re.sub(r"\[([^],-]*)[^]]*\]", r"\1", first[0]) if first else ""


def run(arguments: Sequence[str], world: int) -> int:
    """Run `scm-distill ARGUMENTS` in `world` processes; the exit code. Raises UserError when one of them is killed."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # here, so that no port is raced for
    with contextlib.ExitStack() as stack, held_back(most=None, again=AGAIN, hangup=True) as received:
        notes = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(world)]
        workers: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(world):
                workers.append(worker := _start(arguments, rank, world, store.port, notes[rank]))
                stack.enter_context(worker)
            codes, failed = _watch(workers, received)
        finally:
            _kill(workers)
        if received and any(codes):
            return 128 + received[0]
        return _report(codes, failed, notes)


@contextmanager
def attended() -> Iterator[None]:
    """In a worker: leave when the parent is gone, keep libraries off stdout, and tell a crash from a UserError."""
    if WORKER not in os.environ:
        yield
        return
    threading.Thread(target=_outlived, daemon=True).start()
    sys.stdout.flush()
    sys.stdout = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding)
    os.dup2(2, 1)  # gloo and NCCL write to 1
    try:
        yield
    except Exception:
        sys.excepthook(*sys.exc_info())
        raise SystemExit(CRASHED) from None


def _outlived() -> None:
    os.read(0, 1)  # ends when the parent does
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LAST)
    os._exit(128 + signal.SIGTERM)


def _start(arguments: Sequence[str], rank: int, world: int, port: int, notes: IO[bytes]) -> subprocess.Popen[bytes]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    environment = {
        "OMP_NUM_THREADS": str(max(1, cores // world)),
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store is the parent's
        "TORCHELASTIC_RESTART_COUNT": "0",
        WORKER: "1",
        "SCM_DISTILL_COMMAND": shlex.join(["scm-distill", *sys.argv[1:]]),  # what was typed, for env.json
    }
    here = sys.path[:1] == [str(Path.cwd())]  # `python -m`; else -P, or a worker finds other modules than its parent
    shown = rank == 0 or "SCM_DISTILL_DEBUG" in os.environ
    return subprocess.Popen(
        [sys.executable, *([] if here else ["-P"]), "-m", "scm_distill", *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=None if rank == 0 else subprocess.DEVNULL,
        stderr=None if shown else notes,
        start_new_session=True,
    )


def _watch(workers: Sequence[subprocess.Popen[bytes]], received: Sequence[int]) -> tuple[list[int], list[int]]:
    """Pass signals on until all workers are gone: their exit codes, and the ranks that failed unasked, in order.

    The second signal is passed on as well, and no longer held back there; the third kills.
    """
    failed: list[int] = []
    passed, asked, deadline = 0, False, float("inf")
    while True:
        codes = [worker.poll() for worker in workers]
        if not asked:
            failed += [rank for rank, code in enumerate(codes) if code and rank not in failed]
        if None not in codes:
            return [code or 0 for code in codes], failed
        now = time.monotonic()
        if deadline == float("inf") and any(codes):
            deadline = now + (LAST if asked else OTHERS)
        if passed < len(received):
            number, asked, passed = received[passed], True, passed + 1
            _kill(workers) if passed > 2 else _send(workers, number)
        elif now > deadline:
            _kill(workers) if asked else _send(workers, signal.SIGTERM)
            asked, deadline = True, now + LAST
        time.sleep(TICK)


def _send(workers: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for worker in workers:
        worker.send_signal(number)


def _kill(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """End the workers that are left, and what they started."""
    for worker in workers:
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def _report(codes: Sequence[int], failed: Sequence[int], notes: Sequence[IO[bytes]]) -> int:
    """Show what the first process did not show itself; the exit code of the run. Raises UserError."""
    seen: set[object] = {codes[0]} if 0 in failed else set()
    killed = [rank for rank in failed if codes[rank] == -signal.SIGKILL]  # what the others say then is its echo
    for rank in sorted(set(failed) - {0}) if not killed else ():
        notes[rank].seek(0)
        said = notes[rank].read().decode(errors="replace")
        crashed = codes[rank] == CRASHED or codes[rank] < 0
        # A UserError is the same in all; crashes may be one cause and its echoes, alike but for numbers.
        kind = re.sub(r"\d+", "", said.strip().rpartition("\n")[2]) if crashed else codes[rank]
        if kind not in seen:
            sys.stderr.write(f"process {rank} of {len(codes)}:\n{said}" if crashed else said)
        seen.add(kind)
    for rank in killed or failed:
        if (code := codes[rank]) < 0:
            raise UserError(
                f"Process {rank} of {len(codes)} was killed by {signal.Signals(-code).name}.",
                "If memory ran out, lower train.micro_batch_size, or --batch; a run continues with --resume auto.",
                code=128 - code,
            )
    first = codes[failed[0]] if failed else 0
    return 1 if first == CRASHED else first
