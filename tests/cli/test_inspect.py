"""`inspect` in this process: the table, the JSON and the recipe that it prints, and what it leaves behind."""

import functools
import json
import math
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
import zoo
from typer.testing import CliRunner

from scm_distill import config
from scm_distill.cli.app import app
from scm_distill.commands import inspect
from scm_distill.commands.results import TangentCheck
from scm_distill.errors import UserError
from scm_distill.export import rehearsal
from scm_distill.export.self_check import Checked

pytestmark = pytest.mark.filterwarnings("ignore")

Inspect = Callable[..., Any]
NAMES = ("sd15", "flux")
FACTS = {
    "pipeline": str, "denoiser": str, "parameters": int, "sample": str, "prediction": str, "scheduler": str,
    "times": str, "modality": str, "conditions": str, "guidance": str, "verified": dict, "adaptation": str,
    "tangent": dict, "latent map": str, "export": dict, "training memory": str, "verdict": str,
}  # fmt: skip
KNOWN = {
    "sd15": (
        "StableDiffusionPipeline",
        "UNet2DConditionModel",
        "4 x 8 x 8",
        "epsilon",
        "guidance_scale: u + w (c - u)",
    ),
    "flux": ("FluxPipeline", "FluxTransformer2DModel", "16 x 16", "flow", "none: the denoiser is told the scale"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @functools.cache
    def save(name: str) -> Path:
        path = tmp_path_factory.mktemp(name)
        zoo.load_all()[name].pipeline().save_pretrained(str(path))
        return path

    return save


def run(*arguments: object) -> Any:
    done = CliRunner().invoke(app, ["inspect", *map(str, arguments)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture(scope="module")
def inspected(folder: Callable[[str], Path]) -> Inspect:
    """The answer for a family of the zoo; the same question is asked once."""

    @functools.cache
    def ask(name: str, *arguments: str) -> Any:
        call = json.dumps(zoo.load_all()[name].call)
        done = run(folder(name), "-s", f"teacher.call={call}", *arguments)
        assert done.exit_code == 0, done.output
        return done

    return ask


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, which also holds the temporary files."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def left_in(here: Path) -> list[str]:
    return sorted(str(path.relative_to(here)) for path in here.rglob("*"))


def split(stdout: str) -> tuple[dict[str, str], str]:
    """The table, and the recipe below it."""
    table, recipe = stdout.split("\n\n", 1)
    return dict(re.split(r" {2,}", line, maxsplit=1) for line in table.splitlines()), recipe  # type: ignore[misc]


@pytest.mark.parametrize("name", NAMES)
def test_the_table_is_on_stdout_and_only_progress_on_stderr(name: str, inspected: Inspect) -> None:
    done = inspected(name)
    table, _ = split(done.stdout)
    assert list(table) == list(FACTS)
    for line in done.stderr.splitlines():
        assert line.startswith(("inspect: ", "next: "))


@pytest.mark.parametrize("name", NAMES)
def test_the_json_has_the_same_facts_and_nothing_beside_it(name: str, inspected: Inspect) -> None:
    done = inspected(name, "--json")
    facts = json.loads(done.stdout)
    assert done.stderr == ""
    assert {key: type(value) for key, value in facts.items()} == {**FACTS, "recipe": dict}
    table, recipe = split(inspected(name).stdout)
    assert yaml.safe_load(recipe) == facts["recipe"]
    assert all(table[key] == str(facts[key]) for key, kind in FACTS.items() if kind is not dict)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_found_out(name: str, inspected: Inspect) -> None:
    facts = json.loads(inspected(name, "--json").stdout)
    pipeline, denoiser, sample, prediction, guidance = KNOWN[name]
    assert [facts[key] for key in ("pipeline", "denoiser", "sample", "prediction")] == [
        pipeline, denoiser, sample, prediction,
    ]  # fmt: skip
    assert facts["guidance"].startswith(guidance)
    assert facts["parameters"] == sum(
        p.numel() for p in inspect.teachers.load(facts["recipe"]["teacher"]["repo"]).net.parameters()
    )
    assert facts["verified"]
    assert all(isinstance(error, float) and error < 1e-5 for error in facts["verified"].values())
    assert (facts["tangent"]["exact"], facts["tangent"]["in"]) == (True, "float64")
    assert facts["export"]["stock difference"] < 1e-5
    assert facts["export"]["call"]["num_inference_steps"] == 2
    assert facts["verdict"] == "can be distilled"


@pytest.mark.parametrize("name", NAMES)
def test_the_printed_recipe_is_one(name: str, inspected: Inspect, folder: Callable[[str], Path]) -> None:
    _, text = split(inspected(name).stdout)
    recipe = config.parse(yaml.safe_load(text))
    assert recipe.teacher.repo == str(folder(name))
    assert recipe.teacher.call == zoo.load_all()[name].call
    assert recipe.guidance.scale == {"sd15": 7.5, "flux": None}[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_printed_recipe_can_be_trained_as_the_hint_says(name: str, inspected: Inspect, here: Path) -> None:
    _, text = split(inspected(name).stdout)
    (here / "my.yaml").write_text(text)
    (here / "prompts.txt").write_text("a cat\n")
    assert inspected(name).stderr.rstrip().endswith("scm-distill train my.yaml --dry-run")
    done = CliRunner().invoke(app, ["train", "my.yaml", "--dry-run", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["samples"] == 4096


def test_the_export_may_be_left_out(inspected: Inspect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "rehearse", lambda *_: pytest.fail("it exported"))
    facts = json.loads(inspected("sd15", "--no-export-check", "--json").stdout)
    assert list(facts) == [key for key in [*FACTS, "recipe"] if key != "export"]
    assert facts["verdict"] == "can be distilled"


def test_nothing_is_left_behind(here: Path, folder: Callable[[str], Path]) -> None:
    before = left_in(folder("sd15"))
    assert run(folder("sd15"), "--json").exit_code == 0
    assert left_in(here) == ["temporary"]
    assert left_in(folder("sd15")) == before


def no_pipeline(here: Path) -> Path:
    (here / "empty").mkdir()
    return here / "empty"


def half_a_pipeline(here: Path) -> Path:
    (here / "half").mkdir()
    (here / "half" / "model_index.json").write_text(
        '{"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]}'
    )
    return here / "half"


def no_folder(here: Path) -> Path:
    return here / "nowhere"


@pytest.mark.parametrize("make", [no_pipeline, half_a_pipeline, no_folder])
def test_a_folder_that_cannot_be_read_is_one_error(make: Callable[[Path], Path], here: Path) -> None:
    folder = make(here)
    before = left_in(here)
    done = run(folder)
    assert (done.exit_code, done.stdout) == (2, "")
    errors = [line for line in done.stderr.splitlines() if not line.startswith(("inspect: ", "next: "))]
    assert [line.split(":")[0].strip() for line in errors] == ["error", "fix"]
    assert left_in(here) == before
    as_json = run(folder, "--json")
    assert as_json.exit_code == 2
    assert set(json.loads(as_json.stderr)["error"]) == {"type", "message", "hint"}


def test_a_failure_on_the_way_leaves_nothing(
    here: Path, folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise UserError("The planted one.", "None.", code=1)

    monkeypatch.setattr(rehearsal.self_check, "check", fail)
    done = run(folder("sd15"))
    assert (done.exit_code, done.stdout) == (2, "")
    assert "cannot be exported: The planted one." in done.stderr
    assert left_in(here) == ["temporary"]


@pytest.mark.parametrize("override", ["teacher.call={wide: 3}", "trian.steps=1", "teacher.call.height"])
def test_a_wrong_setting_is_one_error(override: str, folder: Callable[[str], Path]) -> None:
    done = run(folder("sd15"), "-s", override)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.count("error: ") == 1


FAULTY = {
    "no tangent": TangentCheck(False, None, None, "planted"),
    "wrong tangent": TangentCheck(True, 0.3, "float32", None),
    "tangent NaN": TangentCheck(True, math.nan, "float32", None),
}


@pytest.mark.parametrize("fault", ["export", "export NaN", *FAULTY])
def test_the_verdict_follows_the_facts(
    fault: str, folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault in FAULTY:
        monkeypatch.setattr(inspect, "_tangent", lambda *_: FAULTY[fault])
    else:
        off = math.nan if "NaN" in fault else 1.0
        monkeypatch.setattr(rehearsal.self_check, "check", lambda *_: Checked(off, off))
    done = run(folder("sd15"), "--json")
    assert done.exit_code != 0 or json.loads(done.stdout)["verdict"] != "can be distilled"


@pytest.mark.parametrize(("setting", "value"), [("teacher.revision", "main"), ("guidance.scale", 3.0)])
def test_given_settings_are_in_the_printed_recipe(setting: str, value: Any, folder: Callable[[str], Path]) -> None:
    done = run(folder("sd15"), "--no-export-check", "--json", "-s", f"{setting}={value}")
    section, key = setting.split(".")
    assert json.loads(done.stdout)["recipe"].get(section, {}).get(key) == value
