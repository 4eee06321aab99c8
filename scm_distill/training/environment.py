"""env.json of a run: when, by which command, with which versions and on what each session of it was trained."""

import importlib.metadata
import os
import platform
import re
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

from scm_distill import __version__
from scm_distill.artifacts import files, layout, private
from scm_distill.artifacts.files import Damaged
from scm_distill.artifacts.run_records import Environment, Session
from scm_distill.progress import Reporter

COMMAND = "SCM_DISTILL_COMMAND"  # what was typed, in the environment of the processes of --num-processes
PACKAGES = ("torch", "diffusers", "transformers", "accelerate")
SETTING = re.compile(
    rf"(.*?(?:--out|{'|'.join(r'[.]'.join(path) for path in private.PATHS)}|negative_prompt)=)(.*)", re.S
)


def note(
    folder: Path, step: int, processes: int, device: torch.device, report: Reporter, doubts: tuple[str, ...] = ()
) -> None:
    """Add this session, which begins at `step`, to `folder`/env.json. It names no token and no folder.

    `doubts` are sentences about what makes the teacher a poor one.

    A damaged file, which is not worth the run, is set aside as env.json.broken, and `report` hears of it.
    """
    path = folder / layout.ENVIRONMENT
    session = Session(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command(),
        step=step,
        versions={
            "scm-distill": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        platform=platform.platform(),
        devices=tuple(devices(device, processes)),
        processes=processes,
        **({"doubts": doubts} if doubts else {}),
    )
    earlier: tuple[Session, ...] = ()
    if path.exists():
        try:
            earlier = Environment.read(path).sessions
        except Damaged as error:
            aside = path.with_name(path.name + ".broken")
            files.remove(aside)
            path.replace(aside)
            report.say(f"{path.name} {error.reason}: it is now {aside.name}, and begun anew")
    Environment(sessions=(*earlier, session)).write(path)


def command() -> str:
    """What was typed, without tokens and folders."""
    typed = os.environ.get(COMMAND)
    words = shlex.split(typed) if typed else ["scm-distill", *sys.argv[1:]]
    return shlex.join(_shown(word, before) for before, word in zip(["", *words], words, strict=False))


def _shown(word: str, before: str) -> str:
    """A word of a command; `before` is the one before it."""
    if before in ("-o", "--out") or word.endswith((".yaml", ".yml")):
        return private.named(word)
    if re.match(r"-o.", word):
        return "-o" + private.named(word[2:])
    found = SETTING.fullmatch(word)
    if found is None:
        return private.hidden(word)
    key, value = found.groups()
    if key.endswith("negative_prompt="):
        return key + private.tokenless(value)
    on_hub = private.HUB_ID.fullmatch(value) and not Path(value).exists()
    return key + private.named(value, "teacher", value if key.endswith("repo=") and on_hub else None)


def devices(device: torch.device, processes: int) -> list[str]:
    """The names of the devices that the processes of this machine use."""
    if device.type != "cuda":
        return [f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"]
    if processes == 1:
        return [torch.cuda.get_device_name(device)]
    return [torch.cuda.get_device_name(i) for i in range(min(processes, torch.cuda.device_count()))]
