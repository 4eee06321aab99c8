"""What the READMEs say is true: commands parse, files and settings exist, lists are complete, links lead somewhere."""

import ast
import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import check
import pytest
import typer
import yaml
import zoo
from pydantic import BaseModel

from scm_distill import config
from scm_distill.cli.app import app

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "scm_distill"
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in (
        "README.md", "scm_distill/README.md", "scm_distill/teachers/README.md", "recipes/README.md", "tests/README.md",
    )
}  # fmt: skip
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PLACES = ("RUN/", "OUT/", "photos/", "runs/")  # of a user, not of the repository


def code_of(text: str) -> Iterator[str]:
    """What stands in backticks, and the lines of fenced blocks without their comments."""
    for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL):
        yield from (line.partition(" #")[0].strip() for line in block.splitlines())
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def commands() -> list[str]:
    found = (
        part.strip()
        for text in PAGES.values()
        for code in code_of(text)
        for part in re.split(r"&&|;", code)
    )  # fmt: skip
    starts = "scm-distill ", "python -m scm_distill "
    return sorted({start + part.split(start, 1)[1] for part in found for start in starts if start in part})


@pytest.mark.parametrize("line", commands())
def test_every_command_parses(line: str) -> None:
    arguments = shlex.split(line.replace("...", "more"))
    command = typer.main.get_command(app)
    arguments = arguments[1 if arguments[0] == "scm-distill" else 3 :]
    while arguments and hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    command.make_context("scm-distill", arguments)


def test_every_command_of_the_program_is_in_the_readme() -> None:
    named = {line.split()[1] for line in commands() if line.startswith("scm-distill ")}
    assert named >= set(typer.main.get_command(app).commands)


def test_the_snippet_is_the_cards() -> None:
    from scm_distill.publish.card_snippet import UNCONDITIONAL

    snippet = re.search(r"```python\n(.*?)```", PAGES["README.md"], re.DOTALL)[1]
    assert snippet.replace("16", "4") == UNCONDITIONAL.format(path="runs/digits/export")


def test_every_python_block_compiles_and_imports_what_exists() -> None:
    blocks = [block for text in PAGES.values() for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]
    assert len(blocks) >= 3
    for node in (node for block in blocks for node in ast.walk(ast.parse(block))):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("scm_distill"):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of headings."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.is_file(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


def test_every_path_exists() -> None:
    for page, text in PAGES.items():
        for code in code_of(text):
            for name in re.findall(r"(?<![\w/.<~-])[\w./-]+(?:\.py|(?<=\w)/)(?![\w*])", code):
                if name.startswith(PLACES) or name.startswith(("samples/", "export/", "checkpoints/", "conditions/")):
                    continue
                bases = (ROOT, PACKAGE, (ROOT / page).parent, PACKAGE / "training", PACKAGE / "teachers")
                assert any((base / name).exists() for base in bases), (page, name)


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys(field.annotation, f"{prefix}{name}.")


def test_every_setting_exists() -> None:
    sections = "|".join(config.Recipe.model_fields)
    known, free = set(keys(config.Recipe)), "teacher.call"
    for page, text in PAGES.items():
        for code in code_of(text):
            for name in re.findall(rf"(?<![\w./])(?:{sections})\.\w+(?!\w*/)", code):
                if name.rpartition(".")[2] not in ("py", "md", "yaml"):
                    assert name in known or name.startswith(free), (page, name)


def test_the_settings_sections_are_listed() -> None:
    table = PAGES["recipes/README.md"].split("## Settings")[1].split("###")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(config.Recipe.model_fields)


def test_every_recipe_is_listed_with_its_cost_and_state() -> None:
    rows = dict(re.findall(r"^\| \[([^]]+)\]\(\1\.yaml\) \| (.*) \|$", PAGES["recipes/README.md"], re.MULTILINE))
    assert set(rows) == set(config.names())
    for name, row in rows.items():
        head = (ROOT / "recipes" / f"{name}.yaml").read_text().split("\n\n")[0]
        cost = re.search(r"about (\d+) (H100 hours|minutes)", head)[1]
        assert cost in re.split(r"\W+", row), (name, cost)
        assert ("not yet run at full size" in head) == ("not yet run at full size" in row), name


def test_the_tree_of_rooms_is_the_folder_and_the_floors() -> None:
    listed = re.findall(r"^[├└]── (\w+)/", PAGES["scm_distill/README.md"], re.MULTILINE)
    assert sorted(listed) == sorted(p.parent.name for p in PACKAGE.glob("*/__init__.py"))
    contract = next(c for c in PROJECT["tool"]["importlinter"]["contracts"] if c["name"] == "floors")
    floors = [room for layer in contract["layers"] for room in layer.split(" | ") if room in listed]
    assert listed == floors


def test_algorithm_1_is_where_the_page_says() -> None:
    table = PAGES["scm_distill/README.md"].split("## Algorithm 1")[1].split("###")[0]
    rows = re.findall(r"^\| [^`]* \| (`[^|]*) \| `([\w/.]+)`", table, re.MULTILINE)
    assert len(rows) == 10
    for names, file in rows:
        source = (PACKAGE / file).read_text()
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^(def|class) {name}\b", source, re.MULTILINE), (name, file)


def test_every_family_of_the_tests_is_listed_once() -> None:
    table = PAGES["scm_distill/teachers/README.md"].split("## Families")[1].split("## Exceptions")[0]
    rows = [row.rpartition(" | ")[2] for row in re.findall(r"^\| (.*) \|$", table, re.MULTILINE)]
    listed = re.findall(r"`(\w+)`", " ".join(rows))
    families = zoo.load_all()
    assert sorted(listed) == sorted(families)
    refused = re.findall(r"`(\w+)`", next(row for row in rows if "ace_step" in row))
    for page in ("README.md", "recipes/README.md"):
        assert {int(n) for n in re.findall(r"(\d+) families", PAGES[page])} <= {len(families) - len(refused)}


def test_every_exception_of_a_family_is_listed() -> None:
    table = PAGES["scm_distill/teachers/README.md"].split("## Exceptions")[1].split("\n## ")[0]
    files = {p.name for p in (PACKAGE / "teachers" / "families").glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"families/(\w+\.py)", table)) == files


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 160


def test_every_marker_is_explained_and_exists() -> None:
    markers = {entry.partition(":")[0] for entry in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
    page = PAGES["tests/README.md"]
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == markers
    assert set(re.findall(r"-m (\w+)`", page)) <= markers


def test_every_benchmark_is_named() -> None:
    files = {p.name for p in (ROOT / "tests" / "benchmarks").glob("*.json")}
    assert files <= set(re.findall(r"\[(\w+\.json)\]", PAGES["tests/README.md"]))


def test_the_versions_of_the_page_are_the_bounds() -> None:
    needed = [*PROJECT["project"]["dependencies"], *chain(*PROJECT["project"]["optional-dependencies"].values())]
    bounds = dict(re.findall(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", "\n".join(needed)))
    oldest = dict(re.findall(r"([\w-]+)==([\d.]+)", PAGES["tests/README.md"].split("## Versions")[1]))
    assert {name for name in oldest if name not in bounds} == set()
    for name, version in oldest.items():
        assert (version + ".0.0").startswith(bounds[name] + "."), (name, version, bounds[name])


def test_the_test_command_is_what_ci_runs() -> None:
    assert "pip install '.[dev]' && pytest" in PAGES["README.md"]
    script = (ROOT / ".ci" / "run").read_text()
    assert "'.[dev]'" in script
    assert "\npytest\n" in script


def test_commit_hooks_are_quick_checks_and_download_nothing() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    called = [shlex.split(hook["entry"]) for hook in hooks[0]["hooks"]]
    assert [command[:2] for command in called] == [["python", "tests/check.py"]] * len(called)
    assert sorted(command[2] for command in called) == sorted(check.STATIC)
    assert {hook["language"] for hook in hooks[0]["hooks"]} == {"system"}


def test_all_checks_with_one_command(monkeypatch, capsys) -> None:
    ran = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess:
        ran.append(command)
        return subprocess.CompletedProcess(command, 1 if "ruff" in command and "check" in command else 0)

    monkeypatch.setattr(check.subprocess, "run", run)
    assert check.main(["--", "-m", "quick"]) == 1
    assert ran[:-1] == list(check.STATIC.values())
    assert ran[-1] == [sys.executable, "-m", "pytest", "-m", "quick"]
    assert capsys.readouterr().out.splitlines()[-1] == "failed: ruff check"
    ran.clear()
    assert check.main(["mypy"]) == 0
    assert ran == [check.STATIC["mypy"]]
    assert check.main(["mipy"]) == 2
