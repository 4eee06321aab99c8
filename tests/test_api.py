"""The public functions: the page that shows them, what they print (nothing), what importing them costs (nothing)."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

import scm_distill

PACKAGE = Path(scm_distill.__file__).parent


@pytest.mark.filterwarnings("ignore")
def test_the_page_is_true_and_nothing_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("SCM_DISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("scm_distill.publish.hub.get_token", lambda: None)
    assert doctest.testmod(scm_distill) == (0, len(doctest.DocTestFinder().find(scm_distill)[0].examples))
    assert capfd.readouterr() == ("", "")


def test_import_needs_neither_torch_nor_pydantic() -> None:
    probe = "import sys, scm_distill; print({'torch', 'pydantic', 'typer'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True).stdout == "set()\n"


def test_every_public_name_is_where_it_is_looked_for() -> None:
    assert [getattr(scm_distill, name).__name__ for name in scm_distill.__all__] == scm_distill.__all__
    assert set(scm_distill.__all__) <= set(dir(scm_distill))
    with pytest.raises(AttributeError, match="has no attribute 'distil'"):
        scm_distill.distil  # noqa: B018


def test_no_module_of_the_package_imports_a_public_name_from_the_top() -> None:
    """The import contracts do not follow the top module's imports, so a room could climb through it."""
    found = {
        name.strip()
        for path in PACKAGE.rglob("*.py")
        for names in re.findall(r"^\s*from scm_distill import (.+)$", path.read_text(), re.MULTILINE)
        for name in names.split(",")
    }
    assert not found & set(scm_distill.__all__)
    assert "__version__" in found
