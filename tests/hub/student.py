"""A run folder as `train` leaves it, in a moment: random weights, and facts of a run that never was."""

import json
from pathlib import Path
from typing import Any

from conftest import tiny_net
from diffusers import DDPMPipeline, DDPMScheduler
from PIL import Image

from scm_distill.artifacts.export_record import Searched, SearchRecord
from scm_distill.artifacts.run_records import StepLine

FACTS: dict[str, Any] = {
    "base_model": "org/teacher", "hub_id": "org/teacher", "revision": None, "license": {"license": "apache-2.0"},
    "pipeline": "DDPMPipeline", "scheduler": "DDPMScheduler", "modality": "image",
    "driver": "none", "classes": None, "sample_shape": [1, 8, 8],
    "pixels": True, "trained": {
        "steps": 4, "batch_size": 4, "velocity": "teacher", "guidance": None, "teacher_call": {}, "data": "files",
        "samples": 8, "optimizer": "adam", "lr": 1e-4, "precision": "fp32", "seed": 0,
    },
    "sigma_d": 1.0, "t_max": 1.5583, "t_mid": 0.8, "prediction_type": "v_prediction",
    "table": [
        {"sampler": "teacher, DDIM", "nfe": 50, "distance": 0.2},
        {"sampler": "teacher, undistilled", "nfe": 2, "distance": 9.0},
        {"sampler": "student", "nfe": 1, "distance": 0.4},
        {"sampler": "student", "nfe": 2, "distance": 0.3},
    ],
    "search": [{"t_mid": 0.8, "distance": 0.3}, {"t_mid": 1.1, "distance": 0.5}], "samples": 8, "reference": 8,
    "difference": 1e-6,
    "versions": {"scm-distill": "0.1.0", "torch": "2.13.0", "diffusers": "0.42.1"}, "example": None,
    "gallery": [{"file": "samples/0.png", "magnified": 8, "seed": 0}],
}  # fmt: skip


def write(run: Path, **facts: Any) -> Path:
    """Write a run folder with an export, and beside what is published all that is not; returns `run`."""
    export = run / "export"
    DDPMPipeline(tiny_net(), DDPMScheduler()).save_pretrained(str(export))
    for folder in ("samples", "../checkpoints/step-4", "../samples"):
        (export / folder).mkdir(parents=True)
    Image.new("L", (8, 8), 90).save(export / "samples" / "0.png")
    tell(run, **facts)
    search(run, 0.8)
    (export / "LICENSE").write_text("Apache License\n")
    for name in ("student.safetensors", "../checkpoints/step-4/optimizer.safetensors", "../run.log", "notes.py"):
        (export / name).write_text("not for the Hub")
    home = Path.home()
    (run / "config.yaml").write_text(
        f"teacher: {{repo: {run.parent}/secret/teacher, config: '~/secret/parts'}}\n"
        f"data: {{source: {home}/secret/photos, prompts: secret/prompts.txt}}\n"
        "guidance: {negative_prompt: '/bad, ugly/deformed'}\ntrain: {steps: 4, batch_size: 4}\n"
    )
    metrics(run, 1.0)
    return run


def evaluation(run: Path, **changes: Any) -> None:
    """Write eval.json."""
    row = {"scheduler": "DDPMScheduler", "batch": 8, "ms_per_sample": 1.0, "metrics": {"fd": 2.0}, "kid_std": 0.1}
    told = {
        "version": 1, "date": "2026-11-22", "teacher": "org/teacher", "data": "set", "n": 8, "reference": 8, "seed": 0,
        "device": "cpu", "dtype": "fp32", "versions": {}, "extractor": {"name": "own", "id": "own"},
        "rows": [{**row, "who": who, "steps": k, "nfe": float(k)} for who, k in (("student", 2), ("teacher", 50))],
        "ratios": {"fd": 1.0, "nfe": 25.0, "wall_clock": 1.0}, "guidance": {},
    }  # fmt: skip
    (run / "export" / "eval.json").write_text(json.dumps({**told, **changes}))


def search(run: Path, chosen: float) -> bytes:
    """Write t_mid_search.json anew; returns what it holds."""
    path = run / "export" / "t_mid_search.json"
    SearchRecord(chosen=chosen, search=(Searched(t_mid=0.8, distance=0.3), Searched(t_mid=1.1, distance=0.5))).write(
        path
    )
    return path.read_bytes()


def metrics(run: Path, loss: float) -> None:
    """Write metrics.jsonl anew, of one step."""
    norms = (0.1, None, 0.2, 0.3)
    line = StepLine(step=1, loss=loss, grad_norm=1.0, lr=1e-4, tangent=norms, derivative=norms, gap=norms)
    (run / "metrics.jsonl").write_text(line.line() + "\n")


def tell(run: Path, **facts: Any) -> None:
    """Write the facts of the export anew."""
    told = {"version": 1, "call": {"num_inference_steps": 2}, "lora": None, "facts": {**FACTS, **facts}}
    (run / "export" / "scm_distill.json").write_text(json.dumps(told))
