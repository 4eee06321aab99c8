"""What waits in host memory, on the foreign device: `python offload_worker.py ema | teacher`; prints JSON."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import foreign

foreign.activate()

import torch  # noqa: E402
from conftest import tiny_net  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from scm_distill.artifacts.files import save_tensors  # noqa: E402
from scm_distill.maths.clocks import DiscreteSchedule  # noqa: E402
from scm_distill.models import ema, low_pass  # noqa: E402
from scm_distill.models.network import Network  # noqa: E402
from scm_distill.models.student import Student  # noqa: E402
from scm_distill.progress import Silent  # noqa: E402
from scm_distill.training import teacher_weights  # noqa: E402
from scm_distill.training.checkpoint import TrainState  # noqa: E402

CUDA = torch.device("cuda", 0)
BAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)


def network() -> Network:
    """A tiny UNet with its time embedding prepared, on the device."""
    F = Network(tiny_net(), DiscreteSchedule(BAR, 1.0), "v_prediction", 1.0).to(CUDA)
    x, t = samples()
    assert low_pass.prepare(F, x, t, {}) == ["time_embedding.linear_1"]
    return F


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    """x_t (3, 1, 8, 8) and t (3,)."""
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return x.to(CUDA), torch.linspace(0.2, 1.4, 3, dtype=torch.float64).to(CUDA)


def noted(log: list[str]) -> None:
    """Let `log` hear which queue waits for which, and of the optimizer's changes."""
    names: dict[int, str] = {}

    def wait(self: Any, other: Any) -> None:
        log.append(f"{names.get(id(self), 'main')} waits for {names.get(id(other), 'main')}")

    plain: Callable[..., None] = torch.cuda.Stream.__init__

    def begin(self: Any, *given: Any, **named: Any) -> None:
        plain(self, *given, **named)
        if given:  # one of ours: that of the current stream is made without a device
            names[id(self)] = f"side {len(names)}"

    torch.cuda.Stream.__init__, torch.cuda.Stream.wait_stream = begin, wait  # type: ignore[method-assign]


def of_ema(folder: Path) -> dict[str, Any]:
    """An average on the host beside one on the device, over three optimizer steps."""
    log: list[str] = []
    noted(log)
    ema.BLOCK = 5000  # several blocks, and parameters that are larger than one
    student = Student(network().requires_grad_(True), adaptive=True).to(CUDA)
    here, away = ema.PowerEMA(student, 0.1), ema.PowerEMA(student, 0.1, torch.device("cpu"))
    optimizer = torch.optim.Adam(student.parameters(), 1e-2)
    TrainState(student, optimizer, away)
    waits = []
    for step in (1, 2, 3):
        for p in student.parameters():
            p.grad = torch.full_like(p, 0.1 * step)
        before = away._module.network.net.conv_in.weight.clone()
        optimizer.step()
        log.append("step")
        with foreign.counting() as counted:
            away.update(student, step)
        waits += [str(wait) for wait in counted.synchronisations]
        here.update(student, step)
    parameters = dict(away.module.named_parameters())
    with away.on(CUDA) as there:
        found = {
            "on the device": {p.device.type for p in (*there.parameters(), *there.buffers())} == {"cuda"},
            "equal": all(torch.equal(a, b) for a, b in zip(there.parameters(), here.module.parameters(), strict=True)),
            "runs": torch.equal(*(m.network(*samples(), {}) for m in (there, here.module))),
        }
    save_tensors(parameters, folder / "ema.safetensors")
    saved = load_file(folder / "ema.safetensors")
    return {
        **found,
        "moved": not torch.equal(before, parameters["network.net.conv_in.weight"]),
        "at home": all(p.is_pinned() and p.device.type == "cpu" for p in away.module.parameters()),
        "saved": all(torch.equal(saved[name], p) for name, p in parameters.items()),
        "waits": waits,
        "log": log,
    }


def of_teacher(_: Path) -> dict[str, Any]:
    """A teacher on the host beside one on the device, while the low-pass changes; bytes on the device between calls."""
    x, t = samples()
    here, away = network(), network()
    teacher_weights.offload(away, CUDA, Silent())
    off = []
    with torch.no_grad():
        for width in (0.0, 20.0, 3.0):
            for F in (here, away):
                low_pass.set_width(F.net, width)
            off.append(float((here(x, t, {}) - away(x, t, {})).abs().max()))
            with low_pass.original(here.net), low_pass.original(away.net):
                off.append(float((here(x, t, {}) - away(x, t, {})).abs().max()))
    return {"off": off, "left": [name for name, p in away.net.named_parameters() if p.is_cuda]}


if __name__ == "__main__":
    print("answer " + json.dumps({"ema": of_ema, "teacher": of_teacher}[sys.argv[1]](Path(sys.argv[2]))))
