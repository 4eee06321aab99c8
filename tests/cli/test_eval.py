"""`eval`: the table, what it is measured on, what it leaves behind, what it refuses."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from typer.testing import CliRunner
from zoo.parts import clip_tokenizer

from scm_distill.cli.app import app
from scm_distill.evaluation import metrics
from scm_distill.evaluation.inputs import as_tensor
from scm_distill.evaluation.pretrained import open_clip_score
from scm_distill.sampling import open

pytestmark = pytest.mark.filterwarnings("ignore")

Made = Callable[[str], Path]


def invoke(*arguments: object) -> Any:
    done = CliRunner().invoke(app, ["eval", *map(str, arguments)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def measured(*arguments: object) -> dict[str, Any]:
    done = invoke(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCM_DISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def real(here: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    np.savez(here / "real.npz", images=pixels, labels=np.zeros(40, np.int64))
    return here / "real.npz"


def test_the_table_is_what_the_samplers_and_the_metrics_say(made: Made, real: Path) -> None:
    run = made("ddpm")
    result = measured(run, "--data", real, "-n", 24, "--batch", 10, "--seed", 5, "--steps", "1,2", "-o", "eval.json")
    assert json.loads(Path("eval.json").read_text()) == result
    assert [(row["who"], row["steps"], row["nfe"]) for row in result["rows"]] == [
        ("student", 1, 1), ("student", 2, 2), ("teacher", 2, 2), ("teacher", 50, 50),
    ]  # fmt: skip
    student, teacher = open.open_student(str(run)), open.open_teacher(str(run / "teacher"), {})
    student.size = teacher.size = 10  # another batch rounds otherwise, and now and then a pixel falls to the next level
    ours, theirs = (
        torch.stack([as_tensor(x) for x in sampler.draw(range(5, 29), [None] * 24).samples])
        for sampler in (student, teacher)
    )
    known = torch.from_numpy(np.load(real)["images"]).float().permute(0, 3, 1, 2) / 127.5 - 1
    a, b = metrics.block_features(ours), metrics.block_features(known)
    found = result["rows"][1]["metrics"]
    assert found["fd"] == pytest.approx(metrics.frechet(b, a), rel=1e-5)
    assert found["recall"] == metrics.recall(b, a)
    assert found["precision"] == metrics.precision(b, a)
    assert found["endpoint"] == pytest.approx(float((ours - theirs).square().mean().sqrt()), rel=1e-5)
    assert result["rows"][3]["metrics"]["endpoint"] == 0
    assert result["ratios"]["fd"] == pytest.approx(
        found["fd"] / metrics.frechet(b, metrics.block_features(theirs)), rel=1e-3
    )
    assert result["ratios"]["nfe"] == 25
    assert result["ratios"]["wall_clock"] > 1
    assert result["extractor"]["name"] == "blocks"
    assert (result["n"], result["reference"], result["seed"]) == (24, 40, 5)
    assert str(run) not in json.dumps(result)


def test_the_second_time_the_reference_comes_from_the_cache(made: Made, real: Path) -> None:
    common = (made("ddpm"), "--data", real, "-n", 8, "--steps", 2, "-o", "x.json")
    notes = [measured(*common)["notes"][0] for _ in range(2)]
    assert "computed" in notes[0]
    assert "from the cache" in notes[1]


def test_without_data_the_teachers_own_samples_are_the_reference(made: Made, here: Path) -> None:
    (here / "prompts.txt").write_text("a cat\na dog\n")
    result = measured(made("sd15"), "--prompts", "prompts.txt", "-n", 8, "--steps", "2", "-o", "out.json")
    assert result["data"] == "the teacher's own samples, 50 steps"
    student, teacher = result["rows"][0], result["rows"][-1]
    assert (student["nfe"], teacher["steps"], teacher["nfe"]) == (2, 50, 100)  # guidance: two a step
    assert (teacher["metrics"]["endpoint"], teacher["metrics"]["fd"] > 0) == (0, True)
    assert any("fewer" in note for note in result["notes"])


def test_prompts_also_have_a_clip_score(made: Made, here: Path) -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.CLIPConfig(
        text_config={**small, "vocab_size": 600, "max_position_embeddings": 16, "eos_token_id": 1},
        vision_config={**small, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    processor = {"size": {"shortest_edge": 32}, "crop_size": 32, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    transformers.AutoModel.from_config(config).save_pretrained(here / "clip")
    clip_tokenizer().save_pretrained(here / "clip")
    (here / "clip/preprocessor_config.json").write_text(json.dumps(processor))
    (here / "prompts.txt").write_text("a cat\na dog\n")
    common = ("--prompts", "prompts.txt", "-n", 8, "--steps", "2", "--clip", "clip", "-o", "out.json")
    real = here / "real"
    real.mkdir()
    for i in range(8):
        open.open_student(str(made("sd15"))).draw([i], ["a bird"], 2).samples[0].save(real / f"{i}.png")
    result = measured(made("sd15"), "--data", real, *common)
    assert result["clip"]["id"] == "clip"
    drawn = open.open_student(str(made("sd15"))).draw(range(8), ["a cat", "a dog"] * 4, 2)
    scores = open_clip_score("clip")(drawn.samples, ["a cat", "a dog"] * 4)
    assert result["rows"][0]["metrics"]["clip_score"] == pytest.approx(float(scores.double().mean()), abs=1e-3)


@pytest.mark.slow
def test_two_processes_give_what_one_gives(made: Made, real: Path, here: Path) -> None:
    common = (made("ddpm"), "--data", real, "-n", 9, "--batch", 4, "--steps", 2, "--json", "-o", here / "x.json")
    one = json.loads(invoke(*common).stdout)
    command = [sys.executable, "-m", "scm_distill", "eval", *map(str, common), "--num-processes", "2"]
    two = json.loads(subprocess.run(command, capture_output=True, check=True, text=True, timeout=300).stdout)
    assert two["processes"] == 2
    for a, b in zip(one["rows"], two["rows"], strict=True):
        assert a["metrics"] == pytest.approx(b["metrics"], rel=1e-2, abs=1e-3)
        assert a["nfe"] == b["nfe"]


def test_a_run_that_is_too_far_from_its_teacher_fails_by_its_exit_code(made: Made, real: Path) -> None:
    common = (made("ddpm"), "--data", real, "-n", 8, "-o", "out.json")
    assert invoke(*common, "--steps", 2, "--max-ratio", 1e9).exit_code == 0
    failed = invoke(*common, "--steps", 2, "--max-ratio", 1e-9)
    assert failed.exit_code == 1
    assert "times the teacher's" in failed.stderr
    assert "--steps has no 2" in invoke(*common, "--steps", 4, "--max-ratio", 2).stderr


REFUSED = {
    "steps": (["--steps", "1,x"], "no list of numbers of steps"),
    "too many steps": (["--steps", "99"], "1 to 8 steps"),
    "a missing model": (["--extractor", "./nowhere"], "./nowhere"),
    "an extractor of sounds": (["--extractor", "inception:x"], "inception"),
    "no such data": (["--data", "./nothing"], "./nothing"),
    "no prompts": (["--clip", "./clip"], "clip"),
    "another teacher": (["--teacher", "builtin:digits/teacher"], "makes other samples"),
    "a folder as file": (["-o", "."], "cannot be written"),
    "a prompt file": (["--prompts", "missing.txt"], "missing.txt"),
    "a device": (["--device", "cuda:7"], "cuda:7"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_input_is_one_error_and_leaves_nothing(made: Made, real: Path, here: Path, case: str) -> None:
    options, expected = REFUSED[case]
    before = sorted(here.iterdir())
    done = invoke(made("ddpm"), "--data", real, "-n", 8, *options)
    assert (done.exit_code, expected in done.stderr) == (2, True), done.stderr
    assert done.stderr.count("error:") == 1
    assert sorted(here.iterdir()) == before
