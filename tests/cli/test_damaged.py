"""`push` and `report` on damaged files, as they are typed: one sentence, or a note and the work all the same."""

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from damage import FIRST, KINDS, OBJECTS, damage
from hub import student
from report import example_run
from typer.testing import CliRunner

from scm_distill.cli.app import app


@dataclass(frozen=True)
class Case:
    """A file that a command reads, and what becomes of the command for each kind of damage."""

    file: str  # in the run folder
    usually: Literal["refused", "named", "unseen"]
    refused: tuple[str, ...] = ()  # kinds with exit code 2
    named: tuple[str, ...] = ()  # with a note, and exit code 0
    unseen: tuple[str, ...] = ()  # with exit code 0: what the file holds then is as good as any other content

    def outcome(self, kind: str) -> str:
        """Of a kind of damage."""
        return next((name for name in ("refused", "named", "unseen") if kind in getattr(self, name)), self.usually)


PUSH = (
    Case("config.yaml", "refused", unseen=("folder",)),  # then the export has no run
    Case("export/scm_distill.json", "refused"),
    Case("export/model_index.json", "refused"),
    Case("export/eval.json", "refused"),
    Case("export/unet/config.json", "refused", unseen=OBJECTS),
    Case("export/scheduler/scheduler_config.json", "refused", unseen=OBJECTS),
    Case("export/README.md", "unseen", refused=("UTF-16", "binary", "broken PNG", "folder")),
    Case("metrics.jsonl", "named", unseen=("empty",)),
    Case("export/t_mid_search.json", "named"),
    Case("export/samples/0.png", "named"),
    Case("export/LICENSE", "unseen", named=("folder",)),
)
REPORT = (
    Case("config.yaml", "refused"),
    Case("export/scm_distill.json", "refused"),
    Case("export/eval.json", "refused"),
    Case("export/model_index.json", "unseen"),  # whether there is one is all that the page says
    Case("env.json", "named"),
    Case("metrics.jsonl", "named", unseen=("empty",)),  # a run before its first step
    Case("export/t_mid_search.json", "named"),
    Case("samples/step-000002.png", "named"),
)
BOTH_SPEEDS = pytest.mark.parametrize(
    "kinds", [FIRST, pytest.param([kind for kind in KINDS if kind not in FIRST], marks=pytest.mark.wide)],
    ids=["first", "others"],
)  # fmt: skip


def invoke(*arguments: object) -> tuple[int, str]:
    """Exit code and stderr; anything but a plain exit is raised."""
    done = CliRunner().invoke(app, [*map(str, arguments)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stderr


def check(case: Case, kinds: Iterable[str], whole: Path, folder: Path, *command: object) -> None:
    """Run `command` on a copy of the run `whole` with each kind of damage to the file."""
    for kind in kinds:
        run = shutil.copytree(whole, folder / kind.replace(" ", "-"))
        damage(run / case.file, kind)
        code, told = invoke(command[0], run, *command[1:])
        name, outcome, where = Path(case.file).name, case.outcome(kind), (case.file, kind)
        assert code == (2 if outcome == "refused" else 0), (*where, told)
        if code:
            assert re.fullmatch(r"error: .+\n  fix: .+\n", told), (*where, told)
        notes = [line for line in told.splitlines() if line.startswith("note: ") and name in line]
        assert len(notes) == (outcome == "named"), (*where, told)
        if command[0] == "report":
            page = run / "report.html"
            assert page.exists() == (code == 0), where
            assert outcome != "named" or name in page.read_text(), where
        shutil.rmtree(run)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No token, no colours, and wide lines."""
    monkeypatch.setattr("scm_distill.publish.hub.get_token", lambda: None)
    for name, value in (("COLUMNS", "200"), ("HF_HUB_OFFLINE", "1"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = student.write(tmp_path_factory.mktemp("pushed") / "run")
    student.evaluation(run)
    (run / "export/README.md").write_text("# Mine\n")
    return run


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few steps, so that few plots are drawn."""
    run = example_run.write(tmp_path_factory.mktemp("reported") / "run", samples=2)
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:3]))
    for path in sorted((run / "samples").glob("step-*.png"))[2:]:
        path.unlink()
    (run / "samples/step-000010.png").rename(run / "samples/step-000002.png")
    return run


@BOTH_SPEEDS
@pytest.mark.parametrize("case", PUSH, ids=lambda case: case.file)
def test_push(case: Case, kinds: tuple[str, ...], pushed: Path, tmp_path: Path) -> None:
    check(case, kinds, pushed, tmp_path, "push", "ada/student", "--dry-run")


@BOTH_SPEEDS
@pytest.mark.parametrize("case", REPORT, ids=lambda case: case.file)
def test_report(case: Case, kinds: tuple[str, ...], reported: Path, tmp_path: Path) -> None:
    whole = shutil.copytree(reported, tmp_path / "whole")
    for name in {"export/eval.json", "export/t_mid_search.json"} - {case.file}:  # plots take their time
        (whole / name).unlink()
    check(case, kinds, whole, tmp_path, "report")


@pytest.mark.parametrize(
    "out", [".", "..", "/", "missing/report.html", "config.yaml/report.html", "x" * 300, "/proc/x"]
)
def test_report_to_where_nothing_can_be_written(out: str, reported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(reported)
    before = sorted(reported.rglob("*"))
    code, told = invoke("report", reported, "-o", out)
    assert code == 2
    assert re.fullmatch(r"error: .+\n  fix: .+\n", told), told
    assert sorted(reported.rglob("*")) == before


def test_report_to_another_file(reported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke("report", reported, "-o", "mine.html") == (0, "")
    assert "Two-step student" in Path("mine.html").read_text()


def test_push_and_report_of_what_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{")
    for command in (("push", "ada/student", "--dry-run"), ("report",)):
        for name in ("missing", "file", "."):
            code, told = invoke(command[0], tmp_path / name, *command[1:])
            assert (code, told.count("\n")) == (2, 2), told
