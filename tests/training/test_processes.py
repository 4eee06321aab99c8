"""Two processes share a run: the losses of one, and one set of files."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TeacherMaker


def test_two_processes_give_the_losses_of_one(
    tmp_path: Path, make_teacher: TeacherMaker, recipe_of: Callable[..., str]
) -> None:
    (tmp_path / "mine.yaml").write_text(recipe_of(make_teacher()))
    package = ["-m", "scm_distill", "train", "mine.yaml", "-s", "optimizer.lr=1e-3"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    runs = {"one": [sys.executable, *package], "two": [sys.executable, *torchrun, *package]}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [*command, "-o", name], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for name, command in runs.items()
    ]
    assert [process.wait(300) for process in processes] == [0, 0]
    one, two = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()] for name in runs
    )
    assert [line["step"] for line in one] == [line["step"] for line in two]
    for a, b in zip(one, two, strict=True):
        if "loss" in a:
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
