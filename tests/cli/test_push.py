"""`scm-distill push` as it is typed, against a Hub on the loopback device."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import TeacherMaker
from hub import ADA, READER, Hub, student

from scm_distill import config
from scm_distill.commands import push as push_command
from scm_distill.errors import UserError
from scm_distill.progress import Silent

Recipe = Callable[..., str]
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
LOAD = """
import sys
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
ours, theirs = load_file(sys.argv[2]), DiffusionPipeline.from_pretrained(sys.argv[1]).unet.state_dict()
assert ours.keys() == theirs.keys()
assert all((ours[name] == theirs[name]).all() for name in ours)
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return student.write(tmp_path / "runs" / "mine")


def environment(hub: Hub, home: Path, **more: str) -> dict[str, str]:
    """Of a process whose Hub this is; what is said about another one is left away."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    own = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home / "hf"),
        "NO_PROXY": "127.0.0.1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    return {**kept, **own, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **more}


def start(hub: Hub, folder: Path, *arguments: object, token: str = ADA.token) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scm_distill", "push", *map(str, arguments)]
    own = environment(hub, folder, **({"HF_TOKEN": token} if token else {}))
    return subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def push(hub: Hub, folder: Path, *arguments: object, token: str = ADA.token) -> subprocess.CompletedProcess[str]:
    process = start(hub, folder, *arguments, token=token)
    out, err = process.communicate(timeout=120)
    assert ADA.token not in out + err
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def test_dry_run_push_and_load(hub: Hub, run: Path, tmp_path: Path) -> None:
    done = push(hub, tmp_path, run, "ada/student", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert [request.path for request in hub.requests] == ["/api/whoami-v2"]
    assert "license: apache-2.0" in done.stdout
    assert f"{(run / 'export' / WEIGHTS).stat().st_size:,}" in done.stdout
    assert "student.safetensors" not in done.stdout
    assert "nothing was sent" in done.stderr

    done = push(hub, tmp_path, run / "export", "student")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{hub.url}/ada/student\n"
    assert "over LFS" in done.stderr
    assert "Traceback" not in done.stderr
    weights = str(run / "export" / WEIGHTS)
    own = environment(hub, tmp_path)
    subprocess.run([sys.executable, "-c", LOAD, "ada/student", weights], env=own, check=True, timeout=300)

    done = push(hub, tmp_path, run, "ada/student", "--json")
    summary = json.loads(done.stdout)
    assert (summary["url"], summary["uploaded"], summary["bytes"]) == (f"{hub.url}/ada/student", [], 0)
    assert summary["commit"] == hub.repos["ada/student"].refs["main"]
    assert not done.stderr


def test_ctrl_c_keeps_what_is_uploaded(hub: Hub, run: Path, tmp_path: Path) -> None:
    large = [run / "export/unet" / f"{name}.safetensors" for name in "ab"]
    for path in large:
        path.write_bytes(os.urandom(6 << 20))
    first, second = (hashlib.sha256(path.read_bytes()).hexdigest() for path in large)
    held = hub.hold("PUT", second)
    process = start(hub, tmp_path, run, "ada/student")
    assert held.wait(120)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, ""), err
    assert "the same command continues" in err
    assert "Traceback" not in err
    assert set(hub.files("ada/student")) == {".gitattributes"}
    done = push(hub, tmp_path, run, "ada/student")
    assert done.returncode == 0, done.stderr
    assert (len(hub.seen("PUT", first)), len(hub.seen("PUT", second))) == (1, 2)
    assert hub.files("ada/student")["unet/b.safetensors"] == large[1].read_bytes()


def test_mistakes(hub: Hub, run: Path, tmp_path: Path) -> None:
    done = push(hub, tmp_path, run, "ada/student", "--json", token="")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no token" in json.loads(done.stderr)["error"]["message"]
    done = push(hub, tmp_path, tmp_path, "ada/student")
    assert (done.returncode, "is no student" in done.stderr) == (2, True)
    done = push(hub, tmp_path, run, "ada/student", token="hf_" + "x" * 34)
    assert (done.returncode, "HF_TOKEN" in done.stderr) == (1, True)
    assert not hub.repos


def train(hub: Hub, home: Path, *arguments: object, token: str = ADA.token) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scm_distill", "train", *map(str, arguments)]
    own = environment(hub, home, HF_TOKEN=token)
    return subprocess.run(command, env=own, capture_output=True, text=True, timeout=600)


def test_a_run_that_plans_a_push_makes_it(
    hub: Hub, tmp_path: Path, make_teacher: TeacherMaker, recipe_of: Recipe
) -> None:
    recipe, folder = tmp_path / "mine.yaml", tmp_path / "trained"
    recipe.write_text(recipe_of(make_teacher()))
    done = train(hub, tmp_path, recipe, "-o", folder, "-s", "push.repo=ada/student", "-s", "push.license=mit")
    assert done.returncode == 0, done.stderr
    assert done.stderr.index("ada/student (public, new) may be written") < done.stderr.index("distil: ")
    assert done.stdout.splitlines()[-2:] == [str(folder / "export"), f"{hub.url}/ada/student"]
    files = hub.files("ada/student")
    assert {"README.md", "training/config.yaml", "samples/0.png", WEIGHTS} <= set(files)
    assert str(tmp_path).encode() not in b"\n".join(content or b"" for content in files.values())
    weights = str(folder / "export" / WEIGHTS)
    own = environment(hub, tmp_path)
    subprocess.run([sys.executable, "-c", LOAD, "ada/student", weights], env=own, check=True, timeout=300)


def test_a_push_that_cannot_be_is_refused_before_training(
    hub: Hub, tmp_path: Path, make_teacher: TeacherMaker, recipe_of: Recipe
) -> None:
    recipe, folder = tmp_path / "mine.yaml", tmp_path / "trained"
    recipe.write_text(recipe_of(make_teacher()))
    planned = (recipe, "-o", folder, "-s", "push.repo=ada/student")
    unknown = train(hub, tmp_path, *planned)
    assert (unknown.returncode, "licence of the teacher" in unknown.stderr) == (2, True), unknown.stderr
    assert str(tmp_path) not in unknown.stderr
    reader = train(hub, tmp_path, *planned, "-s", "push.private=true", token=READER.token)
    assert (reader.returncode, "error:" in reader.stderr) == (1, True), reader.stderr
    assert not folder.exists()
    assert not hub.repos


def test_a_planned_push_that_fails_says_the_whole_command(hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("scm_distill.publish.hub.get_token", lambda: None)
    planned = {"repo": "ada/student", "private": True, "revision": "dev", "license": "mit"}
    recipe = config.read("digits", [f"push.{name}={value}" for name, value in planned.items()])
    with pytest.raises(UserError) as caught:
        push_command.publish(recipe, run, Silent())
    assert f"scm-distill push {run} ada/student --private --revision dev --license mit" in caught.value.fix
