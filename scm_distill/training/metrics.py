"""What a run writes down while it trains: metrics.jsonl and previews."""

from collections import deque
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from scm_distill.artifacts import files, layout
from scm_distill.artifacts.files import atomically
from scm_distill.artifacts.run_records import BUCKETS, Buckets, EvaluationLine, StepLine, read_metrics
from scm_distill.data.pictures import grid
from scm_distill.objectives import Loss
from scm_distill.progress import Reporter


class Records:
    """The files of one run folder; a process that is not the main one writes nothing.

    Of an earlier session, what was written after `step`, where this one begins, is taken out; so is a line that is
    torn or not of metrics, and `report` hears of it. Raises UserError where metrics.jsonl cannot be read.
    """

    def __init__(self, folder: Path, step: int, report: Reporter, *, main: bool) -> None:
        self.folder, self.main = folder, main
        self.metrics = folder / layout.METRICS
        if main and self.metrics.exists():
            found = read_metrics(self.metrics, lambda line: _stays(line, step))
            for text in found.passed_over:
                report.say(f"metrics: {text}; it is left out")
            lines: list[StepLine | EvaluationLine] = [*found.steps, *found.evaluations]
            lines.sort(key=lambda line: line.step)  # stable: a step, then its evaluation
            files.write_text(self.metrics, "".join(line.line() + "\n" for line in lines))

    def write(self, line: StepLine | EvaluationLine) -> None:
        """Append one line to metrics.jsonl."""
        if self.main:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(line.line() + "\n")

    def preview(self, step: int, rows: list[list[Image.Image]]) -> None:
        """Save samples/step-N.png from rows of as many pictures each; none where the rows are empty."""
        if self.main and rows[0]:
            images = [image for row in rows for image in row]
            with atomically(self.folder / layout.PREVIEWS / f"step-{step:06d}.png") as beside:
                grid(images, len(images) // len(rows)).save(beside)


def _stays(line: StepLine | EvaluationLine, step: int) -> bool:
    """Whether a run resumed at `step` leaves this line: its steps up to there, its evaluations before it."""
    return line.step < step or (line.step == step and isinstance(line, StepLine))


COLUMNS = ("loss", "grad_norm", "signal", "t", "tangent", "derivative", "gap")


def columns_of(losses: list[Loss], grad_norm: Tensor, signal: float) -> Tensor:
    """The figures of all micro-batches of a process, (B, len(COLUMNS)): of the step, of its process, of each sample."""
    t = torch.cat([x.t for x in losses]).float()
    loss = torch.stack([x.total for x in losses]).mean().float()
    kinds = ([x.tangent_norm for x in losses], [x.derivative_norm for x in losses], [x.teacher_gap for x in losses])
    per_sample = [torch.cat(parts).float() for parts in kinds]
    of_step = [loss.expand_as(t), grad_norm.float().expand_as(t), torch.full_like(t, signal)]
    return torch.stack([*of_step, t, *per_sample], 1)


def line_of(step: int, lr: float, figures: Tensor) -> tuple[StepLine, int]:
    """The line of a step out of the rows of `columns_of` of all processes (N, len(COLUMNS)).

    Also the number of the signal that any of the processes got during the step; 0 for none.
    """
    columns = dict(zip(COLUMNS, figures.T.contiguous(), strict=True))
    line = StepLine(
        step=step, loss=float(columns["loss"].mean()), grad_norm=float(columns["grad_norm"][0]), lr=lr,
        **buckets(columns),
    )  # fmt: skip
    return line, int(columns["signal"].max())


def buckets(columns: dict[str, Tensor]) -> dict[str, Buckets]:
    """The mean of each of these columns (N,) in four buckets of t; None where a bucket is empty."""
    bucket = torch.bucketize(columns["t"], torch.tensor(BUCKETS, device=columns["t"].device))
    result: dict[str, Buckets] = {}
    for name in ("tangent", "derivative", "gap"):
        parts = [columns[name][bucket == i] for i in range(len(BUCKETS) + 1)]
        result[name] = tuple(round(float(part.mean()), 6) if len(part) else None for part in parts)
    return result


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
