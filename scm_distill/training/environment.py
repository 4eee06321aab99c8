"""env.json of a run: when, by which command, with which versions and on what each session of it was trained."""

import importlib.metadata
import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from scm_distill import __version__
from scm_distill.config.private import hidden

FILE = "env.json"
PACKAGES = ("torch", "diffusers", "transformers", "accelerate")


def note(folder: Path, step: int, processes: int, device: torch.device) -> None:
    """Add this session, which begins at `step`, to `folder`/env.json. It names no token and no folder."""
    path = folder / FILE
    sessions: list[dict[str, Any]] = json.loads(path.read_text())["sessions"] if path.exists() else []
    sessions.append(
        {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": " ".join(["scm-distill", *map(hidden, sys.argv[1:])]),
            "step": step,
            "versions": {
                "scm-distill": __version__,
                "python": platform.python_version(),
                **{name: importlib.metadata.version(name) for name in PACKAGES},
            },
            "platform": platform.platform(),
            "devices": devices(device, processes),
            "processes": processes,
        }
    )
    beside = path.with_name(FILE + ".writing")
    beside.write_text(json.dumps({"sessions": sessions}, indent=1) + "\n")
    beside.replace(path)


def devices(device: torch.device, processes: int) -> list[str]:
    """The names of the devices that the processes of this machine use."""
    if device.type != "cuda":
        return [f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"]
    if processes == 1:
        return [torch.cuda.get_device_name(device)]
    return [torch.cuda.get_device_name(i) for i in range(min(processes, torch.cuda.device_count()))]
