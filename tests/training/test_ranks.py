"""Processes that fail alone: the others learn of it, and none waits for ever."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scm_distill import ranks
from scm_distill.errors import UserError

HEADER = """
import json, os, sys, time, torch
from datetime import timedelta
from pathlib import Path
from scm_distill import ranks
from scm_distill.errors import UserError

torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
found = {}

def error_of(work):
    try:
        work()
    except BaseException as error:
        return [type(error).__name__, str(error), getattr(error, "code", None)]
"""
FOOTER = """
Path(f"{rank}.json").write_text(json.dumps(found))
"""


def by_two(body: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What two processes put into `found`."""
    (folder / "worker.py").write_text(HEADER + body + FOOTER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "worker.py"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([*sys.path])}
    done = subprocess.run(command, cwd=folder, env=environment, timeout=200, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    first, second = (json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1))
    return first, second


def test_a_single_process_waits_for_nobody() -> None:
    assert ranks.exchange("work", "mine") == ["mine"]
    assert ranks.largest("work", 0.1) == 0.1
    assert ranks.of_first("work", 0.1, 2.0) == [0.1, 2.0]
    with ranks.run(), ranks.together("work"), ranks.first("work"):
        pass
    with pytest.raises(UserError, match=r"^as it was") as error, ranks.run(), ranks.together("work"):
        raise UserError("as it was", code=1)
    assert error.value.code == 1
    assert ranks.failure() is None


MEETINGS = """
found["said"] = ranks.exchange("work", f"I am {rank}")
found["largest"] = [ranks.largest("a", rank / 3), str(ranks.largest("b", float("nan") if rank else 9.0))]
found["first's"] = ranks.of_first("c", rank + 0.1, rank + 0.2)
with ranks.first("drawing"):
    found["began"] = time.time()
    if rank == 0:
        time.sleep(0.5)

def work():
    with ranks.run(), ranks.together("work"):
        if rank == 1:
            raise UserError("There is no such file.", "Mend it.", code=3)

def crash():
    with ranks.run(), ranks.first("drawing"):
        if rank == 0:
            raise ValueError("no samples")
        found["the others went on"] = True

def echo():  # what a collective raises when the other process is gone, after it said why
    with ranks.run():
        if rank == 1:
            raise torch.OutOfMemoryError("16 GiB")
        while not ranks.failure():
            time.sleep(0.01)
        raise RuntimeError("Connection closed by peer")

def stuck():  # the other process is in a collective that this one has left
    with ranks.run():
        if rank == 1:
            ranks.exchange("the trial", "ValueError: bad", timedelta(seconds=1))
        while not ranks.failure():
            time.sleep(0.01)
        ranks.exchange("the trial")

found["error"], found["crash"], found["echo"], found["stuck"] = map(error_of, (work, crash, echo, stuck))
with ranks.run():
    found["again"] = ranks.exchange("work", str(rank))
"""


def test_what_two_processes_tell_each_other(tmp_path: Path) -> None:
    one, two = by_two(MEETINGS, tmp_path)
    for found in (one, two):
        assert found["said"] == ["I am 0", "I am 1"]
        assert found["largest"] == [1 / 3, "nan"]
        assert found["first's"] == [0.1, 0.2]
        assert found["again"] == ["0", "1"]  # an earlier failure is forgotten in the next run
    assert two["began"] >= one["began"] + 0.5
    assert two["error"] == ["UserError", "There is no such file. Mend it.", 3]
    assert one["error"] == ["UserError", "Process 1 of 2: There is no such file. Mend it.", 3]
    again = "A run continues with --resume auto."
    assert one["crash"] == ["ValueError", "no samples", None]
    assert two["crash"] == ["UserError", f"Process 0 of 2 failed with ValueError: no samples. {again}", 1]
    assert "the others went on" not in two
    assert two["echo"] == ["OutOfMemoryError", "16 GiB", None]
    assert one["echo"] == ["UserError", f"Process 1 of 2 failed with OutOfMemoryError: 16 GiB. {again}", 1]
    missing = "Process 0 of 2 did not get to the end of the trial. Process 1 says: ValueError: bad."
    assert two["stuck"][1].startswith(missing)
    assert one["stuck"][1].startswith(f"Process 1 of 2: {missing}")


TRIAL = """
from torch.nn.parallel import DistributedDataParallel
from training.test_derivative import BAR, Listener, trial
from scm_distill import config
from scm_distill.autodiff.derivatives import OnePass
from scm_distill.autodiff.dual import blocks
from scm_distill.training import derivative, distributed
from dataclasses import replace

recipe = config.read("recipe.yaml", [])
one_pass, calls = OnePass.__call__, []

def chosen(wrap, failing, error=ValueError("no pairs")):
    given = trial()
    given = replace(given, wrapped=wrap(given.student))
    listener = Listener()

    def breaks(self, F, *rest):  # in the last block, where the others gather its parameters
        hook = blocks(F.net)[-1].register_forward_pre_hook(fails if rank in failing else lambda *_: None)
        try:
            return one_pass(self, F, *rest)
        finally:
            hook.remove()

    def fails(*_):
        raise error

    OnePass.__call__ = breaks
    try:
        with ranks.run():
            found = derivative.choose(given, recipe, "fast", 2, 0.02, listener)
            F, _, w_phi = given.wrapped(given.x, given.t, given.cond, given.v, found)
            (F.sum() + 0 * w_phi.sum()).backward()
            norm = distributed.clip(given.student.parameters(), 1e9)
            return str(found), listener.said, float(norm)
    finally:
        OnePass.__call__ = one_pass

def sharded(student):
    return distributed.shard(blocks(student.network.net), student, torch.device("cpu"), 2)

found["sound"] = [chosen(w, []) for w in (DistributedDataParallel, sharded)]
found["alone"] = chosen(DistributedDataParallel, [1])
found["alike"] = [chosen(w, [0, 1]) for w in (DistributedDataParallel, sharded)]
found["memory"] = error_of(lambda: chosen(DistributedDataParallel, [1], torch.OutOfMemoryError("16 GiB")))
ranks.PATIENCE = timedelta(seconds=2)
found["hangs"] = error_of(lambda: chosen(sharded, [1]))
"""


@pytest.mark.wide  # two processes that import diffusers
def test_a_process_that_fails_in_the_trial_alone(tmp_path: Path, recipe_of: Any) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe_of("teacher"))
    one, two = by_two(TRIAL, tmp_path)
    for found in (one, two):
        for derivative, said, norm in found["sound"]:
            assert "one pass" in derivative
            assert "would not do" not in said
            assert norm == pytest.approx(found["sound"][0][2], rel=1e-5)
        for derivative, said, norm in (found["alone"], *found["alike"]):
            assert "two passes" in derivative
            assert "one pass would not do (ValueError: no pairs)" in said
            assert norm == pytest.approx(found["sound"][0][2], rel=1e-5)
    assert two["memory"][:2] == ["OutOfMemoryError", "16 GiB"]
    assert one["memory"][1].startswith("Process 1 of 2 failed with OutOfMemoryError: 16 GiB.")
    missing = "Process 0 of 2 did not get to the end of the trial of one pass. Process 1 says: ValueError: no pairs."
    assert two["hangs"][1].startswith(missing)
    assert one["hangs"][1].startswith(f"Process 1 of 2: {missing}")
