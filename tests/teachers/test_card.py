"""The licence in a teacher's own card: read where it can be, and nothing that a card holds stops a teacher."""

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from diffusers import DDPMScheduler, DiffusionPipeline
from typer.testing import CliRunner

from scm_distill import builtin, teachers
from scm_distill.cli import console
from scm_distill.cli.app import app
from scm_distill.publish import card

TEACHER = "builtin:digits/teacher"


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A copy of the packaged teacher, as a snapshot in a Hub cache."""
    source = builtin.path(TEACHER)
    folder = shutil.copytree(str(source), tmp_path / "models--ada--digits" / "snapshots" / "abc")
    (folder / "README.md").unlink(missing_ok=True)
    return folder


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (b"---\nlicense: mit\n---\n# A", {"license": "mit"}),
        (b"\xef\xbb\xbf---\r\nlicense: mit\r\n---\r\n# A", {"license": "mit"}),
        (b"---\nlicense: [apache-2.0, mit]\n---\n", {"license": "apache-2.0, mit"}),
        (b"---\nlicense:\n- mit\n---\n", {"license": "mit"}),
        (b"---\nlicense: mit\nauthor: Ren\xe9\n---\n", {"license": "mit"}),  # latin-1
        (b"---\nlicense: null\nlicense_name: 3\n---\n", {"license_name": "3"}),
        (b"---\nlicense: {a: b}\n---\n", {}),
        (b"---\n- license\n- mit\n---\n", {}),  # a list
        (b"---\nlicense: [mit\n---\n", {}),
        (b"---\nlicense: : mit: {\n---\n", {}),
        (b"---\nwhen: 2024-13-45\nlicense: mit\n---\n", {}),
        (b"---\nlicense: mit\n", {}),
        ("---\nlicense: mit\n---\n".encode("utf-16"), {}),
        (bytes(range(256)), {}),
        (b"", {}),
        (b"# No front matter", {}),
    ],
)  # fmt: skip
def test_the_licence_of_a_card_of_any_kind(text: bytes, fields: dict[str, str], digits: Path) -> None:
    (digits / "README.md").write_bytes(text)
    assert teachers.license_of(str(digits)) == fields


def test_a_folder_in_the_place_of_the_card(digits: Path) -> None:
    (digits / "README.md").mkdir()
    assert teachers.load(str(digits)).source.license == {}


def test_several_licences_are_a_list_in_the_students_card() -> None:
    several: Any = card._listed({"license": "apache-2.0, mit", "license_name": "x"})
    assert several == {"license": ["apache-2.0", "mit"], "license_name": "x"}
    assert yaml.safe_load(yaml.safe_dump(several)) == several
    assert card._listed({"license": "mit"}) == {"license": "mit"}


def test_a_snapshot_of_a_hub_cache_goes_by_its_repository(digits: Path, tmp_path: Path) -> None:
    assert teachers.hub_id_of(str(digits)) == "ada/digits"
    source = teachers.load(str(digits)).source
    assert (source.hub_id, source.name) == ("ada/digits", "ada/digits")
    elsewhere = shutil.copytree(digits, tmp_path / "elsewhere")
    assert teachers.hub_id_of(str(elsewhere)) is None
    assert teachers.hub_id_of("ada/digits") == "ada/digits"
    assert teachers.hub_id_of(TEACHER) is None


def test_what_libraries_print_does_not_get_among_results(capsys: pytest.CaptureFixture[str]) -> None:
    with console.Live(quiet=True):
        print("loaded")
    console.result_json({"a": 1})
    told = capsys.readouterr()
    assert (json.loads(told.out), told.err) == ({"a": 1}, "loaded\n")


@pytest.mark.wide
def test_inspect_prints_json_alone_though_a_library_prints(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = DDPMScheduler.set_timesteps

    @functools.wraps(made)
    def loud(*args: Any, **kwargs: Any) -> Any:
        print("a step")
        return made(*args, **kwargs)

    load = DiffusionPipeline.from_pretrained
    monkeypatch.setattr(DDPMScheduler, "set_timesteps", loud)
    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", lambda *a, **k: (print("loaded"), load(*a, **k))[1])
    done = CliRunner().invoke(app, ["inspect", str(digits), "--json", "--no-export-check"])
    assert done.exit_code == 0, done.output
    assert "loaded" in done.stderr
    assert json.loads(done.stdout)["pipeline"]
