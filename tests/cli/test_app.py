"""The real command line: results, errors, exit codes, signals."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TeacherMaker
from PIL import Image
from typer.testing import CliRunner

from scm_distill import config
from scm_distill.cli.app import app

Cli = Callable[..., subprocess.CompletedProcess[str]]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line in this process: an interpreter of its own takes seconds to import torch."""
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        done = CliRunner().invoke(app, [*map(str, arguments)])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def recipe(tmp_path: Path, make_teacher: TeacherMaker, recipe_of: Callable[..., str]) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(recipe_of(make_teacher()))
    return path


@pytest.fixture
def quicker(recipe: Path) -> Path:
    """The recipe, for an interpreter of its own, where tests/conftest.py cannot make its probes smaller."""
    text = recipe.read_text().replace("batch_size: 4", "batch_size: 64")
    recipe.write_text(text.replace("smooth_time: 20", "smooth_time: 20, reclock: false"))
    return recipe


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def test_train_sample_and_compare(cli: Cli, recipe: Path, tmp_path: Path) -> None:
    done = cli("train", recipe, "-s", "export.check_first=true")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("export checked before training") == 1
    assert done.stdout.splitlines()[-1] == "runs/mine/export"
    assert "Distance to the data" in done.stdout
    assert "next: scm-distill sample runs/mine --grid" in done.stderr
    files = {"config.yaml", "env.json", "export_check.json", "metrics.jsonl", "report.html"}
    assert names(tmp_path / "runs/mine") == {*files, "samples", "checkpoints", "export"}
    assert "report: runs/mine/report.html" in done.stderr
    resolved = config.read(str(tmp_path / "runs/mine/config.yaml"))
    assert resolved == config.read(str(recipe), ["export.check_first=true"])

    teacher = resolved.teacher.repo
    done = cli("sample", "runs/mine", "-n", 3, "--seed", 5, "--grid", "--compare", teacher, "-o", "pictures", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["student"]["steps"] == 2
    assert (summary["student"]["nfe"], summary["teacher"]["nfe"]) == (2, 50)
    assert summary["speedup"]["nfe"] == 25
    assert summary["speedup"]["wall_clock"] > 0
    files = {f"seed-{i:05d}{who}.png" for i in (5, 6, 7) for who in ("", "-teacher")} | {"grid.png", "index.jsonl"}
    assert names(tmp_path / "pictures") == files
    with Image.open(tmp_path / "pictures" / "grid.png") as picture:
        assert picture.width > 2 * 3 * 64

    done = cli("sample", "runs/mine/export", "-n", 1, "--seed", 6, "-o", "again")
    assert done.returncode == 0, done.stderr
    one, many = (pixels(tmp_path / folder / "seed-00006.png") for folder in ("again", "pictures"))
    assert one == many

    again = cli("train", recipe)
    assert again.returncode == 2
    assert "holds a run already" in again.stderr
    (tmp_path / "runs/mine/export_check.json").unlink()
    more = ["-s", "train.steps=5", "-s", "export.check_first=true"]
    resumed = cli("train", recipe, "--resume", "auto", *more, "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert not (tmp_path / "runs/mine/export_check.json").exists()  # the student is the one that was checked
    assert json.loads(resumed.stdout)["steps"] == 5
    sessions = json.loads((tmp_path / "runs/mine/env.json").read_text())["sessions"]
    assert [session["step"] for session in sessions] == [0, 4]

    made = (tmp_path / "runs/mine/report.html").read_text()
    assert "step&nbsp;5&nbsp;of&nbsp;5" in made
    assert str(tmp_path) not in made
    done = cli("report", "runs/mine", "-o", "page.html", "--json")
    assert json.loads(done.stdout) == {"report": "page.html"}
    assert "Student and teacher, same seeds" in (tmp_path / "page.html").read_text()
    assert cli("report", "runs/mine", "-o", "nowhere/page.html").returncode == 2
    assert "holds no run" in cli("report", "pictures").stderr


BAD = {
    "wrong key": (["-s", "optimizer.lrr=1"], "optimizer.lrr: unknown setting; did you mean 'optimizer.lr'?"),
    "wrong section": (["-s", "trian.steps=1"], "did you mean 'train'?"),
    "wrong value": (["-s", "train.steps=-1"], "train.steps: input should be greater than 0, not -1"),
    "wrong choice": (["-s", "objective.tangent=magic"], "'auto', 'jvp' or 'difference'"),
    "no equals sign": (["-s", "train.steps"], "no KEY=VALUE"),
    "not divisible": (["-s", "train.micro_batch_size=3"], "no multiple"),
    "missing teacher": (["-s", "teacher.repo=/nowhere/at/all"], "There is no pipeline folder /nowhere/at/all"),
    "missing data": (["-s", "data.source=/nowhere"], "There is no /nowhere"),
    "t_mid outside": (["-s", "export.t_mid=[0.001]"], "lies outside the teacher's times"),
    "missing checkpoint": (["--resume", "/nowhere"], "There is no checkpoint at /nowhere"),
    "unwritable": (["-o", "/proc/run"], "/proc/run cannot be written"),
    "file in the way": (["-o", "mine.yaml/run"], "cannot be written"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_error_and_leaves_nothing(case: str, cli: Cli, recipe: Path, tmp_path: Path) -> None:
    arguments, say = BAD[case]
    done = cli("train", recipe, *arguments)
    assert done.returncode == 2, done.stderr
    assert say in done.stderr
    assert "  fix: " in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert names(tmp_path) == {"mine.yaml"}


def test_a_corrupt_teacher_leaves_nothing_and_json_errors_are_json(cli: Cli, recipe: Path, tmp_path: Path) -> None:
    teacher = Path(config.read(str(recipe)).teacher.repo)
    weights = teacher / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    done = cli("train", recipe, "--json")
    assert done.returncode == 2
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert "where its header promises" in error["message"]
    assert error["hint"]
    assert names(tmp_path) == {"mine.yaml"}


def test_a_failed_run_leaves_its_neighbours_and_an_existing_folder_as_they_were(
    cli: Cli, recipe: Path, tmp_path: Path
) -> None:
    from scm_distill.artifacts.claim import claimed

    def fail() -> None:
        with claimed(tmp_path / "runs/a"):
            (tmp_path / "runs/b").mkdir()  # another run begins
            (tmp_path / "runs/a/half").write_text("")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert names(tmp_path / "runs") == {"b"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes").write_text("keep")
    assert cli("train", recipe, "-o", "mine", "-s", "teacher.repo=./missing").returncode == 2
    assert names(tmp_path / "mine") == {"notes"}


def test_recipes_that_are_none(cli: Cli, tmp_path: Path) -> None:
    done = cli("train", "digit")
    assert (done.returncode, "Did you mean 'digits'?" in done.stderr) == (2, True)
    (tmp_path / "bad.yaml").write_text("teacher: [")
    assert "no readable YAML" in cli("train", "bad.yaml").stderr
    (tmp_path / "bad.yaml").write_text("just words")
    assert "no sections" in cli("train", "bad.yaml").stderr
    (tmp_path / "bad.yaml").write_text("teacher: {repo: x}\n")
    assert "data: required; train: required" in cli("train", "bad.yaml").stderr


def test_sample_refuses_what_it_cannot_do(cli: Cli, tmp_path: Path) -> None:
    assert cli("sample", "runs/nothing").returncode == 2
    assert cli("sample", "x", "-n", 0).returncode == 2
    assert names(tmp_path) == set()


def test_a_dry_run_writes_nothing(cli: Cli, recipe: Path, tmp_path: Path) -> None:
    done = cli("train", recipe, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["samples"], plan["sample"], plan["steps"]) == (1797, "1 x 8 x 8", 4)
    assert names(tmp_path) == {"mine.yaml"}


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_an_interrupt_saves_and_says_how_to_resume(
    number: signal.Signals, code: int, quicker: Path, tmp_path: Path, cli: Cli
) -> None:
    command = [sys.executable, "-m", "scm_distill", "train", quicker, "-s", "train.steps=100000"]
    run = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "runs/mine/metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and '"loss"' in metrics.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    run.send_signal(number)
    _, stderr = run.communicate(timeout=120)
    assert run.returncode == code, stderr
    assert "--resume auto" in stderr
    assert "Traceback" not in stderr
    assert "Not finished" in (tmp_path / "runs/mine/report.html").read_text()
    steps = [int(p.name.removeprefix("step-")) for p in (tmp_path / "runs/mine/checkpoints").iterdir()]
    done = cli("train", quicker, "-s", f"train.steps={max(steps) + 1}", "--resume", "auto")
    assert done.returncode == 0, done.stderr
    assert f"resumed runs/mine/checkpoints/step-{max(steps)}" in done.stderr
    assert "settings changed since this run began: train.steps 100000" in done.stderr


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
def test_an_interrupt_before_the_first_step_leaves_nothing(
    number: signal.Signals, code: int, quicker: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "scm_distill", "train", quicker, "-s", "adapt.prefit_steps=100000"]
    run = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    assert run.stderr
    for line in run.stderr:
        if line.startswith("time smoothing"):
            break
    time.sleep(0.5)
    run.send_signal(number)
    _, stderr = run.communicate(timeout=120)
    assert run.returncode == code, stderr
    assert "Traceback" not in stderr
    assert names(tmp_path) == {"mine.yaml"}


def test_a_terminal_gets_a_bar_with_an_eta(quicker: Path, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "scm_distill", "train", quicker, "-s", "adapt.prefit_steps=40"]
    run = subprocess.Popen(command, cwd=tmp_path, env={**ENVIRONMENT, "TERM": "xterm"}, stdout=slave, stderr=slave)
    os.close(slave)
    seen = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    assert run.wait(120) == 0
    assert b"ETA" in seen
    assert b"pre-fit" in seen


def test_recipes(cli: Cli, tmp_path: Path) -> None:
    assert "digits  Real 8x8 digits" in cli("recipes", "list").stdout
    assert cli("recipes", "show", "digits").stdout == config.path_of("digits").read_text()
    assert cli("recipes", "copy", "digits").returncode == 0
    assert (tmp_path / "digits.yaml").read_text() == config.path_of("digits").read_text()
    assert cli("recipes", "copy", "digits").returncode == 2
    schema = json.loads(cli("recipes", "schema", "--json").stdout)
    assert set(schema["properties"]) == {
        "teacher", "data", "guidance", "objective", "adapt", "optimizer", "train", "sampler", "export",
        "lora", "push",
    }  # fmt: skip


def test_doctor_checks_the_tangent(cli: Cli) -> None:
    done = cli("doctor", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert float(re.search(r"off by (\S+),", facts["cpu"])[1]) < 1e-6
    assert "diffusers" in facts


def test_help_starts_without_torch_and_the_surface_is_known() -> None:
    probe = "import sys, scm_distill.cli.app; sys.exit('torch' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0
    import typer

    root = typer.main.get_command(app)
    surface = {
        name: {o for p in command.params for o in p.opts if o.startswith("-")}
        for name, command in root.commands.items()
        if name != "recipes"
    }
    assert surface == {
        "train": {"--set", "-s", "--out", "-o", "--resume", "--num-processes", "--dry-run", "--json"},
        "inspect": {"-s", "--set", "--export-check", "--json"},
        "sample": {
            "-p", "--prompt", "--prompts", "--classes", "-n", "--number", "--seed", "--steps", "--batch", "--compare",
            "--dtype", "--device", "--compile", "--format", "--fps", "--grid", "--out", "-o", "--json",
        },
        "doctor": {"--json"},
        "report": {"--out", "-o", "--json"},
        "eval": {
            "--teacher", "--data", "--steps", "-n", "--number", "--seed", "--extractor", "--clip", "--prompts",
            "--classes", "--batch", "--device", "--dtype", "--num-processes", "--max-ratio", "--out", "-o", "--json",
        },
        "push": {"--private", "--revision", "--create-pr", "--license", "--dry-run", "--json"},
    }  # fmt: skip
    assert set(root.commands["recipes"].commands) == {"list", "show", "copy", "schema"}


def test_version_and_a_wrong_option() -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["--version"]).output.startswith("scm-distill ")
    wrong = runner.invoke(app, ["train", "digits", "--stesp", "3"])
    assert wrong.exit_code == 2
