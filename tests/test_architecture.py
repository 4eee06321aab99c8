"""The house: imports go down only, nothing is too long, the wheel carries what it promises."""

from importlib import resources
from pathlib import Path

from importlinter import cli as importlinter

import scm_distill

PACKAGE = Path(scm_distill.__file__).parent


def test_imports_go_down_only(monkeypatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    assert importlinter.lint_imports(no_cache=True) == importlinter.EXIT_STATUS_SUCCESS


def test_no_file_is_over_300_lines() -> None:
    long = {p.name: n for p in PACKAGE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 300}
    assert not long


def test_the_packaged_digits_are_small_safe_and_known() -> None:
    digits = resources.files("scm_distill") / "builtin" / "digits"
    files = [p for p in Path(str(digits)).rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 2_000_000
    assert {p.suffix for p in files} == {".npz", ".json", ".safetensors", ".md"}


def test_the_packaged_data_are_scikit_learns_digits(tmp_path: Path) -> None:
    import numpy as np

    from scm_distill.builtin.make_digits import write_data

    write_data(tmp_path / "data.npz")
    packaged, made = (np.load(p) for p in (PACKAGE / "builtin/digits/data.npz", tmp_path / "data.npz"))
    assert np.array_equal(packaged["images"], made["images"])
    assert np.array_equal(packaged["labels"], made["labels"])
