"""env.json: a session is added, and names neither folder nor token."""

import json
from pathlib import Path

import pytest
import torch

from scm_distill.training import environment


def test_each_session_is_added_without_folders_and_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "hf_" + "x" * 30
    arguments = ["/usr/bin/scm-distill", "train", "/home/me/mine.yaml", "-o", "/home/me/run", "-s", f"a={secret}"]
    monkeypatch.setattr("sys.argv", arguments)
    environment.note(tmp_path, 0, 1, torch.device("cpu"))
    environment.note(tmp_path, 7, 2, torch.device("cpu"))
    first, second = json.loads((tmp_path / "env.json").read_text())["sessions"]
    assert first["command"] == "scm-distill train mine.yaml -o run -s a=(token)"
    assert (first["step"], second["step"], second["processes"]) == (0, 7, 2)
    assert first["versions"]["torch"] == torch.__version__
    assert [p.name for p in tmp_path.iterdir()] == ["env.json"]
