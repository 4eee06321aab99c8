"""What a run writes down: metrics.jsonl and previews."""

import json
from collections import deque
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from scm_distill.artifacts.layout import BUCKETS
from scm_distill.data.pictures import grid
from scm_distill.objectives import Loss


class Records:
    """The files of one run folder; a process that is not the main one writes nothing."""

    def __init__(self, folder: Path, step: int, *, main: bool) -> None:
        self.folder, self.main = folder, main
        self.metrics = folder / "metrics.jsonl"
        if main and self.metrics.exists():  # lines that a resumed run writes again, or of a torn write
            kept = [line for line in self.metrics.read_text().splitlines() if _stays(line, step)]
            self.metrics.write_text("".join(line + "\n" for line in kept))

    def write(self, line: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        if self.main:
            with self.metrics.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def preview(self, step: int, rows: list[list[Image.Image]]) -> None:
        """Save samples/step-N.png, if there is anything to be seen."""
        if self.main and rows[0]:
            images = [image for row in rows for image in row]
            grid(images, len(images) // len(rows)).save(self.folder / "samples" / f"step-{step:06d}.png")


COLUMNS = ("loss", "grad_norm", "signal", "t", "tangent", "derivative", "gap")


def columns_of(losses: list[Loss], grad_norm: Tensor, signal: float) -> Tensor:
    """The figures of all micro-batches of a process, (B, len(COLUMNS)): of the step, of its process, of each sample."""
    t = torch.cat([x.t for x in losses]).float()
    loss = torch.stack([x.total for x in losses]).mean().float()
    kinds = ([x.tangent_norm for x in losses], [x.derivative_norm for x in losses], [x.teacher_gap for x in losses])
    per_sample = [torch.cat(parts).float() for parts in kinds]
    of_step = [loss.expand_as(t), grad_norm.float().expand_as(t), torch.full_like(t, signal)]
    return torch.stack([*of_step, t, *per_sample], 1)


def line_of(figures: Tensor) -> tuple[dict[str, Any], int]:
    """A line of metrics out of the rows of `columns_of` of all processes, and the signal that any of them got."""
    columns = dict(zip(COLUMNS, figures.T.contiguous(), strict=True))
    line = {"loss": float(columns["loss"].mean()), "grad_norm": float(columns["grad_norm"][0])}
    return {**line, **buckets(columns)}, int(columns["signal"].max())


def buckets(columns: dict[str, Tensor]) -> dict[str, list[float | None]]:
    """The mean of each column in four buckets of t; None where a bucket is empty."""
    bucket = torch.bucketize(columns["t"], torch.tensor(BUCKETS, device=columns["t"].device))
    result: dict[str, list[float | None]] = {}
    for name in ("tangent", "derivative", "gap"):
        parts = [columns[name][bucket == i] for i in range(len(BUCKETS) + 1)]
        result[name] = [round(float(part.mean()), 6) if len(part) else None for part in parts]
    return result


def _stays(line: str, step: int) -> bool:
    """Whether a run resumed at `step` leaves this line: its steps up to there, its evaluations before it."""
    try:
        content = json.loads(line)
    except ValueError:
        return False
    return bool(content["step"] < step or (content["step"] == step and "student" not in content))


class DeferredMetrics:
    """Tensors of the last steps on their way to the host. Reading the oldest waits for no later step."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def put(self, step: int, figures: Tensor) -> None:
        """Start the copy of a step's figures."""
        copied = figures.detach().to("cpu", non_blocking=True)
        event = None
        if figures.is_cuda:
            event = torch.cuda.Event()
            event.record()
        self.waiting.append((step, copied, event))

    def take(self) -> tuple[int, Tensor]:
        """The oldest step and its figures."""
        step, figures, event = self.waiting.popleft()
        if event is not None:
            event.synchronize()
        return step, figures

    def __len__(self) -> int:
        return len(self.waiting)
