"""env.json: a session is added, and names neither folder nor token."""

import json
from pathlib import Path

import pytest
import torch

from scm_distill.progress import Silent
from scm_distill.training import environment


class Listener(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_each_session_is_added_without_folders_and_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "hf_" + "x" * 30
    arguments = ["/usr/bin/scm-distill", "train", "/home/me/mine.yaml", "-o", "/home/me/run", "-s", f"a={secret}"]
    monkeypatch.setattr("sys.argv", arguments)
    monkeypatch.delenv("SCM_DISTILL_COMMAND", raising=False)
    environment.note(tmp_path, 0, 1, torch.device("cpu"), Silent())
    environment.note(tmp_path, 7, 2, torch.device("cpu"), Silent())
    first, second = json.loads((tmp_path / "env.json").read_text())["sessions"]
    assert first["command"] == "scm-distill train mine.yaml -o run -s 'a=(token)'"
    assert (first["step"], second["step"], second["processes"]) == (0, 7, 2)
    assert first["versions"]["torch"] == torch.__version__
    assert [p.name for p in tmp_path.iterdir()] == ["env.json"]


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("/usr/bin/scm-distill train acme/mine.yaml -o runs/acme/one", "scm-distill train mine.yaml -o one"),
        ("scm-distill train sd -o/home/jane/x --out=acme/y", "scm-distill train sd -ox --out=y"),
        ("x -s teacher.repo=org/teacher -s data.source=acme/set", "x -s teacher.repo=org/teacher -s data.source=set"),
        ("x -s teacher.repo=private/kitten", "x -s teacher.repo=kitten"),
        ("x -s 'guidance.negative_prompt=/bad, ugly/deformed'", "x -s 'guidance.negative_prompt=/bad, ugly/deformed'"),
        ("x -s push.repo=me/model", "x -s push.repo=me/model"),
    ],
)
def test_a_worker_shows_what_was_typed(typed: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "private/kitten").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCM_DISTILL_COMMAND", typed)
    assert environment.command() == shown


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("{", "is no JSON"), ("", "is empty"), ("[]", "holds a list"), ("\x00", "is empty"),
        ("{}", "an earlier version"), ('{"version": 1, "sessions": 3}', "damaged at sessions"),
        ('{"version": 1, "sessions": [{}]}', "sessions.0.date"),
    ],
)  # fmt: skip
def test_a_broken_file_is_set_aside_and_named(broken: str, why: str, tmp_path: Path) -> None:
    listener = Listener()
    (tmp_path / "env.json").write_text(broken)
    environment.note(tmp_path, 7, 1, torch.device("cpu"), listener)
    assert [session["step"] for session in json.loads((tmp_path / "env.json").read_text())["sessions"]] == [7]
    assert (tmp_path / "env.json.broken").read_text() == broken
    assert len(listener.said) == 1
    assert why in listener.said[0]


def test_doubts_about_the_teacher_are_kept(tmp_path: Path) -> None:
    environment.note(tmp_path, 0, 1, torch.device("cpu"), Silent(), ("a poor teacher",))
    environment.note(tmp_path, 1, 1, torch.device("cpu"), Silent())
    sessions = json.loads((tmp_path / "env.json").read_text())["sessions"]
    assert [session.get("doubts") for session in sessions] == [["a poor teacher"], None]
