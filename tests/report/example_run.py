"""A run folder as training, export and eval leave it, with figures that are made up and texts that are hostile."""

import json
import math
from pathlib import Path

from PIL import Image

from scm_distill import config
from scm_distill.data.pictures import grid

HOSTILE = '<script>alert("1")</script><img src=x onerror=alert(2)>'
TOKEN = "hf_" + "a1B2c3D4" * 4
STEPS = 40


def write(folder: Path, *, finished: bool = True, samples: int = 6) -> Path:
    """`folder`, filled; an unfinished run has no export, no eval.json, and its last line is cut."""
    (folder / "samples").mkdir(parents=True)
    overrides = ["teacher.repo=/home/someone/models/kitten", f"train.steps={STEPS}", "objective.warmup_steps=10"]
    overrides += [
        "data.source=/data/secret/cats",
        "guidance.scale=3.0",
        f"guidance.negative_prompt='{HOSTILE} {TOKEN}'",
    ]
    recipe = config.read("digits", overrides)
    (folder / "config.yaml").write_text(config.dump(recipe))
    last = STEPS if finished else 25
    lines: list[dict] = []
    for step in range(last + 1):
        if step:
            buckets = [round(0.1 * i + 1 / step, 6) for i in range(1, 4)] + [None]
            figures = dict.fromkeys(("tangent", "derivative", "gap"), buckets)
            lines.append(
                {"version": 1, "step": step, "loss": math.cos(step), "grad_norm": 1 + 1 / step, "lr": 1e-4, **figures}
            )
        if step % 10 == 0:
            student = {"rmse": 1 / (step + 1), "one_step": 30 / (step + 1), "two_steps": 9 / (step + 1)}
            teacher = {"rmse": 2.0, "one_step": 300.0, "two_steps": 20.0}
            lines.append({"version": 1, "step": step, "student": student, "teacher": teacher})
            cells = [Image.new("L", (8, 8), (step + 5 * i) % 256) for i in range(3 * samples)]
            grid(cells, samples).save(folder / "samples" / f"step-{step:06d}.png")
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text if finished else text + '{"step": 26, "lo')
    session = {
        "date": "2026-01-02T03:04:05+00:00", "command": "scm-distill train mine.yaml", "step": 0,
        "versions": {"torch": "2.6.0"}, "platform": "Linux", "devices": ["A100", "A100"], "processes": 2,
    }  # fmt: skip
    (folder / "env.json").write_text(json.dumps({"version": 1, "sessions": [session, {**session, "step": 20}]}))
    if finished:
        export(folder / "export")
    return folder


def export(folder: Path) -> None:
    """What the report reads of an export."""
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    search = [{"t_mid": t, "distance": 0.2 + (t - 0.9) ** 2} for t in (0.6, 0.9, 1.2)]
    (folder / "t_mid_search.json").write_text(json.dumps({"version": 1, "chosen": 0.9, "search": search}))
    table = [("teacher, DDIM", 50, 0.19), ("teacher, undistilled", 2, 9.0), ("student", 1, 0.3), ("student", 2, 0.2)]
    trained = {
        "steps": STEPS, "batch_size": 4, "velocity": "teacher", "guidance": 3.0, "teacher_call": {}, "data": "files",
        "samples": 8, "optimizer": "adam", "lr": 1e-4, "precision": "fp32", "seed": 0,
    }  # fmt: skip
    facts = {
        "base_model": f"kitten {HOSTILE}", "hub_id": None, "revision": None, "license": {}, "pipeline": "DDPMPipeline",
        "scheduler": "DDPMScheduler", "modality": "image", "driver": "none", "classes": None,
        "sample_shape": [1, 8, 8], "pixels": True, "trained": trained, "sigma_d": 1.0, "t_max": 1.55, "t_mid": 0.9,
        "prediction_type": "v_prediction", "samples": 1536, "reference": 1536, "difference": 2e-6, "search": search,
        "versions": {}, "example": None, "gallery": [],
        "table": [dict(zip(("sampler", "nfe", "distance"), row, strict=True)) for row in table],
    }  # fmt: skip
    (folder / "scm_distill.json").write_text(
        json.dumps({"version": 1, "call": {"num_inference_steps": 2}, "lora": None, "facts": facts})
    )
    rows = [
        {
            "who": who, "scheduler": f"{who} scheduler", "steps": steps, "nfe": float(steps),
            "ms_per_sample": 0.4 * steps, "metrics": {"fd": fd, "recall": 0.9},
        }
        for who, steps, fd in (("student", 1, 24.0), ("student", 2, 17.0), ("teacher", 2, 1422.0), ("teacher", 50, 16))
    ]  # fmt: skip
    measured = {
        "version": 1, "reference": 512, "guidance": {},
        "date": "2026-01-02T03:04:05+00:00", "teacher": "/home/someone/models/kitten", "data": "/data/secret/cats",
        "n": 512, "seed": 0, "device": "cpu", "dtype": "float32", "versions": {}, "rows": rows,
        "extractor": {"name": "digits", "id": "builtin", "sha256": "0123456789abcdef"},
        "ratios": {"fd": 17 / 16, "nfe": 25.0, "wall_clock": 24.5},
    }  # fmt: skip
    (folder / "eval.json").write_text(json.dumps(measured))
