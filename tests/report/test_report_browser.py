"""report.html in a real browser, at desktop and phone width."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser, browser
from report import example_run

from scm_distill import report as report_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

SIZES = ((1280, 900), (360, 800), (390, 844))
SHOWN = "[...document.images].length > 9 && [...document.images].every(i => i.complete && i.naturalWidth > 0)"
SCROLLS = "[...document.querySelectorAll('.scroll')].some(box => box.scrollWidth > box.clientWidth)"
RUNS = "document.scripts.length"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_page.write(example_run.write(tmp_path_factory.mktemp("browser") / "run"))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_no_error_no_request_and_no_overflow(width: int, height: int, opened: Browser, report: Path) -> None:
    seen = opened.open(report.as_uri(), width, height, evaluate=(SHOWN, SCROLLS, RUNS))
    assert seen.errors == []
    assert seen.requests == [report.as_uri()]
    assert seen.width <= width
    assert seen.values == {SHOWN: True, SCROLLS: width < 600, RUNS: 0}


def test_a_planted_request_error_and_overflow_are_caught(opened: Browser, report: Path) -> None:
    """The check above can fail; and the page's own policy refuses what would be asked for, even if it were there."""
    planted = (
        '<img src="http://127.0.0.1:9/x.png" alt=""><p style="width: 900px">wide</p><script>throw Error()</script>'
    )
    text = report.read_text().replace("</main>", planted + "</main>")
    guarded, bare = report.with_name("guarded.html"), report.with_name("bare.html")
    guarded.write_text(text)
    bare.write_text(text.replace('http-equiv="Content-Security-Policy"', 'name="nothing"'))

    seen = opened.open(bare.as_uri(), 360, 800)
    assert "http://127.0.0.1:9/x.png" in seen.requests
    assert any("Uncaught" in error for error in seen.errors)
    assert seen.width > 360

    seen = opened.open(guarded.as_uri(), 360, 800)
    assert any("Content Security Policy" in error for error in seen.errors)
    assert not any("Uncaught" in error for error in seen.errors)
