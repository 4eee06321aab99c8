"""A teacher's whole way through the real CLI: inspect, three training steps, export; then stock diffusers elsewhere."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from scm_distill.cli.app import app
from scm_distill.export import bundle, self_check
from scm_distill.teachers.convention import Convention
from scm_distill.teachers.trace import Call, Step

SAME = 1e-5  # relative

RECIPE = """
teacher: {{repo: {teacher}, call: {call}}}
data: {data}
guidance: {guidance}
objective: {{sigma_d: {sigma_d}, warmup_steps: 100, tangent: jvp}}
adapt: {{prefit_steps: 2, smooth_time: 20, reclock: {reclock}}}
train: {{steps: 3, batch_size: {batch}, evaluate_samples: 2, checkpoint_every: 3, evaluate_every: 3, device: cpu,
        stop_if_worse: false}}
sampler: {{teacher_steps: 2}}
export: {{t_mid: [1.1], samples: 2}}
"""


def another_interpreter() -> Iterator[Callable[..., dict[str, Any]]]:
    """Asks the other interpreter; one serves all families."""
    command = [sys.executable, str(Path(__file__).with_name("stock_worker.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdin
        assert worker.stdout

        def ask(**request: Any) -> dict[str, Any]:
            worker.stdin.write(json.dumps(request) + "\n")
            worker.stdin.flush()
            for line in worker.stdout:
                if line.startswith("answer "):
                    return json.loads(line.removeprefix("answer "))
            raise AssertionError("the other interpreter died")

        yield ask
        worker.stdin.close()


def cli(*arguments: object) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def ours(trained: Any, exported: Any, seen: dict[str, torch.Tensor]) -> torch.Tensor:
    """Our own two steps from the noise that the other interpreter drew."""
    student, teacher = self_check.alone(trained.student), trained.loaded.teacher
    convention = teacher.convention or Convention("x", "t", {}, teacher.sample_shape, teacher.sample_shape)
    steps = [
        Step([Call("", {convention.x: x}, torch.zeros(1, *teacher.sample_shape))], seen["last"], seen["last"])
        for x in (seen["x0"], seen["x1"])
    ]
    if "z" in seen:
        steps[0].draws = [seen["z"]]
    cond = trained.data.conditioning.for_evaluation(torch.zeros(1, dtype=torch.long))
    x_0, _ = self_check.repeat(student, convention, steps, (exported.t_max, exported.t_mid), cond)
    return x_0


def inspected(teacher: Path, call: Mapping[str, Any], *options: str, tangent: float = 1e-6) -> dict[str, Any]:
    """What `inspect` says of a teacher that can be distilled."""
    facts = cli("inspect", teacher, "-s", f"teacher.call={json.dumps(call)}", *options)
    assert facts["verdict"] == "can be distilled"
    assert "warning" not in facts  # random weights are taken for no few-step network
    verified = facts.get("verified", {})
    assert verified.pop("time map", 0.0) < 2e-3, facts  # some pipelines round their thousand times to integers
    if facts["prediction"] == "edm":
        assert verified.pop("first stock step", 0.0) < 1e-4, facts  # in float32, from 80 to a sample of size one
    assert all(error < SAME for error in verified.values()), facts
    assert facts["tangent"]["exact"], facts
    assert facts["tangent"]["against central difference"] < tangent, facts
    return facts


def goes_the_whole_way(
    teacher: Path,
    conditions: str,
    call: Mapping[str, Any],
    stock: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    *,
    guidance: str = "{scale: 3.0}",
    sigma_d: float = 1.0,
    tangent: float = 1e-6,
) -> None:
    """Take a pipeline folder through all of it; `conditions` is "prompt", "labels" or "none"."""
    here = teacher.parent
    (here / "prompts.txt").write_text("a cat\na dog\n")

    # The run exports its student too, through the same check; but not on a clock of its own.
    reclocked = conditions == "none"
    facts = inspected(teacher, call, *([] if reclocked else ["--no-export-check"]), tangent=tangent)
    assert not reclocked or facts["export"]["stock difference"] < SAME, facts

    prompts = f", prompts: {here}/prompts.txt" if conditions == "prompt" else ""
    data = "builtin:digits/data.npz" if conditions == "none" else f"teacher, samples: 4{prompts}"
    recipe = here / "recipe.yaml"
    recipe.write_text(
        RECIPE.format(
            teacher=teacher,
            call=json.dumps(call),
            data=f"{{source: {data}}}",
            guidance=guidance,
            sigma_d=sigma_d,
            batch=32 if reclocked else 2,  # pixel teachers are probed with 256 samples, a micro-batch at a time
            reclock="false" if reclocked else "auto",  # inspect exports them re-clocked
        )
    )
    seen: list[Any] = []
    write = bundle.write
    monkeypatch.setattr(bundle, "write", lambda t, *rest: seen.append((t, write(t, *rest))) or seen[-1][1])
    summary = cli("train", recipe, "-o", here / "run")
    trained, exported = seen[0]
    assert summary["steps"] == 3
    assert summary["stock_difference"] < SAME
    assert (here / "run" / "samples" / "step-000003.png").exists() or call.get("output_type") == "latent"

    driven = {"prompt": {"prompt": ["a cat"]}, "labels": {"class_labels": [0]}, "none": {"batch_size": 1}}
    answer = stock(
        folder=summary["export"],
        denoiser=trained.loaded.teacher.reading.stock.denoiser if trained.loaded.teacher.reading else "unet",
        call={**driven[conditions], **summary["call"]},
        out=str(here / "seen.safetensors"),
    )
    assert answer["calls"] == 2
    tensors = load_file(here / "seen.safetensors")
    x_0 = ours(trained, exported, tensors)
    last = tensors["last"].reshape(x_0.shape)
    assert (last - x_0).norm() < SAME * x_0.norm()
