"""What `sample` calls: draw, time, write pictures."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from scm_distill import teachers
from scm_distill.cli import stock_drawing
from scm_distill.cli.folders import claimed
from scm_distill.data.pictures import grid as make_grid
from scm_distill.data.pictures import to_images
from scm_distill.errors import UserError
from scm_distill.evaluation import stock
from scm_distill.export import student as students
from scm_distill.models.student import in_chunks

CHUNK = 64  # images at a time; no image depends on it


def sample(
    model: str,
    *,
    n: int,
    seed: int,
    steps: int,
    classes: str | None,
    prompts: list[str],
    grid: bool,
    compare: str | None,
    out: Path | None,
) -> dict[str, Any]:
    """Draw `n` samples and write them; the summary. Raises UserError."""
    folder = out or (Path(model) / "samples" if (Path(model) / "config.yaml").is_file() else Path("samples"))
    if (call := stock_drawing.call_of(students.locate(model))) is not None:
        return stock_drawing.sample(
            students.locate(model), call, prompts=prompts, classes=_classes(classes) if classes else [], n=n, seed=seed,
            steps=steps, make_grid=grid, compare=compare, out=folder,
        )  # fmt: skip
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    student = students.load(model)
    if prompts:
        raise UserError("This student takes no prompts.", "Leave --prompt away.")
    student.times(steps)
    student.network.to(device)
    student.network.chunk = CHUNK
    labels = _labels(classes, student.pipeline.classes, n)
    cond = {k: v.to(device) for k, v in student.pipeline.cond(labels).items()}
    teacher = teachers.load(compare) if compare else None
    if teacher and (teacher.sample_shape, teacher.classes) != (student.pipeline.sample_shape, student.pipeline.classes):
        raise UserError(f"{compare} makes other images than {model}.", "Give the teacher that this student came from.")

    def of_student(seeds: range, cond: dict[str, Tensor]) -> Tensor:
        return student.sample(seeds, steps, cond)

    def of_teacher(seeds: range, cond: dict[str, Tensor]) -> Tensor:
        assert teacher
        net, scheduler = teacher.net.to(device), teacher.scheduler
        eps = stock.seeded_noise(seeds, teacher.sample_shape, 1)[0].to(device)
        return in_chunks(lambda x, c: stock.ddim(net, scheduler, x, c, stock.TEACHER_STEPS), CHUNK, eps, cond=cond)

    seeds, sheets = range(seed, seed + n), []
    summary: dict[str, Any] = {"folder": str(folder)}
    with claimed(folder):
        for who, draw, count in (("student", of_student, steps), ("teacher", of_teacher, stock.TEACHER_STEPS)):
            if who == "teacher" and teacher is None:
                continue
            images, ms = _draw(draw, seeds, cond)
            summary[who] = {"steps": count, "ms_per_image": ms}
            sheets.append(images)
            for i, image in zip(seeds, images, strict=True):
                image.save(folder / f"seed-{i:05d}{'' if who == 'student' else '-teacher'}.png")
        if grid:
            summary["grid"] = str(folder / "grid.png")
            _side_by_side([make_grid(images, min(n, 8)) for images in sheets]).save(folder / "grid.png")
    return summary


def _draw(
    draw: Callable[[range, dict[str, Tensor]], Tensor], seeds: range, cond: dict[str, Tensor]
) -> tuple[list[Image.Image], float]:
    """The images of `seeds`, and milliseconds per image after a first call that pays for allocations."""
    draw(seeds[:1], {k: v[:1] for k, v in cond.items()})
    begin = time.perf_counter()
    x_0 = draw(seeds, cond).cpu()
    return to_images(x_0), 1000 * (time.perf_counter() - begin) / len(seeds)


def _side_by_side(grids: list[Image.Image]) -> Image.Image:
    """The student's grid, then the teacher's, with a gap."""
    gap = grids[0].width // 32
    whole = Image.new("RGB", (sum(g.width for g in grids) + gap * (len(grids) - 1), grids[0].height), "white")
    for i, picture in enumerate(grids):
        whole.paste(picture, (i * (picture.width + gap), 0))
    return whole


def _classes(classes: str) -> list[int]:
    chosen: list[int] = []
    for part in classes.split(","):
        first, dash, last = part.partition("-")
        if not first.strip().isdigit() or (dash and not last.strip().isdigit()):
            raise UserError(f"--classes {classes!r} is no list of classes.", "Write for example 0-9 or 1,3,7.")
        chosen += range(int(first), int(last or first) + 1)
    return chosen


def _labels(classes: str | None, known: int | None, n: int) -> Tensor | None:
    if known is None:
        if classes is not None:
            raise UserError("This student is unconditional: it has no classes.", "Leave --classes away.")
        return None
    chosen = _classes(classes or f"0-{known - 1}")
    if not chosen or max(chosen) >= known:
        raise UserError(f"--classes {classes!r} leaves the model's classes, 0 to {known - 1}.", "Choose among them.")
    return torch.tensor([chosen[i % len(chosen)] for i in range(n)])
