"""Checkpoints `step-N`: accelerate state, EMA and step, written beside and then renamed, so that none is ever half."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from scm_distill.errors import UserError
from scm_distill.models.ema import PowerEMA


def steps_in(folder: Path) -> list[tuple[int, Path]]:
    """The finished checkpoints of a `checkpoints` folder, in the order in which they were written.

    Not by step: a run resumed from an older one leaves later steps behind, which are no longer its newest.
    """
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    found.sort(key=lambda path: path.stat().st_mtime_ns)
    return [(int(path.name.removeprefix("step-")), path) for path in found]


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


def save(accelerator: Accelerator, folder: Path, ema: PowerEMA[Any], state: dict[str, Any], keep: int) -> Path:
    """Write `folder`/step-N for state["step"], then drop all but the newest `keep`."""
    final = folder / f"step-{state['step']}"
    beside = folder / f"writing-step-{state['step']}"
    if accelerator.is_main_process:
        for leftover in folder.glob("writing-*"):
            shutil.rmtree(leftover)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(beside))
    accelerator.wait_for_everyone()  # every process writes its part, and save_state does not wait for them
    if accelerator.is_main_process:
        save_file({k: v.contiguous() for k, v in ema.shadow.items()}, beside / "ema.safetensors")
        (beside / "state.json").write_text(json.dumps(state) + "\n")
        if final.exists():
            shutil.rmtree(final)
        beside.rename(final)
        for _, old in steps_in(folder)[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()
    return final


def load(accelerator: Accelerator, path: Path, ema: PowerEMA[Any]) -> None:
    """Put a checkpoint's weights, optimizer and EMA back. Raises UserError when it does not fit or is damaged."""
    try:
        accelerator.load_state(str(path))
        shadow = load_file(path / "ema.safetensors")
        for name, value in ema.shadow.items():
            value.data.copy_(shadow[name])
    except Exception as error:  # torch, safetensors and accelerate each have errors of their own
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"Checkpoint {path} cannot be loaded: {reason}.", "Resume from an older one.") from error
