"""What the commands call: claim the folder, run, and leave nothing behind when a run could not start."""

import importlib.metadata
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging

from scm_distill import __version__, config, teachers
from scm_distill.data.pictures import grid as make_grid
from scm_distill.data.pictures import to_images
from scm_distill.errors import UserError
from scm_distill.evaluation import stock
from scm_distill.export import bundle
from scm_distill.export import student as students
from scm_distill.models.forward_ad import jvp
from scm_distill.training import build, checkpoint, loop, signals
from scm_distill.training.report import Reporter

TEACHER_STEPS = 50

diffusers_logging.disable_progress_bar()
diffusers_logging.set_verbosity_error()


def plan(recipe: config.Recipe) -> dict[str, Any]:
    """What a run would do, from the real teacher and data; nothing is written."""
    parts = build.open_parts(recipe)
    clock = parts.F_teacher.clock
    return {
        "teacher": f"{recipe.teacher.repo}, {parts.teacher.prediction}, {len(clock.phi)} steps",
        "parameters": sum(p.numel() for p in parts.teacher.net.parameters()),
        "sample": " x ".join(map(str, parts.teacher.sample_shape)),
        "times": f"{clock.t_min:.4f} to {parts.t_max:.4f} (t_max)",
        "images": len(parts.images),
        "classes": parts.teacher.classes or "unconditional",
        "steps": recipe.train.steps,
        "epochs": round(recipe.train.steps * recipe.train.batch_size / len(parts.images), 1),
    }


def train(recipe: config.Recipe, folder: Path, resume: str | None, report: Reporter) -> dict[str, Any] | None:
    """Train and export in `folder`; the summary, or None in a worker process. Raises UserError."""
    start = checkpoint.find(resume, folder) if resume else None
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    with _claimed(folder, may_exist=resume is not None):
        _note_changes(recipe, folder, report)
        try:
            trained = loop.run(recipe, folder, start, report)
        except signals.Interrupted as stop:
            report.say(f"{stop}: saved {stop.saved}; to continue, type the same command with --resume auto")
            raise SystemExit(128 + stop.number) from None
        if not trained.main:
            return None
        exported = bundle.write(trained, folder / "export", report)
    return {
        "run": str(folder),
        "export": str(exported.folder),
        "steps": trained.step,
        "t_max": exported.t_max,
        "t_mid": exported.t_mid,
        "table": exported.table,
        "t_mid_search": exported.search,
        "stock_difference": exported.difference,
    }


@contextmanager
def _claimed(folder: Path, *, may_exist: bool) -> Iterator[None]:
    """Make the run folder; take away what was made if the run ends without a checkpoint to keep."""
    if (folder / "config.yaml").exists() and not may_exist:
        raise UserError(
            f"{folder} holds a run already.", "Continue it with --resume auto, or choose another folder with -o."
        )
    made = next((p for p in reversed([folder, *folder.parents]) if not p.exists()), None)
    try:
        for name in ("samples", "checkpoints"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        if made and made.exists():
            shutil.rmtree(made)
        raise UserError(f"{folder} cannot be written: {error.strerror}.", "Choose another folder with -o.") from error
    try:
        yield
    except BaseException:
        if made is not None and not checkpoint.steps_in(folder / "checkpoints"):
            shutil.rmtree(made, ignore_errors=True)
        raise


def _note_changes(recipe: config.Recipe, folder: Path, report: Reporter) -> None:
    """Write config.yaml; say which settings differ from the run's earlier ones."""
    path = folder / "config.yaml"
    if path.exists():
        changed = config.differences(config.read(str(path)), recipe)
        if changed:
            report.say("settings changed since this run began: " + ", ".join(changed))
    path.write_text(config.dump(recipe))


def sample(
    model: str,
    *,
    n: int,
    seed: int,
    steps: int,
    classes: str | None,
    grid: bool,
    compare: str | None,
    out: Path | None,
) -> dict[str, Any]:
    """Draw `n` images and write them; the summary. Raises UserError."""
    student = students.load(model)
    student.times(steps)
    labels = _labels(classes, student.pipeline.classes, n)
    teacher = teachers.load(compare) if compare else None
    if teacher and (teacher.sample_shape, teacher.classes) != (student.pipeline.sample_shape, student.pipeline.classes):
        raise UserError(f"{compare} makes other images than {model}.", "Give the teacher that this student came from.")
    folder = out or (Path(model) / "samples" if (Path(model) / "config.yaml").is_file() else Path("samples"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}.", "Choose another folder with -o.") from error
    seeds, cond = range(seed, seed + n), student.pipeline.cond(labels)
    student.sample(seeds[:1], steps, {k: v[:1] for k, v in cond.items()})  # the first call pays for allocations
    begin = time.perf_counter()
    x_0 = student.sample(seeds, steps, cond)
    summary: dict[str, Any] = {
        "folder": str(folder),
        "student": {"steps": steps, "ms_per_image": 1000 * (time.perf_counter() - begin) / n},
    }
    images = to_images(x_0)
    for i, image in zip(seeds, images, strict=True):
        image.save(folder / f"seed-{i:05d}.png")
    sheets = [images]
    if teacher:
        eps = stock.seeded_noise(seeds, teacher.sample_shape, 1)[0]
        begin = time.perf_counter()
        x_0 = stock.ddim(teacher.net, teacher.scheduler, eps, cond, TEACHER_STEPS)
        summary["teacher"] = {"steps": TEACHER_STEPS, "ms_per_image": 1000 * (time.perf_counter() - begin) / n}
        sheets.append(to_images(x_0))
        for i, image in zip(seeds, sheets[1], strict=True):
            image.save(folder / f"seed-{i:05d}-teacher.png")
    if grid:
        summary["grid"] = str(folder / "grid.png")
        _sheet(sheets, min(n, 8)).save(folder / "grid.png")
    return summary


def _sheet(sheets: list[list[Any]], columns: int) -> Any:
    """One grid per sheet, side by side with a gap: the student's, then the teacher's."""
    from PIL import Image

    grids = [make_grid(images, columns) for images in sheets]
    gap = grids[0].width // 32
    whole = Image.new("RGB", (sum(g.width for g in grids) + gap * (len(grids) - 1), grids[0].height), "white")
    for i, picture in enumerate(grids):
        whole.paste(picture, (i * (picture.width + gap), 0))
    return whole


def _labels(classes: str | None, known: int | None, n: int) -> torch.Tensor | None:
    if known is None:
        if classes is not None:
            raise UserError("This student is unconditional: it has no classes.", "Leave --classes away.")
        return None
    chosen: list[int] = []
    for part in (classes or f"0-{known - 1}").split(","):
        first, dash, last = part.partition("-")
        if not first.strip().isdigit() or (dash and not last.strip().isdigit()):
            raise UserError(f"--classes {classes!r} is no list of classes.", "Write for example 0-9 or 1,3,7.")
        chosen += range(int(first), int(last or first) + 1)
    if not chosen or max(chosen) >= known:
        raise UserError(f"--classes {classes!r} leaves the model's classes, 0 to {known - 1}.", "Choose among them.")
    return torch.tensor([chosen[i % len(chosen)] for i in range(n)])


def doctor() -> dict[str, Any]:
    """Versions, devices, and one exact derivative through attention on each."""
    facts: dict[str, Any] = {"scm-distill": __version__, "python": platform.python_version()}
    for name in ("torch", "diffusers", "accelerate", "safetensors", "huggingface-hub", "datasets"):
        facts[name] = importlib.metadata.version(name)
    facts["threads"] = torch.get_num_threads()
    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    for device in devices:
        name = platform.processor() or platform.machine() if device == "cpu" else torch.cuda.get_device_name(device)
        facts[device] = f"{name}; exact tangent off by {_tangent_error(device):.1e}"
    return facts


def _tangent_error(device: str) -> float:
    """Relative error of the JVP of attention against the derivative of its formula, float64, by central difference."""
    g = torch.Generator().manual_seed(0)
    x, dx = (torch.randn(1, 2, 5, 3, generator=g, dtype=torch.float64).to(device) for _ in range(2))

    def f(q: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, q.flip(-2), q)

    _, tangent = jvp(f, (x,), (dx,))
    expected = (f(x + 1e-5 * dx) - f(x - 1e-5 * dx)) / 2e-5
    return float((tangent - expected).norm() / expected.norm())
