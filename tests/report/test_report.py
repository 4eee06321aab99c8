"""report.html by its text: whole, harmless, and true to the run's figures."""

import base64
import io
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from report import example_run

from scm_distill import config, report
from scm_distill.errors import UserError
from scm_distill.report import run_folder, verdict
from scm_distill.report.pictures import preview


class Parsed(HTMLParser):
    """Tags, every address that a tag names, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[tuple[str, str]] = []
        self.handlers: list[str] = []
        self.pictures: list[tuple[bytes, str]] = []
        self.said = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = {name: value or "" for name, value in attrs}
        self.handlers += [name for name in given if name.startswith("on")]
        self.addresses += [(tag, given[name]) for name in ("src", "href", "srcset", "action", "data") if name in given]
        if tag == "img":
            self.pictures.append((base64.b64decode(given["src"].partition("base64,")[2]), given["alt"]))

    def handle_data(self, data: str) -> None:
        self.said += data + " "


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example_run.write(tmp_path_factory.mktemp("finished") / "cats")


@pytest.fixture(scope="module")
def text(run: Path) -> str:
    made = report.write(run)
    assert made == run / "report.html"
    return made.read_text()


def test_it_asks_for_nothing_and_runs_nothing(text: str) -> None:
    parsed = Parsed(text)
    assert not parsed.tags & {"script", "link", "iframe", "object", "embed", "base", "form", "video", "audio"}
    assert not parsed.handlers
    for tag, address in parsed.addresses:
        allowed = ("#", "https://") if tag == "a" else ("data:image/",)
        assert address.startswith(allowed), (tag, address[:60])
    assert "url(" not in text
    assert "@import" not in text
    assert example_run.HOSTILE in parsed.said  # shown as what it is


def test_its_pictures_decode_and_are_described(text: str) -> None:
    pictures = Parsed(text).pictures
    assert len(pictures) == 2 + 6 + 9  # sheets, history with teacher, plots
    for data, alt in pictures:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            assert image.width > 2
            assert len(image.getcolors(1 << 24) or []) > 1
        assert len(alt) > 20


def test_no_folder_and_no_token_is_in_it(text: str, run: Path) -> None:
    for secret in (str(run.parent), "/home/someone", "/data/secret", example_run.TOKEN):
        assert secret not in text
    said = Parsed(text).said
    assert "(token)" in said
    assert "repo: kitten" in said


def test_the_figures_are_the_runs(text: str) -> None:
    said = " ".join(Parsed(text).said.split())
    assert "The two-step student matches its teacher" in said
    assert "is 1.06 times that of the teacher at its default 50 steps" in said
    assert "25 times fewer network evaluations and is 24.5 times as fast" in said
    assert "Sampler Evaluations Fréchet distance ↓ Recall ↑ Scheduler Student, 1 step 1 24.0" in said
    assert "Student, 2 steps 2 17.0 0.900 student scheduler" in said
    assert f"Teacher, 50 steps 50 1{verdict.TIMES} 20.0 1.00{verdict.TIMES}" in said
    assert "n = 512, seed 0, reference cats, features digits 0123456789ab" in said
    assert f"2 {verdict.TIMES} A100" in said
    assert "2026-01-02 03:04:05 20 scm-distill train mine.yaml" in said


def test_a_killed_run_has_a_report_too(tmp_path: Path) -> None:
    run = example_run.write(tmp_path / "run", finished=False)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    again = json.dumps({**json.loads(lines[20]), "loss": 77.0})  # as a resumed run may leave it
    (run / "metrics.jsonl").write_text("\n".join([*lines[:-1], again, lines[-1]]))
    read = run_folder.read(run)
    assert [line.step for line in read.steps] == list(range(1, 26))
    assert [line.loss for line in read.steps].count(77.0) == 1
    said = " ".join(Parsed(report.write(run).read_text()).said.split())
    assert "Not finished The run stopped at step 25 of 40." in said
    assert "scm-distill eval run" in said


def test_lines_that_are_no_figures_are_passed_over(tmp_path: Path) -> None:
    run = example_run.write(tmp_path / "run")
    before = run_folder.read(run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('12\nnull\n["loss"]\n"student"\n{"loss": 1}\n')
    assert run_folder.read(run) == before


def test_a_report_keeps_prompts_and_no_relative_folder(tmp_path: Path) -> None:
    run = example_run.write(tmp_path / "run", finished=False)
    changes = [
        "teacher.repo=../ACME/kitten",
        "data.source=acme/cats",
        "guidance.negative_prompt=/bad and ugly/deformed",
    ]
    (run / "config.yaml").write_text(config.dump(config.read(str(run / "config.yaml"), changes)))
    text = report.write(run).read_text()
    assert run_folder.read(run).teacher == "kitten"
    assert "acme" not in text.lower()
    assert "/bad and ugly/deformed" in text


def test_a_run_before_its_first_step_has_one_as_well(tmp_path: Path) -> None:
    run = example_run.write(tmp_path / "run", finished=False)
    for name in ("metrics.jsonl", "env.json"):
        (run / name).unlink()
    for picture in (run / "samples").iterdir():
        picture.unlink()
    parsed = Parsed(report.write(run).read_text())
    assert "Too few steps for a curve: 0 recorded." in parsed.said
    assert not parsed.pictures


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        report.write(tmp_path)
    run = example_run.write(tmp_path / "run")
    (run / "export/eval.json").write_text("{")
    with pytest.raises(UserError, match=r"eval\.json is no JSON"):
        report.write(run)
    assert not list(run.glob("report.html*"))


@pytest.mark.parametrize(
    ("fd", "kind", "title"),
    [
        (0.98, "good", "as good as"),
        (1.1, "good", "matches"),
        (1.3, "fair", "close to"),
        (2.0, "poor", "falls short"),
    ],
)
def test_the_verdict_follows_the_distance(fd: float, kind: str, title: str, run: Path) -> None:
    read = run_folder.read(run)
    ratios = read.evaluation.ratios.model_copy(update={"fd": fd})
    found = verdict.headline(replace(read, evaluation=read.evaluation.model_copy(update={"ratios": ratios})))
    assert (found.kind, title in found.title) == (kind, True)


def test_without_eval_the_exports_own_table_speaks(run: Path) -> None:
    found = verdict.headline(replace(run_folder.read(run), evaluation=None))
    assert found.kind == "good"
    assert "is 1.05 times that of the teacher in 50 evaluations" in found.text


def test_a_preview_is_cut_into_its_samples(tmp_path: Path) -> None:
    run = example_run.write(tmp_path / "run", samples=5)
    cut = preview(10, run / "samples/step-000010.png")
    rows = [cut.teacher, cut.two_steps, cut.one_step]
    assert [[tile.size for tile in row] for row in rows] == [[(64, 64)] * 5] * 3
    assert [tile.getpixel((0, 0))[0] for tile in rows[1]] == [10 + 5 * i for i in range(5, 10)]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (17.04, "17.0"), (0.00494, "0.00494"), (221.3, "221"), (1422.2, "1,422"), (999.7, "1,000"),
        (-0.2146, "\u22120.215"), (0.0, "0"), (None, "\u2013"), (float("nan"), "\u2013"), (float("inf"), "∞"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert verdict.number(value) == text


def test_doubts_about_the_teacher_are_in_it(tmp_path: Path) -> None:
    folder = example_run.write(tmp_path / "run")
    environment = json.loads((folder / "env.json").read_text())
    environment["sessions"][-1]["doubts"] = ["kitten may be a few-step network already"]
    (folder / "env.json").write_text(json.dumps(environment))
    assert "kitten may be a few-step network already" in report.write(folder).read_text()
