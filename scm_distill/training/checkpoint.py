"""Checkpoints `step-N`: safetensors and state.json, which are on disk all together or not at all."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from pydantic import JsonValue
from torch import Tensor, nn

from scm_distill import config, ranks
from scm_distill.artifacts import files, layout
from scm_distill.artifacts.files import Damaged, atomically, read_tensors, save_tensors
from scm_distill.artifacts.run_records import CheckpointState
from scm_distill.errors import UserError
from scm_distill.models.ema import PowerEMA
from scm_distill.models.student import Student
from scm_distill.training.distributed import gather_tensor, local_part

OLDER = CheckpointState.FIX


def steps_in(folder: Path) -> list[tuple[int, Path]]:
    """The finished checkpoints of a `checkpoints` folder, in the order in which they were written.

    Not by step: a run resumed from an older one leaves later steps behind, which are no longer its newest.
    """
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    found.sort(key=_written)
    return [(int(path.name.removeprefix("step-")), path) for path in found]


def _written(path: Path) -> int:
    """When, in ns, as the checkpoint says: a copied folder has other times. Of a damaged one, its folder's time."""
    try:
        return CheckpointState.read(path / layout.STATE).written
    except Damaged:
        return path.stat().st_mtime_ns


def find(resume: str, run: Path) -> Path | None:
    """The checkpoint that --resume means: `auto` is the newest of `run` or None, a path is that or its newest.

    Raises UserError when a path holds no checkpoint: nothing starts anew in silence.
    """
    if resume == "auto":
        found = steps_in(run / layout.CHECKPOINTS)
        return found[-1][1] if found else None
    path = Path(resume).expanduser()
    if (path / layout.STATE).exists():
        return path
    for folder in (path / layout.CHECKPOINTS, path):
        if found := steps_in(folder):
            return found[-1][1]
    raise UserError(
        f"There is no checkpoint at {resume}.", "Give a run folder or a checkpoints/step-N folder, or auto."
    )


def read_state(path: Path) -> CheckpointState:
    """state.json of a checkpoint folder. Raises UserError where it is damaged."""
    try:
        return CheckpointState.read(path / layout.STATE)
    except Damaged as error:
        raise UserError(f"Checkpoint {path} is damaged: {layout.STATE} {error.reason}.", error.fix) from error


def state_at(step: int, smooth_time: float, start: Sequence[float], recipe: config.Recipe) -> CheckpointState:
    """state.json of a checkpoint that is written now."""
    return CheckpointState(
        step=step, smooth_time=smooth_time, start=tuple(start), made_with=identity(recipe), written=time.time_ns()
    )


def identity(recipe: config.Recipe) -> dict[str, JsonValue]:
    """The settings that decide what a checkpoint's weights mean, by their keys in the recipe."""
    return {
        "teacher": recipe.teacher.model_dump(mode="json"),
        "objective.sigma_d": recipe.objective.sigma_d,
        "objective.weighting": recipe.objective.weighting,
        "guidance": recipe.guidance.model_dump(mode="json"),
        "adapt.output": recipe.output,
        "adapt.smooth_time": recipe.adapt.smooth_time,
        "lora": None if recipe.lora.rank is None else recipe.lora.model_dump(mode="json"),
    }


def same_student(recipe: config.Recipe, state: CheckpointState, resume: Path | None) -> None:
    """Raises UserError when the checkpoint was made for another student than the recipe's."""
    for key, value in identity(recipe).items():
        if (before := state.made_with.get(key)) != value:
            raise UserError(
                f"{resume} was made with {key}={before}, the recipe says {value}.",
                "Set it back, or start a new run with -o.",
            )


def save(accelerator: Accelerator, folder: Path, tensors: "TrainState", state: CheckpointState, keep: int) -> Path:
    """Write `folder`/step-N, then drop all but the newest `keep`. Every process calls this."""
    final, main = folder / f"step-{state.step}", accelerator.is_main_process
    if main:
        for leftover in folder.glob(f"{files.WRITING}*"):  # of a process that was killed
            files.remove(leftover)
    with atomically(final) if main else nullcontext(final) as beside:
        if main:
            beside.mkdir(parents=True)
        for name, named_tensors in tensors.items():
            found: dict[str, Tensor] = {}
            for key, value in named_tensors():
                value = gather_tensor(value.detach())  # one at a time: a collective where parameters are sharded
                if main:
                    found[key] = value.cpu()
            if main:
                save_tensors(found, beside / f"{name}.safetensors")
            ranks.exchange("writing a checkpoint")  # a slow disk would be the end of a collective that waits for it
        if main:
            state.write(beside / layout.STATE)
    if main:
        for _, old in steps_in(folder)[:-keep]:
            files.remove(old)
    ranks.exchange("writing a checkpoint")
    return final


class TrainState:
    """What a checkpoint holds, whatever the number of processes: student, optimizer and EMA, by parameter name.

    Of student and EMA, what is trained: the rest is read with the teacher.
    """

    def __init__(self, student: Student, optimizer: torch.optim.Optimizer, ema: PowerEMA[Any]) -> None:
        self.student, self.optimizer, self.ema = student, optimizer, ema
        optimizer.register_step_pre_hook(lambda *_: ema.hold())

    def sums(self) -> list[float]:
        """The float64 sum of every parameter that is trained, which shows whether a single entry of it moved.

        The weighting's are left away. A collective where parameters are shared out.
        """
        found = [p for name, p in self._trained(self.student).items() if name.startswith("network.")]
        return torch.stack([gather_tensor(p.detach().sum(dtype=torch.float64)) for p in found]).tolist()

    def items(self) -> Iterator[tuple[str, Callable[[], Iterator[tuple[str, Tensor]]]]]:
        """File name without ending, and its tensors."""
        yield "student", lambda: iter(self._trained(self.student).items())
        yield "optimizer", self._moments
        yield "ema", lambda: iter(self._trained(self.ema.module).items())

    def _trained(self, module: nn.Module) -> dict[str, Tensor]:
        parameters = dict(module.named_parameters())
        return {name: parameters[name] for name in self.student.trained}

    def _moments(self) -> Iterator[tuple[str, Tensor]]:
        for name, p in self.student.named_parameters():
            for kind, value in self.optimizer.state.get(p, {}).items():
                yield f"{name}|{kind}", value

    @torch.no_grad()
    def load(self, path: Path) -> None:
        """Put the checkpoint of the folder `path` back. Raises UserError when it is damaged or of another student."""
        with ranks.together("reading the checkpoint"):
            found = self._read(path)
        for name, module in self._modules().items():
            for key, p in self._trained(module).items():
                p.copy_(local_part(found[name][key], p))
        by_name = dict(self.student.named_parameters())
        for key, value in found["optimizer"].items():
            name, _, kind = key.rpartition("|")
            p = by_name[name]
            if kind != "step":
                self.optimizer.state[p][kind] = local_part(value, p)
            else:  # a fused optimizer counts on the device
                self.optimizer.state[p][kind] = value.to(p.device) if self.optimizer.defaults.get("fused") else value

    def _modules(self) -> dict[str, nn.Module]:
        return {"student": self.student, "ema": self.ema.module}

    def _read(self, path: Path) -> dict[str, dict[str, Tensor]]:
        """The tensors of a checkpoint, each read from its file when it is used. Raises UserError as `load`."""
        try:
            found = {name: read_tensors(path / f"{name}.safetensors") for name, _ in self.items()}
        except Damaged as error:
            raise UserError(f"Checkpoint {path} cannot be loaded: {error.problem}", OLDER) from error
        for name, module in self._modules().items():
            shapes = {key: value.shape for key, value in found[name].items()}
            if shapes != {key: p.shape for key, p in self._trained(module).items()}:
                raise UserError(
                    f"Checkpoint {path} cannot be loaded: {name}.safetensors has other parameters than this student.",
                    OLDER,
                )
        by_name = dict(self.student.named_parameters())
        for key, value in found["optimizer"].items():
            name = key.rpartition("|")[0]
            if name not in by_name or value.shape not in (by_name[name].shape, ()):
                raise UserError(
                    f"Checkpoint {path} cannot be loaded: optimizer.safetensors is not of this student ({key}).", OLDER
                )
        return found
