"""`sample` on folders as an export writes them: what may be asked for, what lies there afterwards, what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from scm_distill.cli.app import app

pytestmark = pytest.mark.filterwarnings("ignore")

Made = Callable[[str], Path]


def invoke(*arguments: object) -> Any:
    done = CliRunner().invoke(app, ["sample", *map(str, arguments)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def drawn(*arguments: object) -> dict[str, Any]:
    done = invoke(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def index(folder: Path) -> list[dict[str, Any]]:
    """The entries of an index, without their version."""
    entries = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]
    assert {entry.pop("version") for entry in entries} == {1}
    return entries


def pixels(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def test_prompts_of_a_file_and_the_index_that_names_them(made: Made, here: Path) -> None:
    (here / "prompts.txt").write_text("# animals\na dog\n\na cát\n")
    summary = drawn(made("sd15"), "-p", "a cat", "--prompts", "prompts.txt", "--seed", 5, "-o", "out")
    assert (summary["samples"], summary["dtype"], summary["device"]) == (3, "fp32", "cpu")
    assert index(here / "out") == [
        {"file": f"seed-0000{seed}.png", "seed": seed, "prompt": prompt, "steps": 2, "by": "student"}
        for seed, prompt in ((5, "a cat"), (6, "a dog"), (7, "a cát"))
    ]
    drawn(made("sd15"), "-p", "a bird", "--seed", 6, "--steps", 1, "-n", 1, "-o", "out")  # takes the place of a dog
    entries = {entry["file"]: (entry.get("prompt"), entry["steps"]) for entry in index(here / "out")}
    assert entries == {
        "seed-00005.png": ("a cat", 2), "seed-00006.png": ("a bird", 1), "seed-00007.png": ("a cát", 2),
    }  # fmt: skip


def test_records_have_seeds_of_their_own(made: Made, here: Path) -> None:
    (here / "prompts.jsonl").write_text('{"prompt": "a dog", "seed": 70}\n{"prompt": "a cat", "seed": 3}\n')
    drawn(made("sd15"), "--prompts", "prompts.jsonl", "-o", "out")
    drawn(made("sd15"), "-p", "a cat", "--seed", 3, "-o", "again")
    assert {entry["seed"]: entry["prompt"] for entry in index(here / "out")} == {70: "a dog", 3: "a cat"}
    assert np.array_equal(*(pixels(here / folder / "seed-00003.png") for folder in ("out", "again")))


def test_no_sample_depends_on_the_batch(made: Made, here: Path) -> None:
    costs = [
        drawn(made("sd15"), "-p", "a cat", "-p", "a dog", "-n", 5, "--batch", batch, "-o", str(batch))["student"]
        for batch in (1, 2, 5)
    ]
    assert [cost["batch"] for cost in costs] == [1, 2, 5]
    assert {cost["nfe"] for cost in costs} == {2}
    for seed in range(5):
        one, two, five = (pixels(here / folder / f"seed-{seed:05d}.png") for folder in "125")
        assert np.abs(one - two).max() <= 1  # of 255
        assert np.abs(one - five).max() <= 1


def test_the_runs_own_teacher_beside_it_and_the_speed(made: Made, here: Path) -> None:
    for name in ("sd15", "ddpm"):
        driven = ["-p", "a cat"] if name == "sd15" else []
        done = invoke(made(name), *driven, "-n", 2, "--compare", "teacher", "--grid", "-o", name)
        assert done.exit_code == 0, done.output
        rows = {"sd15": 100, "ddpm": 50}[name]
        assert "student: 2 steps, 2 network evaluations" in done.stderr
        assert f"teacher: 50 steps, {rows} network evaluations" in done.stderr
        assert f"{rows // 2} times fewer network evaluations" in done.stderr
        assert done.stdout.strip() == f"{name}/grid.png"
        assert [entry["by"] for entry in index(here / name)] == ["student", "student", "teacher", "teacher"]
    given = drawn(made("ddpm"), "-n", 2, "--compare", made("ddpm") / "teacher", "-o", "given")
    assert given["speedup"]["nfe"] == 25
    assert files(here / "given") == files(here / "ddpm") - {"grid.png"}


def test_other_steps_are_warned_of(made: Made, here: Path) -> None:
    done = invoke(made("ddpm"), "-n", 1, "--steps", 4, "-o", "out")
    assert done.exit_code == 0
    assert "this student was made for 2 steps; 4 may look worse" in done.stderr
    assert "made for" not in invoke(made("ddpm"), "-n", 1, "-o", "out").stderr


def test_half_precision_and_a_named_device(made: Made, here: Path) -> None:
    for name in ("sd15", "ddpm"):
        driven = ["-p", "a cat"] if name == "sd15" else []
        drawn(made(name), *driven, "-n", 1, "-o", f"{name}-full")
        summary = drawn(made(name), *driven, "-n", 1, "--dtype", "bf16", "--device", "cpu", "-o", f"{name}-half")
        assert summary["dtype"] == "bf16"
        full, half = (pixels(here / f"{name}-{folder}" / "seed-00000.png") for folder in ("full", "half"))
        assert 0 < np.abs(full - half).max() < 60


def test_clips_are_written_by_diffusers(made: Made, here: Path) -> None:
    iio = pytest.importorskip("imageio.v3")
    pytest.importorskip("imageio_ffmpeg")
    drawn(made("wan"), "-p", "a cat", "-n", 1, "--fps", 12, "-o", "out")
    assert files(here / "out") == {"seed-00000.mp4", "index.jsonl"}
    clip = iio.imread(here / "out" / "seed-00000.mp4", plugin="FFMPEG")
    assert clip.shape == (3, 32, 32, 3)
    assert iio.immeta(here / "out" / "seed-00000.mp4", plugin="FFMPEG")["fps"] == 12
    drawn(made("wan"), "-p", "a cat", "-n", 1, "--format", "gif", "-o", "gif")
    with Image.open(here / "gif" / "seed-00000.gif") as gif:
        assert gif.n_frames == 3
        assert gif.info["duration"] == 60  # at 16 frames a second, to the hundredth
        assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - clip[0]).mean() < 20


def test_without_ffmpeg_the_package_is_named(made: Made, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    done = invoke(made("wan"), "-p", "a cat", "-o", "out")
    assert done.exit_code == 2
    assert "pip install 'scm-distill[teachers]', or choose --format gif" in done.stderr
    assert files(here) == set()


def test_an_interrupt_keeps_what_is_finished(made: Made, here: Path) -> None:
    command = [sys.executable, "-m", "scm_distill", "sample", str(made("ddpm")), "-n", "100000", "--batch", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen([*command, "-o", "out"], env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (here / "out/index.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    run.send_signal(signal.SIGINT)
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == 130, stderr
    assert "what is finished stays in out" in stderr
    named = [entry["file"] for entry in index(here / "out")]
    assert named[:2] == ["seed-00000.png", "seed-00001.png"]
    assert set(named) <= files(here / "out")
    assert not [name for name in files(here / "out") if name.startswith(".")]
    for name in files(here / "out") - {"index.jsonl"}:
        assert pixels(here / "out" / name).shape == (8, 8, 3)


WRONG = {
    "an unknown dtype": ("ddpm", ["--dtype", "int4"], "There is no dtype 'int4'"),
    "no such device": ("ddpm", ["--device", "cuda:7"], "no device 'cuda:7'"),
    "no device at all": ("ddpm", ["--device", "toaster"], "no device 'toaster'"),
    "classes of none": ("ddpm", ["--classes", "1"], "takes no classes"),
    "prompts of none": ("ddpm", ["-p", "a cat"], "takes no prompt"),
    "an empty prompt": ("sd15", ["-p", " "], "A --prompt is empty"),
    "a missing file": ("sd15", ["--prompts", "nothing.txt"], "cannot be read"),
    "an empty file": ("sd15", ["--prompts", "empty.txt"], "holds no prompts"),
    "comments only": ("sd15", ["--prompts", "comments.txt"], "holds no prompts"),
    "no records": ("sd15", ["--prompts", "bad.jsonl"], "Record 2 of bad.jsonl"),
    "a wrong seed": ("sd15", ["--prompts", "seed.jsonl"], "has the seed -1"),
    "one seed twice": ("sd15", ["--prompts", "twice.jsonl"], "not one a prompt, each another"),
    "more than there are seeds": ("sd15", ["--prompts", "one.jsonl", "-n", 2], "names 1 seeds, and -n is 2"),
    "seeds of two kinds": ("sd15", ["--prompts", "one.jsonl", "--seed", 2], "has seeds of its own"),
    "classes backwards": ("dit", ["--classes", "9-0"], "no list of classes"),
    "a class too many": ("dit", ["--classes", "1,1000"], "0 to 999"),
    "a format of clips": ("ddpm", ["--format", "gif"], "No image is written as gif"),
    "an unknown format": ("wan", ["-p", "a cat", "--format", "webm"], "No video is written as webm"),
    "a teacher of another kind": ("ddpm", ["--compare", "builtin:digits/teacher"], "makes other samples"),
    "a missing teacher": ("ddpm", ["--compare", "./nowhere"], "There is no pipeline folder ./nowhere"),
    "too many steps": ("ddpm", ["--steps", 9], "1 to 8 steps, not 9"),
    "an index of something else": ("ddpm", ["-o", "other"], "is no index of samples"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_error_and_nothing_is_written(case: str, made: Made, here: Path) -> None:
    name, arguments, say = WRONG[case]
    for file, text in {
        "empty.txt": "\n\n",
        "comments.txt": "# nothing\n",
        "bad.jsonl": '{"prompt": "a cat"}\n{"promt": "a dog"}\n',
        "seed.jsonl": '{"prompt": "a cat", "seed": -1}\n',
        "twice.jsonl": '{"prompt": "a cat", "seed": 1}\n{"prompt": "a dog", "seed": 1}\n',
        "one.jsonl": '{"prompt": "a cat", "seed": 1}\n',
    }.items():
        (here / file).write_text(text)
    (here / "other").mkdir()
    (here / "other/index.jsonl").write_text("my own\n")
    before = files(here)
    done = invoke(made(name), *arguments, *([] if "-o" in arguments else ["-o", "out"]))
    assert done.exit_code == 2
    assert say in " ".join(done.stderr.split())
    assert done.stderr.count("error: ") == 1
    assert files(here) == before
    assert files(here / "other") == {"index.jsonl"}


def test_the_teacher_of_what_is_no_run_is_not_known(made: Made, here: Path) -> None:
    lone = here / "lone"
    shutil.copytree(made("ddpm") / "export", lone / "export")
    done = invoke(lone / "export", "--compare", "teacher", "-o", "out")
    assert (done.exit_code, "does not say which teacher" in done.stderr) == (2, True)
