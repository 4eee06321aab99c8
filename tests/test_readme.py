"""What the README says can be typed, is true."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from scm_distill.cli.app import app

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"scm-distill ((?:train|sample|eval|report|push|inspect|doctor|recipes)[^\n`#;&]*)", TEXT)


@pytest.mark.parametrize(
    "line", sorted({line.strip() for line in COMMANDS if "--" not in line or "--nproc" not in line})
)
def test_every_command_of_the_readme_parses(line: str) -> None:
    command = typer.main.get_command(app)
    arguments = shlex.split(line)
    while arguments and hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    command.make_context("scm-distill", arguments)


def test_the_snippet_is_the_cards() -> None:
    from scm_distill.publish.card_snippet import UNCONDITIONAL

    snippet = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1]
    assert snippet.replace("16", "4") == UNCONDITIONAL.format(path="runs/digits/export")


def test_every_file_it_names_exists() -> None:
    for name in re.findall(r"\]\(([a-z][^):]*)\)", TEXT):
        assert (ROOT / name).is_file(), name


def test_the_test_command_is_what_ci_runs() -> None:
    assert "pip install '.[dev]' && pytest" in TEXT
    script = (ROOT / ".ci" / "run").read_text()
    assert "'.[dev]'" in script
    assert "\npytest\n" in script
