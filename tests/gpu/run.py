"""Runs the stages, each in a process of its own and under its own time limit, and writes a JSON line for each.

    tests/gpu/run.sh                              everything, on a GPU
    tests/gpu/run.sh --only digits --only sync    these again
    tests/gpu/run.sh --device cpu --toy           the script itself, without a GPU
    tests/gpu/run.sh --device foreign --toy       the same on the device of tests/foreign, as far as it goes

Stages that only have to be right share the GPU, --jobs at a time; those that are timed follow one by one. A stage that
fails or takes too long is reported, and the others go on. DIR/results.jsonl gets a line for each stage as it ends,
DIR/log.txt what each printed. The exit code is 1 if any stage failed.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gpu.stages import STAGES, Stage

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "triton", "diffusers", "transformers", "accelerate")
ROOM = 5.0  # seconds: with less left of all, no stage is started
GRACE = 3.0  # seconds between asking a stage to end and killing it
RUNNING: set[int] = set()  # process groups


def versions() -> dict[str, str]:
    """Of Python and the packages that matter, as they are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def driver() -> str:
    """The version of the GPU's driver, by nvidia-smi; "none" where there is no such program."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "none"
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=30)
    return done.stdout.split("\n")[0].strip() or "unknown"


@dataclass
class Runner:
    """Runs stages into the folder `out`, and is done with all of them `seconds` after it was made."""

    out: Path
    device: str
    toy: bool
    seconds: float
    patience: float = 1.0  # what the stages' own limits are multiplied by
    results: list[dict[str, Any]] = field(default_factory=list)
    _begin: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        self.common = {"driver": driver(), "versions": versions()}
        for name in ("results.jsonl", "log.txt"):
            (self.out / name).write_text("")

    def run(self, stages: Sequence[Stage], jobs: int) -> None:
        """All of them: those that are not timed `jobs` at a time, then the others."""
        pool = ThreadPoolExecutor(jobs)  # of threads that wait for processes
        try:
            list(pool.map(self.one, [stage for stage in stages if not stage.alone]))
            for stage in stages:
                if stage.alone:
                    self.one(stage)
        except BaseException:  # a Ctrl-C reaches this process only, the stages have sessions of their own
            pool.shutdown(wait=False, cancel_futures=True)
            for group in list(RUNNING):
                kill(group, signal.SIGKILL)
            raise
        pool.shutdown()

    def one(self, stage: Stage) -> None:
        """Run a stage; its line is written, whatever becomes of it."""
        if not stage.runs_on(self.device):
            self._write(stage, {"failures": []}, 0.0, "", f"needs {stage.needs}, this is {self.device}")
            return
        left = self.seconds - (time.monotonic() - self._begin)
        if left < ROOM:
            self._write(stage, {"failures": [f"not started: the {self.seconds:.0f} s for all are over"]}, 0.0, "")
            return
        limit, begin = min(stage.limit * self.patience, left), time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"{stage.name}-", ignore_cleanup_errors=True) as folder:
            answer, log, work = Path(folder) / "answer.json", Path(folder) / "log", Path(folder) / "work"
            work.mkdir()
            command = [sys.executable, "-m", "gpu.work", stage.module, stage.function, "--device", self.device]
            command += ["--toy"] * self.toy + ["--folder", str(work), "--answer", str(answer)]
            with log.open("w") as file:
                code = ended(command, limit, file, self._environment())
            found = json.loads(answer.read_text()) if answer.exists() else {}
            found.setdefault("failures", [])
            if code is None:
                found["failures"].append(f"killed after {limit:.0f} s")
            elif not found.get("complete"):
                found["failures"].append(f"ended with exit code {code}, see log.txt")
            self._write(stage, found, time.monotonic() - begin, log.read_text(errors="replace"))

    def _environment(self) -> dict[str, str]:
        paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
        offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
        one_gpu = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]}
        return {**os.environ, **offline, **one_gpu, "PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def _write(self, stage: Stage, found: Mapping[str, Any], seconds: float, log: str, skipped: str = "") -> None:
        """Append the stage's line and log, and say how it went."""
        failures = found["failures"]
        ok = None if skipped else not failures
        line = {
            "stage": stage.name, "ok": ok, "seconds": round(seconds, 1), "failures": failures, "skipped": skipped,
            "figures": found.get("figures", {}), "toy": self.toy, **found.get("facts", {}), **self.common,
            "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        }  # fmt: skip
        with self._lock:
            self.results.append(line)
            with (self.out / "results.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            with (self.out / "log.txt").open("a") as file:
                file.write(f"==== {stage.name}\n{log}\n")
            print(row(line), flush=True)


def ended(command: Sequence[str], limit: float, log: Any, environment: Mapping[str, str]) -> int | None:
    """The exit code of a command; None where it outran `limit` seconds, and was killed with its children."""
    process = subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=dict(environment),
        start_new_session=True,
    )  # fmt: skip
    RUNNING.add(process.pid)
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        kill(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        return None
    finally:
        kill(process.pid, signal.SIGKILL)
        process.wait()
        RUNNING.discard(process.pid)


def kill(group: int, number: signal.Signals) -> None:
    """Send a signal to a process and its children, where there are any left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def row(line: Mapping[str, Any]) -> str:
    """A stage in a line of the table: how it went, how long it took, and why or what."""
    state = {True: "ok", False: "FAILED", None: "skipped"}[line["ok"]]
    text = "; ".join(line["failures"]) or line["skipped"] or short(line["figures"])
    return f"{line['stage']:14} {state:8} {line['seconds']:6.1f} s  {text[:300]}"


def short(figures: Mapping[str, Any]) -> str:
    """The figures that are plain numbers or short texts, of nested ones how many."""
    shown = []
    for name, value in figures.items():
        if isinstance(value, dict | list):
            shown.append(f"{name} ({len(value)})")
        else:
            shown.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(shown)


def main(arguments: Sequence[str], stages: Sequence[Stage] = STAGES) -> int:
    """Run what is asked for; 1 if any stage failed."""
    parser = argparse.ArgumentParser(
        prog="tests/gpu/run.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [stage.name for stage in stages]
    jobs = max(1, min(6, (os.cpu_count() or 2) // 2))
    parser.add_argument("--only", action="append", choices=names, metavar="STAGE", help=f"of {', '.join(names)}")
    parser.add_argument("--list", action="store_true", help="say what the stages are, and end")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of the results (runs/gpu)")
    parser.add_argument("--device", choices=("cuda", "cpu", "foreign"), default="cuda")
    parser.add_argument("--toy", action="store_true", help="small sizes: tries the script, not the product")
    parser.add_argument("--jobs", type=int, default=jobs, help=f"stages at a time, of those not timed ({jobs})")
    parser.add_argument("--seconds", type=float, default=300, help="for all of them (300)")
    parser.add_argument("--patience", type=float, default=1, help="multiplies the limits, for a slow machine (1)")
    args = parser.parse_args(arguments)
    if args.list:
        print("\n".join(f"{stage.name:14} at most {stage.limit:3.0f} s  {stage.what}" for stage in stages))
        return 0
    runner = Runner(args.out, args.device, args.toy, args.seconds * args.patience, args.patience)
    begin = time.monotonic()
    runner.run([stage for stage in stages if not args.only or stage.name in args.only], args.jobs)
    order = {name: i for i, name in enumerate(names)}
    table = sorted(runner.results, key=lambda line: order[line["stage"]])
    device = next((line["device"] for line in table if "device" in line), args.device)
    print(f"\n{device}, driver {runner.common['driver']}, {runner.common['versions']}")
    print("\n".join(map(row, table)))
    failed = [line["stage"] for line in table if line["ok"] is False]
    print(f"{time.monotonic() - begin:.0f} s, {args.out}/results.jsonl; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as a Ctrl-C: what runs is ended
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
