"""The real code on a device that is not the CPU: no mix of devices, no wait in an optimizer step, equal values.

Each case is a process of its own, see session.py. In a step are the copy of the batch, teacher, derivative, loss,
backward, clipping, optimizer and average; its figures are copied to pinned memory and read after the next step. The
pre-fit waits where it reads its loss, every prefit.LOSS_EVERY steps and at the last.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from foreign import build
from foreign.session import FAULTS

pytestmark = pytest.mark.skipif(
    build.compiler() is None, reason="the foreign device is built by g++, and there is none"
)

OFFLOADING = "diffusers/hooks/group_offloading.py"  # waits for the copy of each layer, in runs that offload the teacher
Seen = dict[str, Any]
EVERYTHING = ["cpu", "train", "resume", "sample", "eval", "plan"]
ADAPTER = ["guidance.scale=3.0", "lora.rank=2", "train.memory=lean"]
AWAY = ["train.offload=[teacher, ema]", "guidance.scale=3.0"]
FAMILIES: dict[str, list[tuple[str, list[str], list[str]]]] = {  # of each: precision, what is done, settings
    "digits": [("fp32", EVERYTHING, []), ("bf16", ["step"], ["objective.velocity=data"])],
    "sd15": [("fp32", EVERYTHING, []), ("bf16", ["step"], ADAPTER)],
    "dit": [("fp32", ["cpu", "step"], []), ("bf16", ["train", "resume"], ["guidance.scale=2.0"])],
    "pixart_sigma": [("fp32", ["cpu", "step"], []), ("bf16", ["train"], [])],
    "sd3": [("fp32", ["cpu", "step"], AWAY), ("bf16", ["train"], ["guidance.scale=3.0", "guidance.dropout=0.3"])],
    "flux": [("fp32", EVERYTHING, []), ("bf16", ["step"], ["guidance.scale=[2, 4]"])],
    "wan": [("fp32", ["cpu", "step"], []), ("bf16", ["train"], ["guidance.scale=3.0"])],
    "wan22": [("fp32", ["cpu", "step", "plan"], ["guidance.scale=3.0"]), ("bf16", ["train"], [])],
    "stable_audio": [("fp32", ["cpu", "step"], []), ("bf16", ["train", "sample"], ["guidance.scale=3.0"])],
}


def asked(requests: list[Seen], folder: Path) -> list[Seen]:
    """The answers of a process of its own."""
    requests = [{**request, "out": str(folder / str(i))} for i, request in enumerate(requests)]
    command = [sys.executable, str(Path(__file__).with_name("session.py")), json.dumps(requests)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(answers) == len(requests), done.stderr[-3000:]
    return answers


def waits_for_nothing(run: Seen) -> None:
    assert not [wait for wait in run["steps"] if not wait.startswith(OFFLOADING)]
    assert len(run["prefit"]) <= 1, run["prefit"]  # the last loss of three
    assert all("training/prefit.py" in wait for wait in run["prefit"])
    assert all(n > 100 for n in run["operators"])  # it ran on the device


def check(seen: Seen) -> None:
    assert "error" not in seen, seen["error"]
    for name in ("device", "resumed"):
        if name in seen:
            waits_for_nothing(seen[name])
            assert seen[name].get("difference") is None or seen[name]["difference"] < 1e-5
    if "cpu" in seen:
        assert not any(seen["cpu"]["operators"])
        assert len(seen["cpu"]["losses"]) == 3
        assert seen["device"]["losses"] == pytest.approx(seen["cpu"]["losses"], rel=1e-5, abs=1e-9)
    assert {seen.get(name, "Foreign device") for name in ("sample", "eval")} == {"Foreign device"}
    assert "traced" in seen.get("plan", "traced")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Seen]:
    """Three steps of the digits and of a transformer, on the CPU and on the device, and faults planted in a fourth."""
    requests = [{"name": "digits", "do": ["cpu", "step", "plant", "unplanned"]}]
    requests += [{"name": "flux", "do": ["cpu", "step", "unplanned"]}]
    return asked(requests, tmp_path_factory.mktemp("foreign"))


def test_losses_on_the_device_are_those_of_the_cpu_and_nothing_waits(two: list[Seen]) -> None:
    for seen in two:
        check(seen)


def test_a_wait_or_a_mix_of_devices_in_a_step_is_seen(two: list[Seen]) -> None:
    planted = two[0]["device"]["planted"]
    assert set(planted) == set(FAULTS)
    assert all("objectives/scm.py" in wait and "_local_scalar_dense" in wait for wait in planted["item"]["steps"])
    assert {wait.split(": ")[1].split(" <")[0] for wait in planted["cpu"]["steps"]} == {
        "copy to the host", "copy to the device",
    }  # fmt: skip
    assert planted["item"]["steps"]
    for fault in ("item", "cpu"):
        with pytest.raises(AssertionError):
            waits_for_nothing(planted[fault])
    assert "at least two devices" in planted["mixed"]["error"]


@pytest.mark.wide
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_trains_without_a_mix_or_a_wait(name: str, tmp_path: Path) -> None:
    requests = [{"name": name, "precision": p, "do": do, "set": settings} for p, do, settings in FAMILIES[name]]
    for seen in asked(requests, tmp_path):
        check(seen)
