"""A Hub for this process, and a run folder to push to it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub import Hub, student
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

Start = Callable[..., Hub]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a Hub, and make it the one of this process."""
    running: list[Hub] = []
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    for name in ("HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("HF_HUB_OFFLINE", False), ("HF_HUB_CACHE", str(tmp_path / "cache"))):
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))

    def go(*, xet: bool = False, part: int | None = None) -> Hub:
        hub = Hub(tmp_path / "hub", xet=xet, part=part)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        address = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", not xet)
        running.append(hub.__enter__())
        return hub

    disable_progress_bars()
    yield go
    enable_progress_bars()
    for hub in running:
        hub.__exit__()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return student.write(tmp_path / "run")
