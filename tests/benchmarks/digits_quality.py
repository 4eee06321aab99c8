"""Quality of the digits student against its teacher: `python tests/benchmarks/digits_quality.py RUN... [--json FILE]`.

Frechet distance on the features of the packaged digit classifier and on raw pixels, against all 1797 real digits, and
recall. The teacher is sampled by stock diffusers' DDIM and DPM-Solver++, the students by stock diffusers in 1 and 2
steps, all from the same seeds. At n = 1536 the distance still moves by 15 % from one set of seeds to the next.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, DPMSolverMultistepScheduler
from torch import Tensor

from scm_distill.artifacts.files import sha256_of
from scm_distill.builtin import classifier
from scm_distill.evaluation.metrics import frechet, recall

ROOT = Path(__file__).parents[2] / "scm_distill" / "builtin" / "digits"


@torch.no_grad()
def sample(pipeline: DiffusionPipeline, n: int, steps: int) -> tuple[Tensor, float]:
    """Samples of the stock call (N, 1, 8, 8) in [-1, 1], and milliseconds per image."""
    pipeline.set_progress_bar_config(disable=True)
    begin = time.perf_counter()
    images = [
        pipeline(
            batch_size=256, num_inference_steps=steps, generator=torch.Generator().manual_seed(i), output_type="np"
        ).images
        for i in range(n // 256)
    ]
    elapsed = time.perf_counter() - begin
    return torch.from_numpy(np.concatenate(images)).permute(0, 3, 1, 2) * 2 - 1, 1000 * elapsed / n


def main() -> None:
    """Print one row per sampler."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("-n", type=int, default=6144)
    parser.add_argument("--teacher", default=str(ROOT / "teacher"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    data = np.load(ROOT / "data.npz")
    real = torch.from_numpy(data["images"]).float()[:, None] / 127.5 - 1
    net = classifier.trained()["body"]

    rows: list[dict[str, float | str | int]] = []

    def add(name: str, steps: int, images: Tensor, ms: float) -> None:
        with torch.no_grad():
            a, b = net(real), net(images)
        row = {
            "sampler": name, "steps": steps, "n": len(images), "FD": round(frechet(a, b), 2),
            "pixel FD": round(frechet(real.flatten(1), images.flatten(1)), 4), "recall": round(recall(a, b), 3),
            "ms per image": round(ms, 3),
        }  # fmt: skip
        rows.append(row)
        print(json.dumps(row), flush=True)

    teacher = DiffusionPipeline.from_pretrained(args.teacher)
    native = teacher.scheduler.config
    for kind, counts in ((DPMSolverMultistepScheduler, (50,)), (DDIMScheduler, (50, 8, 4, 2))):
        teacher.scheduler = kind.from_config(native)
        for steps in counts:
            add(f"teacher, {kind.__name__}", steps, *sample(teacher, args.n, steps))
    for run in args.runs:
        student = DiffusionPipeline.from_pretrained(run / "export" if (run / "export").is_dir() else run)
        for steps in (1, 2):
            add(f"student, {run.name}", steps, *sample(student, args.n, steps))
    result = {
        "date": time.strftime("%Y-%m-%d"), "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__, "diffusers": diffusers.__version__,
        "classifier": sha256_of(classifier.WEIGHTS), "rows": rows,
    }  # fmt: skip
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
