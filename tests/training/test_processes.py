"""Two processes share a run: the losses of one, and one set of files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import zoo

LATENTS = """
teacher: {repo: teacher, call: {height: 16, width: 16}}
data: {source: teacher, prompts: prompts.txt, samples: 8}
guidance: {scale: 3.0, dropout: 0.3}
objective: {tangent: jvp}
train: {steps: 3, batch_size: 4, evaluate_every: 3, evaluate_samples: 2, device: cpu, stop_if_worse: false}
sampler: {teacher_steps: 3}
export: {t_mid: [1.1], samples: 4}
"""


def both_ways(folder: Path) -> None:
    """Run mine.yaml of `folder` in one process and in two, and hold their metrics against each other."""
    package = ["-m", "scm_distill", "train", "mine.yaml", "-s", "optimizer.lr=1e-3"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    runs = {"one": [sys.executable, *package], "two": [sys.executable, *torchrun, *package]}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [*command, "-o", name], cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for name, command in runs.items()
    ]
    assert [process.wait(300) for process in processes] == [0, 0]
    one, two = (
        [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()] for name in runs
    )
    assert [line["step"] for line in one] == [line["step"] for line in two]
    for a, b in zip(one, two, strict=True):
        if "loss" in a:
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)


def test_two_processes_share_conditions_of_two_lengths_and_drawn_latents(tmp_path: Path) -> None:
    zoo.load_all()["cogview4"].pipeline().save_pretrained(str(tmp_path / "teacher"))
    (tmp_path / "mine.yaml").write_text(LATENTS)
    (tmp_path / "prompts.txt").write_text("a cat\na dog on a very long wooden bench\na fox\n")
    both_ways(tmp_path)
    kept = {path.name for path in (tmp_path / "one" / "conditions").iterdir()}
    assert kept == {path.name for path in (tmp_path / "two" / "conditions").iterdir()}
    assert len(kept) == 3
