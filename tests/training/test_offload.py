"""What waits in host memory is what it is on the device, and no step waits for it; on the foreign device."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from foreign import build

pytestmark = [
    pytest.mark.wide,
    pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler to build the foreign device with"),
]


def answer(what: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).with_name("offload_worker.py")), what, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("answer ")]
    assert lines, done.stderr
    return json.loads(lines[0].removeprefix("answer "))


def test_an_average_on_the_host_is_that_on_the_device_and_no_update_waits(tmp_path: Path) -> None:
    found = answer("ema", tmp_path)
    assert found.pop("waits") == []
    one = ["main waits for side 0", "main waits for side 1", "step", "side 0 waits for main", "side 1 waits for main"]
    assert found.pop("log") == 3 * one  # no step changes what is still read, no update reads what is not yet stepped
    assert found == dict.fromkeys(found, True)


def test_a_teacher_on_the_host_follows_its_low_pass(tmp_path: Path) -> None:
    found = answer("teacher", tmp_path)
    assert found["off"] == [0.0] * 6
    assert found["left"] == []
