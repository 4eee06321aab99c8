"""`sample` of students that stock diffusers draws by itself: images, clips and sounds, of prompts and of classes."""

import functools
import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zoo
from PIL import Image
from typer.testing import CliRunner

from scm_distill.cli.app import app

pytestmark = pytest.mark.filterwarnings("ignore")

RECIPE = """
teacher: {{repo: {teacher}, call: {call}}}
data: {{source: teacher, samples: 2{prompts}}}
objective: {{warmup_steps: 100, tangent: jvp}}
adapt: {{prefit_steps: 2}}
train: {{steps: 3, batch_size: 2, evaluate_samples: 2, checkpoint_every: 3, evaluate_every: 3, device: cpu,
        stop_if_worse: false}}
sampler: {{teacher_steps: 3}}
export: {{t_mid: [1.1], samples: 4}}
"""
SUFFIX = {"sd15": ".png", "wan": ".gif", "stable_audio": ".wav", "dit": ".png"}
every_student = pytest.mark.parametrize("name", SUFFIX)
Run = Callable[[str], Path]


def invoke(*arguments: object) -> Any:
    done = CliRunner().invoke(app, [*map(str, arguments)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run folder of a student, trained for three steps; its teacher lies beside it."""

    @functools.cache
    def train(name: str) -> Path:
        family, folder = zoo.load_all()[name], tmp_path_factory.mktemp(name)
        family.pipeline().save_pretrained(str(folder / "teacher"))
        (folder / "prompts.txt").write_text("a cat\na dog\n")
        prompts = f", prompts: {folder}/prompts.txt" if family.conditions == "prompt" else ""
        text = RECIPE.format(teacher=folder / "teacher", call=json.dumps(family.call), prompts=prompts)
        (folder / "recipe.yaml").write_text(text)
        done = invoke("train", folder / "recipe.yaml", "-o", folder / "run", "--json")
        assert done.exit_code == 0, done.output
        return folder / "run"

    return train


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def driven(name: str) -> list[str]:
    if name == "dit":
        return ["--classes", "0-1"]
    return ["-p", "a cat", "-p", "a dog", *(["--format", "gif"] if name == "wan" else [])]


def alone(name: str) -> list[str]:
    """The first prompt only."""
    return [*driven(name)[:2], *driven(name)[4:]]


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".jsonl"}


def opened(path: Path) -> tuple[int, ...]:
    """Size and number of frames of a picture; channels, length and rate of a sound."""
    if path.suffix == ".wav":
        with wave.open(str(path)) as sound:
            assert sound.getsampwidth() == 2
            assert any(sound.readframes(sound.getnframes()))
            return sound.getnchannels(), sound.getnframes(), sound.getframerate()
    with Image.open(path) as image:
        image.load()
        return *image.size, getattr(image, "n_frames", 1)


def levels(path: Path) -> Any:
    """The integers that a picture or a sound is stored as; for a clip the bytes of its file."""
    if path.suffix == ".wav":
        with wave.open(str(path)) as sound:
            return np.frombuffer(sound.readframes(sound.getnframes()), np.int16).astype(int)
    if path.suffix == ".png":
        with Image.open(path) as image:
            return np.asarray(image).astype(int)
    return np.frombuffer(path.read_bytes(), np.uint8).astype(int)


def assert_among(some: Path, every: Path) -> None:
    """The files of `some` are in `every` too; another batch rounds otherwise, so a value may fall to the next level."""
    for path in some.glob("seed-*"):
        assert np.abs(levels(path) - levels(every / path.name)).max() <= 1, path.name


@every_student
def test_samples_are_files_that_open(name: str, run: Run, here: Path) -> None:
    done = invoke("sample", run(name), *driven(name), "-n", 3, "--seed", 5, "-o", "out", "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert (summary["folder"], summary["student"]["steps"]) == ("out", 2)
    assert summary["student"]["ms_per_sample"] > 0
    assert summary["student"]["nfe"] == 2
    assert files(here / "out") == {f"seed-{i:05d}{SUFFIX[name]}" for i in (5, 6, 7)} | {"index.jsonl"}
    known = {"sd15": (16, 16, 1), "wan": (32, 32, 3), "stable_audio": (2, 64, 16), "dit": (16, 16, 1)}
    assert {opened(path) for path in (here / "out").glob("seed-*")} == {known[name]}


@every_student
def test_the_same_seed_is_the_same_sample_and_another_is_not(name: str, run: Run, here: Path) -> None:
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert invoke("sample", run(name), *alone(name), "-n", 1, "--seed", seed, "-o", out).exit_code == 0
    a, b, c = (content(here / out) for out in "abc")
    assert a == b
    assert list(a.values()) != list(c.values())


@every_student
def test_a_sample_does_not_depend_on_how_many_there_are(name: str, run: Run, here: Path) -> None:
    for out, n, seed in (("all", 3, 0), ("some", 2, 0)):
        assert invoke("sample", run(name), *driven(name), "-n", n, "--seed", seed, "-o", out).exit_code == 0
    assert len(files(here / "some")) < len(files(here / "all"))
    assert_among(here / "some", here / "all")
    assert invoke("sample", run(name), *alone(name), "-n", 1, "--seed", 2, "-o", "last").exit_code == 0
    if name != "dit":  # whose first argument names two classes
        assert_among(here / "last", here / "all")


def test_prompts_are_taken_in_turn(run: Run, here: Path) -> None:
    assert invoke("sample", run("sd15"), "-p", "a cat", "-p", "a dog", "-o", "out").exit_code == 0
    assert len(content(here / "out")) == 2
    for prompt, seed in (("a cat", 0), ("a dog", 1)):
        invoke("sample", run("sd15"), "-p", prompt, "--seed", seed, "-o", prompt)
        assert content(here / prompt).items() < content(here / "out").items()


def test_another_prompt_is_another_sample(run: Run, here: Path) -> None:
    for prompt in ("a cat", "zzz zzz zzz zzz"):
        invoke("sample", run("wan"), "-p", prompt, "--format", "gif", "-o", prompt)
    assert content(here / "a cat") != content(here / "zzz zzz zzz zzz")


def test_classes_are_taken_in_turn_and_may_be_ranges(run: Run, here: Path) -> None:
    assert invoke("sample", run("dit"), "--classes", "3,0-1", "-n", 4, "-o", "out").exit_code == 0
    for label, seed in ((3, 0), (0, 1), (1, 2), (3, 3)):
        invoke("sample", run("dit"), "--classes", label, "-n", 1, "--seed", seed, "-o", str(seed))
        assert content(here / str(seed)).items() < content(here / "out").items()


@every_student
def test_a_teacher_beside_it_and_a_grid(name: str, run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = run(name).parent / "teacher"
    done = invoke("sample", run(name), *driven(name), "-n", 2, "--grid", "--compare", teacher, "-o", "out", "--json")
    assert done.exit_code == 0, done.output
    names = {f"seed-{i:05d}{who}{SUFFIX[name]}" for i in (0, 1) for who in ("", "-teacher")}
    assert files(here / "out") == names | {"grid.png", "index.jsonl"}
    student, of_teacher = (opened(here / "out" / f"seed-00000{who}{SUFFIX[name]}") for who in ("", "-teacher"))
    assert student == of_teacher
    summary = json.loads(done.stdout)
    assert summary["teacher"]["steps"] == {"sd15": 50, "dit": 50, "wan": 50, "stable_audio": 100}[name]
    assert summary["teacher"]["nfe"] == summary["teacher"]["steps"]  # unguided, as the student learnt from it
    with Image.open(summary["grid"]) as sheet:
        width, height = {"sd15": (68, 68), "dit": (68, 68), "wan": (196, 68), "stable_audio": (260, 68)}[name]
        assert sheet.size == (4 * width + 2 * width // 32, height)


def test_the_teacher_is_the_stock_one_guided_as_the_student_learnt_it(run: Run, here: Path) -> None:
    import numpy as np
    import torch
    from diffusers import DiTPipeline

    teacher = run("dit").parent / "teacher"
    assert invoke("sample", run("dit"), "--classes", 1, "-n", 1, "--compare", teacher, "-o", "out").exit_code == 0
    stock = DiTPipeline.from_pretrained(teacher)
    expected = stock(class_labels=[1], guidance_scale=1.0, generator=torch.random.manual_seed(0)).images[0]
    with Image.open(here / "out" / "seed-00000-teacher.png") as drawn:
        assert np.array_equal(np.asarray(drawn), np.asarray(expected))


def test_the_samples_of_a_run_lie_in_it(run: Run) -> None:
    before = files(run("dit") / "samples")
    done = invoke("sample", run("dit"), "--classes", 0, "-n", 1)
    assert done.stdout.splitlines() == [str(run("dit") / "samples")]
    assert "student: 2 steps" in done.stderr
    assert files(run("dit") / "samples") - before == {"seed-00000.png", "index.jsonl"}


def test_more_steps_of_a_flow_and_one_of_the_others(run: Run, here: Path) -> None:
    for name, steps in (("wan", 3), ("sd15", 1), ("stable_audio", 1), ("stable_audio", 3)):
        done = invoke("sample", run(name), *driven(name), "-n", 1, "--steps", steps, "-o", f"{name}{steps}", "--json")
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["student"]["steps"] == steps


REFUSED = {
    "no prompt": ("sd15", [], "wants a prompt"),
    "no prompt for a clip": ("wan", [], "wants a prompt"),
    "no class": ("dit", [], "wants classes"),
    "no list of classes": ("dit", ["--classes", "cat"], "no list of classes"),
    "one step of a flow": ("wan", ["-p", "a cat", "--steps", 1], "in two steps or more"),
    "too many steps": ("sd15", ["-p", "a cat", "--steps", 60], "60"),
}
UNCLEAR = {
    "unknown class": ("dit", ["--classes", "5000"], "0 to 999"),
    "the class of no class": ("dit", ["--classes", "1000"], "0 to 999"),
    "a prompt for classes": ("dit", ["-p", "a cat"], "takes no prompt"),
    "classes for prompts": ("sd15", ["--classes", "1"], "no classes"),
    "no teacher to compare with": ("dit", ["--classes", "1", "--compare", "/nowhere"], "/nowhere"),
    "a teacher of another kind": (
        "dit",
        ["--classes", "1", "--compare", "builtin:digits/teacher"],
        "makes other samples",
    ),
}


def refused(name: str, arguments: list[Any], say: str, run: Run, here: Path) -> None:
    done = CliRunner().invoke(app, [*map(str, ["sample", run(name), *arguments, "-n", 1, "-o", "out"])])
    assert done.exit_code == 2, repr(done.exception)
    assert say in " ".join(done.stderr.split())
    assert done.stderr.count("error: ") == 1
    assert files(here) == set()


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_drawn_is_one_error_and_leaves_nothing(case: str, run: Run, here: Path) -> None:
    refused(*REFUSED[case], run, here)


@pytest.mark.parametrize("case", UNCLEAR)
def test_what_makes_no_sense_is_one_error_and_leaves_nothing(case: str, run: Run, here: Path) -> None:
    refused(*UNCLEAR[case], run, here)


def test_a_student_that_is_not_there_is_missing(here: Path) -> None:
    done = invoke("sample", "./nowhere", "-p", "a cat")
    assert done.exit_code == 2
    assert "There is no pipeline folder ./nowhere" in done.stderr


def test_a_teacher_is_no_student(run: Run, here: Path) -> None:
    done = invoke("sample", run("sd15").parent / "teacher", "-p", "a cat")
    assert done.exit_code == 2
    assert "no few-step student" in done.stderr
    assert files(here) == set()


def test_a_changed_seed_is_seen_by_the_test_of_seeds(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A noise that depends on how many were drawn before."""
    from scm_distill.sampling.backends import PipelineBackend

    original, drawn = PipelineBackend.draw_one, []

    def drifting(backend: PipelineBackend, seed: int, condition: Any, steps: int) -> Any:
        drawn.append(seed)
        return original(backend, seed + len(drawn), condition, steps)

    monkeypatch.setattr(PipelineBackend, "draw_one", drifting)
    with pytest.raises(AssertionError):
        test_the_same_seed_is_the_same_sample_and_another_is_not("dit", run, here)
