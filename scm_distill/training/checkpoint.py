"""Checkpoints `step-N`: safetensors and a JSON file, written beside and then renamed, so that none is ever half."""

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scm_distill import config
from scm_distill.errors import UserError, one_line
from scm_distill.models.ema import PowerEMA
from scm_distill.models.student import Student
from scm_distill.training.distributed import gather_tensor, local_part


def steps_in(folder: Path) -> list[tuple[int, Path]]:
    """The finished checkpoints of a `checkpoints` folder, in the order in which they were written.

    Not by step: a run resumed from an older one leaves later steps behind, which are no longer its newest.
    """
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    found.sort(key=_written)
    return [(int(path.name.removeprefix("step-")), path) for path in found]


def _written(path: Path) -> int:
    """When, in ns, by the checkpoint's own word: a copied folder has other times."""
    try:
        return int(json.loads((path / "state.json").read_text())["written"])
    except (OSError, ValueError, KeyError, TypeError):  # an older one, or a damaged one, which whoever reads it refuses
        return path.stat().st_mtime_ns


def find(resume: str, run: Path) -> Path | None:
    """The checkpoint that --resume means: `auto` is the newest of `run` or None, a path is that or its newest.

    Raises UserError when a path holds no checkpoint: nothing starts anew in silence.
    """
    if resume == "auto":
        found = steps_in(run / "checkpoints")
        return found[-1][1] if found else None
    path = Path(resume).expanduser()
    if (path / "state.json").is_file():
        return path
    for folder in (path / "checkpoints", path):
        if found := steps_in(folder):
            return found[-1][1]
    raise UserError(
        f"There is no checkpoint at {resume}.", "Give a run folder or a checkpoints/step-N folder, or auto."
    )


def read_state(path: Path) -> dict[str, Any]:
    """The small facts of a checkpoint: its step and what adaptation chose."""
    try:
        state = json.loads((path / "state.json").read_text())
        return {key: state[key] for key in ("step", "smooth_time", "start", "made_with")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"Checkpoint {path} is damaged: {error}.", "Resume from an older one.") from error


def identity(recipe: config.Recipe) -> dict[str, Any]:
    """The settings that decide what a checkpoint's weights mean."""
    return {
        "teacher": recipe.teacher.model_dump(mode="json"),
        "objective.sigma_d": recipe.objective.sigma_d,
        "objective.weighting": recipe.objective.weighting,
        "guidance": recipe.guidance.model_dump(mode="json"),
        "adapt.output": recipe.output,
        "adapt.smooth_time": recipe.adapt.smooth_time,
        "lora": None if recipe.lora.rank is None else recipe.lora.model_dump(mode="json"),
    }


def same_student(recipe: config.Recipe, state: dict[str, Any], resume: Path | None) -> None:
    """Raises UserError when the checkpoint was made for another student than the recipe's."""
    for key, value in identity(recipe).items():
        if (before := state["made_with"].get(key)) != value:
            raise UserError(
                f"{resume} was made with {key}={before}, the recipe says {value}.",
                "Set it back, or start a new run with -o.",
            )


def save(accelerator: Accelerator, folder: Path, state: "TrainState", facts: dict[str, Any], keep: int) -> Path:
    """Write `folder`/step-N for facts["step"], then drop all but the newest `keep`. Every process calls this."""
    final = folder / f"step-{facts['step']}"
    beside = folder / f"writing-step-{facts['step']}"
    main = accelerator.is_main_process
    if main:
        for leftover in folder.glob("writing-*"):
            shutil.rmtree(leftover)
        beside.mkdir(parents=True)
    for name, tensors in state.items():
        found: dict[str, Tensor] = {}
        for key, value in tensors():
            value = gather_tensor(value.detach())  # one at a time: a collective where parameters are sharded
            if main:
                found[key] = value.cpu().contiguous()
        if main:
            save_file(found, beside / f"{name}.safetensors")
    if main:
        (beside / "state.json").write_text(json.dumps({**facts, "written": time.time_ns()}) + "\n")
        if final.exists():
            shutil.rmtree(final)
        beside.rename(final)
        for _, old in steps_in(folder)[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()
    return final


class TrainState:
    """What a checkpoint holds, whatever the number of processes: student, optimizer and EMA, by parameter name.

    Of student and EMA, what is trained: the rest is read with the teacher.
    """

    def __init__(self, student: Student, optimizer: torch.optim.Optimizer, ema: PowerEMA[Any]) -> None:
        self.student, self.optimizer, self.ema = student, optimizer, ema

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
        """Put a checkpoint back. Raises UserError when it does not fit or is damaged."""
        try:
            files = {name: load_file(path / f"{name}.safetensors") for name, _ in self.items()}
            for name, module in (("student", self.student), ("ema", self.ema.module)):
                parameters = self._trained(module)
                if files[name].keys() != parameters.keys():
                    raise ValueError(f"{name}.safetensors has other parameters than this student")
                for key, p in parameters.items():
                    p.copy_(local_part(files[name][key], p))
            by_name = dict(self.student.named_parameters())
            for key, value in files["optimizer"].items():
                name, _, kind = key.rpartition("|")
                p = by_name[name]
                if kind != "step":
                    self.optimizer.state[p][kind] = local_part(value, p)
                else:  # a fused optimizer counts on the device
                    self.optimizer.state[p][kind] = (
                        value.to(p.device) if self.optimizer.defaults.get("fused") else value
                    )
        except Exception as error:  # torch and safetensors each have errors of their own
            reason = one_line(error, 300)
            raise UserError(f"Checkpoint {path} cannot be loaded: {reason}.", "Resume from an older one.") from error
