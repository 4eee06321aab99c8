"""Whole runs through the public functions, in small sizes: digits, families of the zoo, every setting of train.*."""

import contextlib
import functools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from gpu.notes import Notes

# A run of seconds on the digits: no fit, no search, the tangent at full weight from the first step on.
SHORT: dict[str, Any] = {
    "adapt.prefit_steps": 0, "adapt.smooth_time": 20, "adapt.reclock": False, "objective.warmup_steps": 0,
    "train.batch_size": 32, "train.evaluate_samples": 8, "train.stop_if_worse": False,
    "sampler.teacher_steps": 3, "export.samples": 16, "export.t_mid": [1.1],
}  # fmt: skip
SAME = {"fp32": 1e-3, "bf16": 5e-2}  # relative, of a loss on the GPU and on the CPU
FAMILIES = ("sd15", "dit", "sd3", "flux", "wan", "stable_audio")
WAITS = ("dit", "sd15", "wan22")  # families whose step is watched for waiting, beside the digits

# What each setting of train.* is set to, once at least: in one run where settings have nothing to do with each other.
TOGETHER: dict[str, Any] = {
    "micro_batch_size": 8, "seed": 3, "threads": 2, "ema_std": 0.1, "checkpoint_every": 5, "keep_checkpoints": 1,
    "evaluate_every": 5, "evaluate_samples": 16, "stop_if_worse": False, "batch_size": 16,
}  # fmt: skip
ALONE: tuple[dict[str, Any], ...] = (
    {"precision": "bf16"}, {"tf32": True}, {"memory": "lean"}, {"memory": "fast"}, {"device": "cpu"},
    {"offload": ["teacher"]}, {"offload": ["ema"]}, {"offload": ["teacher", "ema"]},
)  # fmt: skip
REFUSED: tuple[dict[str, Any], ...] = ({"shard": "student"}, {"shard": "all"})  # in one process: that is all there is
COMPILED: dict[str, tuple[dict[str, Any], ...]] = {
    "blocks": ({"compile": "blocks"},),
    "step": ({"compile": "step"}, {"compile": "blocks", "precision": "bf16"}),
}


def train(notes: Notes, name: str, changes: Mapping[str, Any], recipe: Any = "digits") -> Any:
    """A run in the stage's folder, on its device; returns its result. In toys "digits" has a tiny teacher."""
    from scm_distill import read_recipe, train

    settings = {"train.device": "cpu"} if notes.device == "cpu" else {}
    if notes.toy and recipe == "digits":
        from zoo import unconditional  # alone: to import every family takes seconds

        settings["teacher.repo"] = str(notes.folder / "teacher")
        if not (notes.folder / "teacher").exists():
            unconditional.ddpm().save_pretrained(settings["teacher.repo"])
    return train(read_recipe(recipe, {**settings, **changes}), out=notes.folder / name)


def lines(folder: Path) -> list[Any]:
    """The steps of a run's metrics."""
    from scm_distill.artifacts.run_records import read_metrics

    return list(read_metrics(folder / "metrics.jsonl").steps)


def digits(notes: Notes) -> None:
    """Five steps in fp32 and bf16 without a pre-fit, beside the losses of the CPU."""
    steps = {**SHORT, "train.steps": 5, "train.evaluate_every": 5}
    for precision, tolerance in SAME.items():
        run = {**steps, "train.precision": precision}
        train(notes, f"{precision}-cpu", {**run, "train.device": "cpu"})
        train(notes, precision, run)
        pairs = list(zip(lines(notes.folder / precision), lines(notes.folder / f"{precision}-cpu"), strict=True))
        for key in ("loss", "grad_norm"):
            off = [abs(getattr(a, key) - getattr(b, key)) / abs(getattr(b, key)) for a, b in pairs]
            notes.put(f"{precision}, {key}, largest difference", float(f"{max(off):.1e}"))
            if key == "loss":
                notes.put(f"{precision}, losses", [[round(x.loss, 6) for x in pair] for pair in pairs])
                ok = all(d <= tolerance for d in off)  # NaN is not
                notes.expect(ok, f"{precision}: a loss differs from the CPU's by {max(off):.1e}, allowed {tolerance}")


def family(notes: Notes, name: str, changes: Mapping[str, Any]) -> Any:
    """A run on a tiny pipeline of this family."""
    import zoo

    made, folder = zoo.load_all()[name], notes.folder / f"{name}-teacher"
    if not folder.exists():
        made.pipeline().save_pretrained(str(folder))
    (notes.folder / "prompts.txt").write_text("a cat\na dog\n")
    recipe: dict[str, Any] = {
        "teacher": {"repo": str(folder), "call": made.call},
        "data": {"source": "teacher", "samples": 4},
        "guidance": {"scale": 3.0},
        "objective": {"warmup_steps": 0, "tangent": "jvp"},
        "adapt": {"prefit_steps": 2, "smooth_time": 20},
        "train": {"steps": 3, "batch_size": 2, "evaluate_samples": 2, "evaluate_every": 3, "stop_if_worse": False},
        "sampler": {"teacher_steps": 2},
        "export": {"t_mid": [1.1], "samples": 2},
    }
    if made.conditions == "prompt":
        recipe["data"]["prompts"] = str(notes.folder / "prompts.txt")
    return train(notes, f"{name}-{len(list(notes.folder.iterdir()))}", changes, recipe)


def families(notes: Notes) -> None:
    """Three bf16 steps of each family; stock diffusers then gives the student's own two-step samples."""
    from scm_distill.export.bundle import TOLERANCE

    for name in FAMILIES[:: 3 if notes.toy else 1]:
        with reported(notes, name):
            result = family(notes, name, {"train.precision": "bf16"})
            notes.put(name, {"stock difference": float(f"{result.stock_difference:.1e}")})
            notes.expect(result.stock_difference <= TOLERANCE, f"{name}: export off by {result.stock_difference:.1e}")


@contextlib.contextmanager
def reported(notes: Notes, name: str) -> Iterator[None]:
    """An error within it is a failure of `name`, and what follows goes on."""
    import traceback

    try:
        yield
    except Exception as error:  # each case of a stage fails by itself
        traceback.print_exc()
        notes.expect(False, " ".join(f"{name}: {type(error).__name__}: {error}".split())[:300])


def options(notes: Notes) -> None:
    """Ten steps with every setting of train.* but compile, which has a stage of its own."""
    cases = (TOGETHER, *ALONE)
    for changes in cases[:: 4 if notes.toy else 1]:
        _option(notes, changes)
    for changes in REFUSED:
        _refused(notes, changes)


def compile_step(notes: Notes) -> None:
    """Ten steps with a compiled pass, and in bf16 with compiled blocks."""
    for changes in COMPILED["step"][: 1 if notes.toy else None]:
        _option(notes, changes)


def compile_blocks(notes: Notes) -> None:
    """Ten steps with compiled blocks; a UNet with cross-attention too, which has blocks of many kinds."""
    for changes in COMPILED["blocks"]:
        _option(notes, changes)
    if not notes.toy:
        with reported(notes, "sd15, compile=blocks"):
            family(notes, "sd15", {"train.compile": "blocks", "train.precision": "bf16"})
            notes.put("sd15, compile=blocks", True)


def _option(notes: Notes, changes: Mapping[str, Any]) -> None:
    name = ", ".join(f"{key}={value}" for key, value in changes.items())
    here = {**SHORT, "train.steps": 10, "train.evaluate_every": 10}
    with reported(notes, name):
        result = train(
            notes,
            f"option-{len(notes.figures) + len(notes.failures)}",
            {**here, **{f"train.{k}": v for k, v in changes.items()}},
        )
        losses = [line.loss for line in lines(result.run)]
        notes.put(name, round(losses[-1], 4))
        notes.expect(len(losses) == 10 and all(map(math.isfinite, losses)), f"{name}: losses {losses}")


def _refused(notes: Notes, changes: Mapping[str, Any]) -> None:
    from scm_distill import UserError

    name = ", ".join(f"{key}={value}" for key, value in changes.items())
    try:
        train(notes, "refused", {**SHORT, "train.steps": 10, **{f"train.{k}": v for k, v in changes.items()}})
    except UserError as error:
        notes.put(name, f"refused: {error.problem}")
        notes.expect("several processes" in error.problem, f"{name}: {error.problem}")
    else:
        notes.expect(False, f"{name}: not refused in one process")


def sync(notes: Notes) -> None:
    """Steps under PyTorch's own watch: what waits for the device raises. The first may wait: it makes the moments."""
    from scm_distill.training.run import Run

    step = Run._step
    watched = 0

    @functools.wraps(step)
    def watch(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal watched
        first = self.step < 1
        torch.cuda.set_sync_debug_mode("default" if first else "error")
        try:
            step(self, *args, **kwargs)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        watched += not first

    Run._step = watch
    for precision in ("fp32", "bf16"):
        run = {**SHORT, "train.steps": 4, "train.evaluate_every": 4, "train.precision": precision}
        with reported(notes, f"digits, {precision}"):
            train(notes, f"digits-{precision}", run)
    for name in WAITS:
        with reported(notes, name):
            family(notes, name, {"train.precision": "bf16", "train.steps": 4})
    notes.put("steps watched", watched)
    notes.expect(watched == 3 * (2 + len(WAITS)), f"only {watched} steps were watched")


def sample_and_eval(notes: Notes) -> None:
    """Two-step samples and figures of a student in bf16, in pixels and in latents."""
    from scm_distill import evaluate, sample

    device, n = notes.device, 8 if notes.toy else 256
    students = {"digits": train(notes, "digits", {**SHORT, "train.steps": 5, "train.evaluate_every": 5}).run}
    if not notes.toy:
        students["sd3"] = family(notes, "sd3", {}).run
    for name, run in students.items():
        with reported(notes, name):
            k = n if name == "digits" else 8
            file = notes.folder / "prompts.txt" if name == "sd3" else None
            out = notes.folder / f"{name}-samples"
            drawn = sample(run, n=k, dtype="bf16", device=device, out=out, prompts_file=file)
            found = evaluate(run, steps=[1, 2], n=k, dtype="bf16", device=device, prompts=file).record
            rows = {f"{row.who} {row.steps}": row for row in found.rows}
            notes.expect(len(list(drawn.folder.glob("*.png"))) >= k, f"{name}: fewer than {k} pictures")
            finite = all(math.isfinite(row.metrics["fd"]) for row in found.rows)
            notes.expect(finite, f"{name}: a distance is not finite")
            notes.put(
                name,
                {
                    who: {"fd": float(f"{row.metrics['fd']:.4g}"), "ms a sample": round(row.ms_per_sample, 3)}
                    for who, row in rows.items()
                },
            )
