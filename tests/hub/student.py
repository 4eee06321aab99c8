"""A run folder as `train` leaves it, in a moment: random weights, and facts of a run that never was."""

import json
from pathlib import Path
from typing import Any

from conftest import tiny_net
from diffusers import DDPMPipeline, DDPMScheduler
from PIL import Image

FACTS: dict[str, Any] = {
    "base_model": "org/teacher", "hub_id": "org/teacher", "revision": None, "license": {"license": "apache-2.0"},
    "pipeline": "DDPMPipeline", "scheduler": "DDPMScheduler", "modality": "image",
    "driver": "none", "classes": None, "sample_shape": [1, 8, 8],
    "pixels": True, "trained": {
        "steps": 4, "batch_size": 4, "velocity": "teacher", "guidance": None, "data": "files", "samples": 8,
        "optimizer": "adam", "lr": 1e-4, "precision": "fp32", "seed": 0,
    },
    "sigma_d": 1.0, "t_max": 1.5583, "t_mid": 0.8, "prediction_type": "v_prediction",
    "table": [
        {"sampler": "teacher, DDIM", "nfe": 50, "distance": 0.2},
        {"sampler": "teacher, undistilled", "nfe": 2, "distance": 9.0},
        {"sampler": "student", "nfe": 1, "distance": 0.4},
        {"sampler": "student", "nfe": 2, "distance": 0.3},
    ],
    "search": [{"t_mid": 0.8, "distance": 0.3}, {"t_mid": 1.1, "distance": 0.5}], "samples": 8, "difference": 1e-6,
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
    (export / "t_mid_search.json").write_text('{"chosen": 0.8}\n')
    (export / "LICENSE").write_text("Apache License\n")
    for name in ("student.safetensors", "../checkpoints/step-4/optimizer.safetensors", "../run.log", "notes.py"):
        (export / name).write_text("not for the Hub")
    home = Path.home()
    (run / "config.yaml").write_text(
        f"teacher: {{repo: {run.parent}/secret/teacher, config: '~/secret/parts'}}\n"
        f"data: {{source: {home}/secret/photos, prompts: secret/prompts.txt}}\n"
        "guidance: {negative_prompt: '/bad, ugly/deformed'}\ntrain: {steps: 4, batch_size: 4}\n"
    )
    (run / "metrics.jsonl").write_text('{"step": 0, "loss": 1.0}\n')
    return run


def tell(run: Path, **facts: Any) -> None:
    """Write the facts of the export anew."""
    told = {"call": {"num_inference_steps": 2}, "facts": {**FACTS, **facts}}
    (run / "export" / "scm_distill.json").write_text(json.dumps(told))
