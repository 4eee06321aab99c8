"""`train --num-processes`: one refusal before anything starts, one voice while it runs, one way to stop it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TeacherMaker
from typer.testing import CliRunner

from scm_distill import config
from scm_distill.cli import launch
from scm_distill.cli.app import app
from scm_distill.commands import train
from scm_distill.errors import UserError

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
SMALL = [
    "train.steps=3", "train.batch_size=4", "train.evaluate_every=3", "train.evaluate_samples=4", "train.device=cpu",
    "train.stop_if_worse=false", "adapt.prefit_steps=2", "adapt.smooth_time=20", "sampler.teacher_steps=3",
    "export.samples=8", "export.t_mid=[1.1]",
]  # fmt: skip


def arguments(*more: object) -> list[str]:
    settings = [part for setting in SMALL for part in ("-s", setting)]
    return ["train", "digits", "-o", "run", *settings, "--num-processes", "2", *map(str, more)]


def start(folder: Path, *more: object, **changes: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "scm_distill", *arguments(*more)],
        cwd=folder, env={**ENVIRONMENT, **changes}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def workers_of(folder: Path) -> list[int]:
    """The processes whose working directory is this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if path.resolve() == folder.resolve():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def wait_for_steps(folder: Path, run: subprocess.Popen[str]) -> None:
    metrics = folder / "run/metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and '"loss"' in metrics.read_text()) and time.monotonic() < deadline:
        assert run.poll() is None, run.communicate()
        time.sleep(0.1)


WRONG = {
    "wrong key": (["-s", "optimizer.lrr=1"], "did you mean 'optimizer.lr'?"),
    "no multiple": (["--num-processes", "3"], "train.batch_size 4 cannot be shared by 3 processes."),
    "no multiple of micro": (["-s", "train.micro_batch_size=4"], "by 2 processes of 4 images at a time."),
    "missing data": (["-s", "data.source=/nowhere"], "There is no /nowhere"),
    "missing checkpoint": (["--resume", "/nowhere"], "There is no checkpoint at /nowhere"),
    "unwritable": (["-o", "/proc/run"], "/proc/run cannot be written"),
    "holds a run": (["-o", "old"], "old holds a run already"),
}


@pytest.fixture
def no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def refuse(*_: object) -> int:
        raise AssertionError("a worker was started")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "run", refuse)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_refused_once_and_before_any_worker(case: str, no_worker: Path) -> None:
    (no_worker / "old").mkdir()
    (no_worker / "old/config.yaml").touch()
    more, say = WRONG[case]
    done = CliRunner().invoke(app, arguments(*more, "--json"))
    assert done.exit_code == 2, done.stderr
    assert say in json.loads(done.stderr)["error"]["message"]
    assert done.stdout == ""
    assert {str(path.relative_to(no_worker)) for path in no_worker.rglob("*")} == {"old", "old/config.yaml"}


def test_a_process_needs_a_gpu_of_its_own(no_worker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = config.read("digits", ["train.batch_size=24", "train.device=auto"])
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    train.check(recipe, Path("run"), None, world=2)
    with pytest.raises(UserError, match="3 processes need a GPU each, this machine shows 2"):
        train.check(recipe, Path("run"), None, world=3)
    cpu = config.read("digits", ["train.batch_size=24", "train.device=cpu"])
    train.check(cpu, Path("run"), None, world=3)
    assert not list(no_worker.iterdir())


def test_it_does_not_nest(no_worker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = CliRunner().invoke(app, arguments())
    assert (done.exit_code, "(RANK, WORLD_SIZE set)" in done.stderr) == (2, True)
    assert CliRunner().invoke(app, arguments("--num-processes", 0)).exit_code == 2


def test_a_dry_run_plans_the_processes(no_worker: Path) -> None:
    done = CliRunner().invoke(app, arguments("--dry-run", "--json"))
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["processes"] == 2
    assert not list(no_worker.iterdir())


def test_sigint_saves_and_the_run_is_resumed(tmp_path: Path, make_teacher: TeacherMaker) -> None:
    # The teacher is probed by the micro-batch: 256 samples by two would be most of the test.
    quick = ("-s", f"teacher.repo={make_teacher()}", "-s", "train.batch_size=32")
    run = start(tmp_path, *quick, "-s", "train.steps=100000")
    wait_for_steps(tmp_path, run)
    assert len(workers_of(tmp_path)) >= 3
    os.kill(run.pid, signal.SIGINT)
    stdout, stderr = run.communicate(timeout=120)
    assert run.returncode == 130, stderr
    assert not workers_of(tmp_path)
    assert stderr.count("SIGINT: saved run/checkpoints/step-") == 1
    assert (stdout, "Traceback" in stderr, "Warning" in stderr) == ("", False, False)
    names = [path.name for path in (tmp_path / "run/checkpoints").iterdir()]
    step = max(int(name.removeprefix("step-")) for name in names)
    assert step > 0

    run = start(tmp_path, *quick, "-s", f"train.steps={step + 2}", "--resume", "auto", "--json")
    stdout, stderr = run.communicate(timeout=120)
    assert run.returncode == 0, stderr
    assert (json.loads(stdout)["steps"], stderr) == (step + 2, "")


@pytest.mark.slow  # three processes import torch; the stand-ins below say the same without
def test_a_workers_error_is_shown_once(tmp_path: Path) -> None:
    run = start(tmp_path, "-s", "teacher.repo=./missing")
    stdout, stderr = run.communicate(timeout=120)
    assert (run.returncode, stdout) == (2, "")
    assert stderr.count("error: ") == stderr.count("  fix: ") == 1
    assert "Traceback" not in stderr
    assert not list(tmp_path.iterdir())


WORKER = """
import os, pathlib, signal, sys, time
from scm_distill.cli import console, launch
from scm_distill.errors import UserError
how = sys.argv[1]
with launch.attended():
    pathlib.Path(os.environ["RANK"]).write_text(str(os.getpid()))
    if how == "deaf":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    elif os.environ["RANK"] == "1" and how == "crash":
        raise ValueError("one of them")
    elif how == "error of both" or os.environ["RANK"] == "1" and how == "error":
        with console.user_errors():
            raise UserError("Only the second.", "Mend it.")
    elif os.environ["RANK"] == "1" and how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(100)
"""
PARENT = """
import subprocess, sys
from scm_distill.cli import launch
begin, worker = subprocess.Popen, sys.argv[1:]
subprocess.Popen = lambda command, **options: begin([sys.executable, *worker], **options)
launch.run([], 2)
"""


@pytest.fixture
def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Let launch.run start a stand-in for `train` in tmp_path; its command."""

    def pretend(how: str) -> list[str]:
        (tmp_path / "worker.py").write_text(WORKER)
        command, begin = [str(tmp_path / "worker.py"), how], subprocess.Popen
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(launch, "OTHERS", 0.2)
        monkeypatch.setattr(subprocess, "Popen", lambda _, **options: begin([sys.executable, *command], **options))
        return command

    return pretend


@pytest.mark.parametrize(
    ("how", "code", "say"),
    [
        ("crash", 1, "ValueError: one of them"),
        ("error", 2, "error: Only the second."),
        ("error of both", 2, "error: Only the second."),
    ],
)
def test_a_failing_worker_ends_the_others_and_is_heard_once(
    how: str, code: int, say: str, pretend: Callable[[str], list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    pretend(how)
    assert launch.run([], 2) == code
    assert capfd.readouterr().err.count(say) == 1


def test_a_killed_worker_is_named(pretend: Callable[[str], list[str]]) -> None:
    pretend("kill")
    with pytest.raises(UserError, match="Process 1 of 2 was killed by SIGKILL") as caught:
        launch.run([], 2)
    assert caught.value.code == 137


def test_the_third_ctrl_c_kills(
    tmp_path: Path, pretend: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def press() -> None:
        pids(tmp_path)
        for _ in range(3):
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGINT)

    pretend("deaf")
    monkeypatch.setattr(launch, "AGAIN", 0.0)
    fingers = threading.Thread(target=press)
    fingers.start()
    assert launch.run([], 2) == 130
    fingers.join()
    assert not any(map(alive, pids(tmp_path)))


def test_workers_do_not_outlive_their_parent(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, "worker.py", "sleep"], cwd=tmp_path, env=ENVIRONMENT)
    workers = pids(tmp_path)
    assert all(map(alive, workers))
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, workers))


def pids(folder: Path) -> list[int]:
    """Of the stand-ins, once both have told."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        told = [path.read_text() for path in (folder / "0", folder / "1") if path.exists()]
        if len(told) == 2 and all(told):
            return [int(pid) for pid in told]
        time.sleep(0.1)
    raise AssertionError("no worker came up")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


STEP = {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8", "SLURM_STEP_ID": "0", "SLURM_JOB_ID": "123456"}


def test_srun_tasks_are_ranks() -> None:
    found = launch.slurm({**STEP, "SLURM_JOB_NODELIST": "node[03-05,9]", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1"})
    assert found == {
        "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "MASTER_ADDR": "node03", "MASTER_PORT": "33456",
    }  # fmt: skip
    assert launch.slurm({**STEP, "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1"})["MASTER_ADDR"] == "10.0.0.1"
    two = {**STEP, "SLURM_JOB_NODELIST": "a1,b2", "SLURM_STEP_NODELIST": "b2"}
    assert launch.slurm(two)["MASTER_ADDR"] == "b2"
    given = launch.slurm({**two, "MASTER_ADDR": "head", "MASTER_PORT": "1234"})
    assert (given["MASTER_ADDR"], given["MASTER_PORT"]) == ("head", "1234")


@pytest.mark.parametrize(
    "changes",
    [
        {"RANK": "0"},
        {"SLURM_NTASKS": "1"},
        {"SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_STEP_ID": None},
        {"SLURM_PROCID": None},
    ],
)
def test_other_slurm_processes_stay_alone(changes: dict[str, str | None]) -> None:
    given = {name: value for name, value in {**STEP, **changes}.items() if value is not None}
    assert launch.slurm(given) == {}
    assert launch.slurm({}) == {}


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("node[03-05,9]", "node03"), ("a1,b2", "a1"), ("single", "single"), ("r[1-2]n[07,9],z1", "r1n07"),
        ("gpu[7]", "gpu7"), ("a-b[2,3]-ib,c", "a-b2-ib"), ("", ""),
    ],
)  # fmt: skip
def test_the_first_host_of_a_node_list(nodes: str, host: str) -> None:
    assert launch.first_host(nodes) == host
