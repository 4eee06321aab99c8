"""Trains a small DDPM on CIFAR-10, distils it by the command line, and compares teacher and student.

    tests/gpu/cifar.sh photos.zip                   at most three minutes on an H100
    tests/gpu/cifar.sh photos/ --toy --device cpu   the script itself, in small sizes

The pictures lie in class folders, in a folder or a zip. Budgets are in seconds, so that a slower GPU trains less and
takes no longer. DIR/cifar.json gets the figures: Frechet distances to the pictures, on the features of a classifier
that is trained here on the same pictures and on block means and deviations of the pixels, and recall on the features.
Teacher and student start from the same noise. They compare with each other only: nobody else has this classifier.
"""

import argparse
import contextlib
import json
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from gpu import pictures, teacher
from gpu.run import ROOT, driver

SIZE = 32  # pixels a side
LEAST = 64  # samples of each that are compared, however slow the machine is
MOST = 5000
SHARE = 0.5  # of the distillation's seconds that its steps take: a fifth more for the fit, the rest is its start
STEP = 2.6  # training steps of the teacher that one distillation step costs: 7.7 F (tests/README.md) to 3 F


def recipe(args: argparse.Namespace, out: Path, per_step: float) -> dict[str, Any]:
    """Of the distillation: as many steps as fit, by the seconds `per_step` that a training step of the teacher took."""
    steps = args.steps or max(20, int(args.distil_seconds * SHARE / (STEP * per_step)))
    fit = max(10, steps // 2)
    return {
        "teacher": {"repo": str(out / "teacher")},
        "data": {"source": str(out / "data.npz"), "flip": True},
        "objective": {"warmup_steps": steps // 3},
        "adapt": {"prefit_steps": fit, **({"reclock": False, "smooth_time": 20} if args.toy else {"tolerance": 0.07})},
        "optimizer": {"name": "adam", "lr": 2e-4},
        "train": {
            "steps": steps, "batch_size": args.batch, "precision": args.precision, "evaluate_every": steps,
            "checkpoint_every": steps, "evaluate_samples": 32 if args.toy else 256, "stop_if_worse": False,
            **({"device": "cpu"} if args.device == "cpu" else {}),
        },
        "sampler": {"teacher_steps": 4 if args.toy else 20},
        "export": {"samples": 16 if args.toy else 1024, "t_mid": [0.9] if args.toy else [0.7, 0.9, 1.1]},
    }  # fmt: skip


def distil(args: argparse.Namespace, out: Path, per_step: float) -> dict[str, Any]:
    """Run `scm-distill train`; where its budget ends before its steps, it is interrupted, and exports what it has."""
    written = recipe(args, out, per_step)
    (out / "recipe.yaml").write_text(yaml.safe_dump(written))
    command = [sys.executable, "-m", "scm_distill", "train", str(out / "recipe.yaml"), "-o", str(out / "run")]
    begin = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        code = process.wait(args.distil_seconds)
        cut = False
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        cut = True
        with contextlib.suppress(subprocess.TimeoutExpired):  # it has saved a checkpoint by then
            process.wait(60)
        process.kill()
        process.wait()
        at = max((int(p.name[5:]) for p in (out / "run" / "checkpoints").glob("step-*")), default=0)
        if at == 0:
            raise SystemExit("No step was taken in that time: raise --distil-seconds.") from None
        rest = ["--resume", "auto", "-s", f"train.steps={at}"]
        code = subprocess.run([*command, *rest], cwd=ROOT).returncode
    if code:
        raise SystemExit(f"scm-distill train ended with exit code {code}.")
    lines = (out / "run" / "metrics.jsonl").read_text().splitlines()
    taken = max(json.loads(line)["step"] for line in lines)
    facts = {"steps asked for": written["train"]["steps"], "steps": taken, "interrupted": cut}
    return {**facts, "seconds": round(time.monotonic() - begin, 1)}


def samplers(net: Any, out: Path, device: str, half: bool) -> dict[str, Callable[[list[int]], Tensor]]:
    """By name, functions from seeds to pictures (N, 3, H, W) in [-1, 1]; all start from the same noise of a seed."""
    from diffusers import DDPMScheduler, DPMSolverMultistepScheduler

    from scm_distill.sampling import pixel_student, stock_loop

    student = pixel_student.load(str(out / "run"))
    network = student.network.to(device)
    stock: Any = student.pipeline
    ddpm: Any = DDPMScheduler.from_pretrained(str(out / "teacher"), subfolder="scheduler")

    def noise(seeds: list[int], steps: int) -> Tensor:
        return stock_loop.seeded_noise(seeds, stock.sample_shape, steps).to(device)

    @torch.no_grad()
    def drawn(f: Callable[[], Tensor]) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=half):
            x = f().float().clamp(-1, 1)
        return ((x + 1) * 127.5).round() / 127.5 - 1  # as 8-bit pictures

    def dpm(seeds: list[int]) -> Tensor:
        solver: Any = DPMSolverMultistepScheduler.from_config(ddpm.config, algorithm_type="dpmsolver++")
        return drawn(lambda: stock_loop.loop(net, solver, noise(seeds, 1)[0], {}, 25))

    def few(steps: int) -> Callable[[list[int]], Tensor]:
        times = student.times(steps)
        return lambda seeds: drawn(lambda: pixel_student.as_stock_does(network, noise(seeds, steps), times, {}))

    return {
        "teacher, DDIM 50": lambda seeds: drawn(lambda: stock_loop.ddim(net, ddpm, noise(seeds, 1)[0], {}, 50)),
        "teacher, DPM-Solver++ 25": dpm,
        "student, 1 step": few(1),
        "student, 2 steps": few(2),
    }


def compare(
    draw: dict[str, Callable[[list[int]], Tensor]], real: Tensor, body: Any, args: argparse.Namespace
) -> dict[str, Any]:
    """Distances of each sampler, and of one half of the pictures to the other, in as many samples as time allows."""
    from scm_distill.evaluation import metrics

    def features(x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return body(x).float(), metrics.block_features(x)

    def of(pixels: Tensor) -> tuple[Tensor, Tensor]:
        parts = [features(part.float() / 127.5 - 1) for part in pixels.split(500)]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])

    size = LEAST if args.toy else 500
    found: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in draw}
    seconds = dict.fromkeys(draw, 0.0)
    begin, n = time.monotonic(), 0
    while n < LEAST or (n < MOST and (time.monotonic() - begin) * (n + size) / n < args.evaluate_seconds):
        for name, f in draw.items():
            start = time.monotonic()
            x = f(list(range(n, n + size)))
            found[name].append(features(x))
            float(x.sum())  # waits for the device
            seconds[name] += time.monotonic() - start
        n += size
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))
    first, second = (of(real[part.to(real.device)]) for part in order.tensor_split(2))
    whole = tuple(torch.cat(pair) for pair in zip(first, second, strict=True))

    def row(sample: tuple[Tensor, Tensor], reference: tuple[Tensor, Tensor]) -> dict[str, Any]:
        some = torch.randperm(len(reference[0]), generator=torch.Generator().manual_seed(1))[: len(sample[0])]
        subset = reference[0][some.to(real.device)]
        return {
            "features": round(metrics.frechet(reference[0], sample[0]), 4),
            "pixels": round(metrics.frechet(reference[1], sample[1]), 4),
            "recall": round(metrics.recall(subset, sample[0]), 4),
        }

    table = {"real, a half to the other": row((first[0][:n], first[1][:n]), second)}
    for name, parts in found.items():
        sample = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
        table[name] = {**row(sample, whole), "ms a sample": round(1e3 * seconds[name] / n, 3)}
    return {"samples": n, "table": table}


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The command line's, with the defaults of the size."""
    parser = argparse.ArgumentParser(
        prog="tests/gpu/cifar.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", type=Path, help="folder or zip of class folders, 32 x 32 pixels")
    parser.add_argument("--out", type=Path, default=Path("runs/cifar"), help="a new folder (runs/cifar)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--toy", action="store_true", help="small sizes: tries the script, not the product")
    for name, usual, toy, what in BUDGETS:
        parser.add_argument(f"--{name}-seconds", type=float, help=f"{what} ({usual}; {toy} with --toy)")
    parser.add_argument("--prediction", choices=("epsilon", "v_prediction"), default="epsilon", help="of the teacher")
    parser.add_argument("--steps", type=int, help="of the distillation, instead of as many as fit")
    args = parser.parse_args(given)
    for name, usual, toy, _ in BUDGETS:
        if getattr(args, f"{name}_seconds") is None:
            setattr(args, f"{name}_seconds", toy if args.toy else usual)
    args.out = args.out.resolve()
    args.width, args.batch, args.classifier = (8, 16, 4) if args.toy else (96, 256, 32)
    args.precision = "bf16" if args.device == "cuda" else "fp32"
    if args.out.exists():
        raise SystemExit(f"{args.out} exists: remove it, or give another --out.")
    if not args.pictures.exists():
        raise SystemExit(f"There is nothing at {args.pictures}: give a folder or zip of class folders.")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("PyTorch sees no CUDA device: --device cpu --toy tries the script without one.")
    return args


BUDGETS = (  # name, seconds, seconds of a toy
    ("classifier", 8.0, 2.0, "training of the classifier"),
    ("teacher", 50.0, 3.0, "training of the teacher"),
    ("distil", 70.0, 600.0, "`scm-distill train`, its start included"),
    ("evaluate", 18.0, 1.0, "drawing samples"),
)


def main(given: Sequence[str]) -> int:
    """All of it; 0, or SystemExit with a sentence."""
    args = arguments(given)
    begin, out, device = time.monotonic(), args.out, args.device
    out.mkdir(parents=True)
    images, labels = pictures.read(args.pictures, SIZE)
    if args.toy:  # 8 x 8
        images = images.reshape(len(images), 8, SIZE // 8, 8, SIZE // 8, 3).mean((2, 4)).astype(np.uint8)
    np.savez(out / "data.npz", images=images, labels=labels)
    pixels, classes = pictures.as_tensor(images, device), torch.from_numpy(labels).to(device)
    generator = torch.Generator(device).manual_seed(0)
    batches = pictures.Batches(pixels, classes, args.batch, generator)
    print(f"{len(pixels)} pictures of {int(classes.max()) + 1} classes", flush=True)
    body, classified = pictures.trained_classifier(
        batches, args.classifier, int(classes.max()) + 1, args.classifier_seconds
    )
    print("classifier", classified, flush=True)
    net, taught = teacher.train(batches, out / "teacher", args.width, args.teacher_seconds, args.prediction)
    print("teacher", taught, flush=True)
    distilled = distil(args, out, args.batch / taught["pictures a second"])
    print("distilled", distilled, flush=True)
    result = compare(samplers(net, out, device, device == "cuda"), pixels, body, args)
    name = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}, cpu"
    table = result["table"]
    best = min(("teacher, DDIM 50", "teacher, DPM-Solver++ 25"), key=lambda who: table[who]["features"])
    figures = {
        "date": date.today().isoformat(), "device": name, "driver": driver(), "toy": args.toy,
        "versions": {package: version(package) for package in ("torch", "diffusers")}, "pictures": len(pixels),
        "classifier": classified, "teacher": taught, "distillation": distilled, **result, "best teacher": best,
        "two steps to the best teacher": {
            key: round(table["student, 2 steps"][key] / table[best][key], 3) for key in ("features", "pixels")
        },
        "seconds": round(time.monotonic() - begin, 1),
    }  # fmt: skip
    (out / "cifar.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(f"\n{'':28}{'features':>10}{'pixels':>10}{'recall':>8}")
    for who, line in table.items():
        print(f"{who:28}{line['features']:10.3f}{line['pixels']:10.3f}{line['recall']:8.3f}")
    print(f"{result['samples']} samples of each, {figures['seconds']} s, {out}/cifar.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
