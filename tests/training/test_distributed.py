"""DDP, FSDP2, accumulation and resuming across them: the losses, parameters, moments and EMA of one process.

A process takes seconds to import torch and diffusers, so two of them do what several tests could ask for.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from conftest import TeacherMaker
from safetensors.torch import load_file
from teachers.conftest import FolderOf

from scm_distill import config
from scm_distill.progress import Silent
from scm_distill.training import run, setup

pytestmark = pytest.mark.filterwarnings("ignore")  # of the pipelines, and of FSDP2 about views

WORKER = """
import gc
gc.disable()  # while half a million objects are imported
import json, sys, torch
from pathlib import Path
from scm_distill import config
from scm_distill.progress import Silent
from scm_distill.training import run, setup

gc.enable()
torch.set_num_threads(1)
for recipe, out, resume, overrides in json.loads(Path("jobs.json").read_text()):
    start = Path(resume) if resume else None
    run.Run(setup.build(config.read(recipe, overrides), Path(out), start, Silent())).train()
"""
TAIL = """
objective: {tangent: jvp, warmup_steps: 4}
optimizer: {lr: 0.03, warmup_steps: 0, grad_clip: null, decay: constant}
adapt: {smooth_time: 20, prefit_steps: 2}
train: {steps: 5, batch_size: 4, checkpoint_every: 3, evaluate_every: 5, evaluate_samples: 2, device: cpu,
        memory: fast, stop_if_worse: false}
sampler: {teacher_steps: 2}
export: {t_mid: [1.1], samples: 4}
"""
SD3 = """
teacher: {{repo: {0}, call: {{height: 16, width: 16}}}}
data: {{source: teacher, prompts: prompts.txt, samples: 8, workers: 0}}
guidance: {{scale: 3.0, dropout: 0.3}}
"""
COGVIEW4 = """
teacher: {{repo: {0}, call: {{height: 16, width: 16}}}}
data: {{source: teacher, prompts: lengths.txt, samples: 8, workers: 0}}
guidance: {{scale: 3.0, dropout: 0.3}}
"""
DIT = "teacher: {{repo: {0}}}\ndata: {{source: teacher, samples: 4, workers: 0}}\nguidance: {{scale: 3.0}}\n"
UNET = "teacher: {{repo: {0}}}\ndata: {{source: 'builtin:digits/data.npz', workers: 0}}\n"

Job = tuple[str, str, str, list[str]]  # recipe, run folder, checkpoint to resume, overrides


def job(recipe: str, out: str, *overrides: str, resume: str = "") -> Job:
    for part in ("samples", "checkpoints"):
        Path(out, part).mkdir(parents=True)
    return f"{recipe}.yaml", out, resume, list(overrides)


def alone(job: Job) -> None:
    recipe, out, resume, overrides = job
    made = setup.build(config.read(recipe, overrides), Path(out), Path(resume) if resume else None, Silent())
    run.Run(made).train()


@contextmanager
def by_two(*jobs: Job) -> Iterator[None]:
    """Two processes take these jobs one after the other while the body runs."""
    Path("jobs.json").write_text(json.dumps(jobs))
    Path("worker.py").write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "worker.py"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with Path("log.txt").open("w") as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as two:
        try:
            yield
            code = two.wait(400)
        finally:
            two.terminate()
    assert code == 0, Path("log.txt").read_text()[-6000:]


def figures(out: str) -> dict[int, tuple[float, float]]:
    lines = map(json.loads, Path(out, "metrics.jsonl").read_text().splitlines())
    return {line["step"]: (line["loss"], line["grad_norm"]) for line in lines if "loss" in line}


def tensors(out: str, step: int = 5) -> dict[str, dict[str, Any]]:
    folder = Path(out, "checkpoints", f"step-{step}")
    files = {name: load_file(folder / f"{name}.safetensors") for name in ("student", "ema", "optimizer")}
    # Softmax ignores the bias of the keys: its gradient is rounding alone, and Adam makes steps of that.
    return {name: {k: v for k, v in kept.items() if "to_k.bias" not in k} for name, kept in files.items()}


def same(out: str, reference: str, *, first: int = 1, within: float = 1e-6) -> None:
    expected = figures(reference)
    for step, found in figures(out).items():
        assert found == pytest.approx(expected[step], rel=2e-6), f"{out} at step {step}"
    assert list(figures(out)) == list(range(first, 6))
    mine, theirs = tensors(out), tensors(reference)
    for name, expected_tensors in theirs.items():
        assert mine[name].keys() == expected_tensors.keys()
        off = {key: float((mine[name][key] - value).abs().max()) for key, value in expected_tensors.items()}
        worst = max(off, key=off.__getitem__)
        assert off[worst] <= within, f"{out}: {worst} of {name} is off by {off[worst]:.1e}"


def moved(out: str) -> float:
    """How far the median parameter tensor went in the last two steps."""
    before, after = tensors(out, 3)["student"], tensors(out)["student"]
    return median(float((after[key] - value).abs().max()) for key, value in before.items())


SHARDED = ("train.shard=student",)
WIDE = "train.batch_size=32"  # the teacher is probed by the micro-batch: 256 samples by two would be most of the test


def test_two_processes_give_what_one_gives(
    tmp_path: Path, folder_of: FolderOf, make_teacher: TeacherMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every layout; of conditions of two lengths and drawn latents; of a student fitted to its new output first."""
    monkeypatch.chdir(tmp_path)
    Path("sd3.yaml").write_text(SD3.format(folder_of("sd3")) + TAIL)
    Path("prompts.txt").write_text("a cat\na dog\n")
    Path("cogview4.yaml").write_text(COGVIEW4.format(folder_of("cogview4")) + TAIL)
    Path("lengths.txt").write_text("a cat\na dog on a very long wooden bench\na fox\n")
    Path("unet.yaml").write_text(UNET.format(make_teacher()) + TAIL)
    layouts = {
        "ddp": (),
        "student": SHARDED,
        "all, lean": ("train.shard=all", "train.memory=lean"),
        "sharded, accumulated": (*SHARDED, "train.micro_batch_size=1"),
    }
    with by_two(
        *(job("sd3", out, *overrides) for out, overrides in layouts.items()),
        job("cogview4", "lengths, ddp"),
        job("unet", "fitted, all, lean", WIDE, "train.shard=all", "train.memory=lean"),
        job("unet", "fitted, ddp", WIDE),
    ):
        alone(job("sd3", "one"))
        alone(job("sd3", "accumulated", "train.micro_batch_size=1"))
        alone(job("cogview4", "lengths"))
        alone(job("unet", "fitted", WIDE))
    assert moved("one") > 1e-4
    for out in ("accumulated", *layouts):
        same(out, "one")
    same("lengths, ddp", "lengths")
    kept = {path.name for path in Path("lengths/conditions").iterdir()}
    assert kept == {path.name for path in Path("lengths, ddp/conditions").iterdir()}
    assert len(kept) == 3
    for out in ("fitted, ddp", "fitted, all, lean"):
        same(out, "fitted", within=1e-5)  # Adam divides the rounding of small gradients by their size, in the pre-fit


@pytest.mark.slow  # as the test before, of adapters
def test_an_adapter_is_trained_in_every_layout(
    tmp_path: Path, folder_of: FolderOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sd3.yaml").write_text(SD3.format(folder_of("sd3")) + TAIL)
    Path("prompts.txt").write_text("a cat\na dog\n")
    adapter = ("lora.rank=2", "lora.targets=all-linear", "optimizer.lr=0.3")  # B = 0 at first: A moves little
    layouts = {"ddp": (), "student": SHARDED, "all, lean": ("train.shard=all", "train.memory=lean")}
    with by_two(*(job("sd3", out, *adapter, *overrides) for out, overrides in layouts.items())):
        alone(job("sd3", "one", *adapter))
    assert moved("one") > 1e-5
    for out in layouts:
        same(out, "one")


@pytest.mark.slow  # eight processes; `pytest -m slow`
def test_a_run_continues_with_another_number_of_processes(
    tmp_path: Path, folder_of: FolderOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dit.yaml").write_text(DIT.format(folder_of("dit")) + TAIL)
    keep = "adapt.output=keep"
    alone(job("dit", "one", keep))
    jobs = (
        job("dit", "two", keep, *SHARDED),
        job("dit", "one, then two", keep, *SHARDED, resume="one/checkpoints/step-3"),
        job("dit", "ddp, accumulated", keep, "train.micro_batch_size=1"),
    )
    with by_two(*jobs):
        pass
    same("two", "one")  # the model calls a part of its first block from outside of it: the root keeps that block
    same("ddp, accumulated", "one")
    same("one, then two", "one", first=4)
    alone(job("dit", "two, then one", keep, resume="two/checkpoints/step-3"))
    same("two, then one", "one", first=4)
