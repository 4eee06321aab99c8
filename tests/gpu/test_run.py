"""The scripts for a GPU, tried without one: how stages are run and told, and the comparison on pictures made here."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpu import cifar, run, runs, steps
from gpu.notes import Notes
from gpu.stages import STAGES, Stage
from scm_distill.config.schema import Train

CODE = """
import subprocess, sys, time

def good(notes):
    notes.put("answer", 42)

def bad(notes):
    notes.put("before", 1)
    notes.expect(False, "two is not three")
    raise ValueError("and then this")

def slow(notes):
    notes.put("kept", 1)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    notes.put("child", child.pid)
    time.sleep(60)

def dies(notes):
    import os
    os._exit(3)
"""
PLAIN = tuple(Stage(name, "made_stages", name, 20, name) for name in ("good", "bad", "dies"))
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own, of a teacher and its samplers
SKIPPED = Stage("skipped", "made_stages", "none", 20, "skipped", needs="gpu")
MADE = (*PLAIN, SKIPPED, Stage("slow", "made_stages", "slow", 8, "slow", alone=True))


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stages of this test, for which PyTorch's import is spared."""
    (tmp_path / "made_stages.py").write_text(CODE)
    (tmp_path / "torch.py").write_text("def get_num_threads(): return 1\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def lines(folder: Path) -> dict[str, dict]:
    found = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return {line["stage"]: line for line in found}


@pytest.mark.wide
def test_a_stage_fails_alone_and_every_one_has_its_line(made: Path, capsys: pytest.CaptureFixture) -> None:
    code = run.main(["--device", "cpu", "--toy", "--jobs", "2", "--out", str(made / "out")], MADE)
    found = lines(made / "out")
    assert code == 1
    assert {name: line["ok"] for name, line in found.items()} == {
        "good": True, "bad": False, "skipped": None, "dies": False, "slow": False,
    }  # fmt: skip
    assert found["good"]["figures"] == {"answer": 42}
    assert found["bad"]["failures"] == ["two is not three", "ValueError: and then this"]
    assert found["bad"]["figures"] == {"before": 1}
    assert found["skipped"]["skipped"] == "needs gpu, this is cpu"
    assert "exit code 3" in found["dies"]["failures"][0]
    assert found["slow"]["failures"] == ["killed after 8 s"]
    assert found["slow"]["figures"]["kept"] == 1
    child = Path(f"/proc/{found['slow']['figures']['child']}/cmdline")
    assert not child.exists() or not child.read_text()  # a zombie has none
    keys = {"stage", "ok", "seconds", "failures", "figures", "driver", "versions", "date"}
    assert all(line.keys() >= keys for line in found.values())
    told = capsys.readouterr().out
    assert "failed: bad, dies, slow" in told
    assert "ValueError: and then this" in (made / "out" / "log.txt").read_text()


@pytest.mark.wide
def test_only_what_is_asked_for_runs_and_nothing_once_the_time_is_over(made: Path) -> None:
    assert run.main(["--device", "cpu", "--only", "good", "--out", str(made / "out")], MADE) == 0
    assert list(lines(made / "out")) == ["good"]
    assert run.main(["--device", "cpu", "--only", "good", "--seconds", "1", "--out", str(made / "out")], MADE) == 1
    assert "not started" in lines(made / "out")["good"]["failures"][0]


def test_every_stage_has_its_code_and_all_of_them_fit_into_five_minutes() -> None:
    for stage in STAGES:
        assert callable(getattr(__import__(stage.module, fromlist=["x"]), stage.function))
    assert sum(stage.limit for stage in STAGES if stage.alone) < 300


def test_every_option_of_training_is_tried() -> None:
    tried = {
        "steps",
        *runs.TOGETHER,
        *(
            key
            for case in (*runs.ALONE, *runs.COMPILED["blocks"], *runs.COMPILED["step"], *runs.REFUSED)
            for key in case
        ),
    }
    assert tried == set(Train.model_fields)


def test_the_real_networks_are_found_by_their_names(tmp_path: Path) -> None:
    chosen = [(name, batch) for name, _, batch in steps.cases(Notes(tmp_path / "a", tmp_path, "cuda", False, True))]
    names = ("DiT-XL/2 256 px", "MMDiT 1.5 B 512 px")
    assert chosen == [(name, batch) for name in names for batch in (1, 8)]


def test_figures_are_on_disk_at_once(tmp_path: Path) -> None:
    notes = Notes(tmp_path / "answer.json", tmp_path, "cpu", True, False)
    notes.put("a", 1.5)
    assert json.loads((tmp_path / "answer.json").read_text())["figures"] == {"a": 1.5}


@pytest.mark.wide
def test_small_stages_of_the_product_pass(tmp_path: Path) -> None:
    """Real stages in small sizes; the GPU's own are skipped."""
    chosen = ["--only", "digits", "--only", "sync", "--only", "attention"]
    code = run.main(["--device", "cpu", "--toy", "--jobs", "1", "--patience", "5", "--out", str(tmp_path), *chosen])
    found = lines(tmp_path)
    assert code == 0, found
    assert found["digits"]["ok"]
    assert found["digits"]["figures"]["fp32, loss, largest difference"] == 0
    assert found["sync"]["ok"] is None
    assert found["attention"]["ok"] is None


@pytest.mark.wide
def test_a_teacher_is_trained_distilled_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for label, color in (("dark", 40), ("light", 200)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(48):
            pixels = (color + rng.integers(0, 40, (32, 32, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{i}.png")
    out = tmp_path / "out"
    given = ["--device", "cpu", "--toy", "--steps", "2", "--out", str(out)]
    assert cifar.main([str(tmp_path / "photos"), *given, "--teacher-seconds", "1", "--classifier-seconds", "1"]) == 0
    found = json.loads((out / "cifar.json").read_text())
    assert found["pictures"] == 96
    assert found["distillation"]["steps"] == 2
    assert found["samples"] >= cifar.LEAST
    assert len(found["table"]) == 5
    assert all(row["features"] >= 0 and row["pixels"] >= 0 for row in found["table"].values())
    halves = found["table"].pop("real, a half to the other")
    assert all(row["pixels"] > halves["pixels"] for row in found["table"].values())
    with pytest.raises(SystemExit, match="exists"):
        cifar.main([str(tmp_path / "photos"), *given])
