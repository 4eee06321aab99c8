"""The stages of `run.sh`: what each is called, where its code lies, and how long it may take."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Stage:
    """A process of its own, which calls `function` of `module` and is killed after `limit` seconds.

    Stages with `alone` set are timed: they run one after the other once all others have ended. `needs` is what one
    cannot do without: "gpu", or "cuda", which tests/foreign has too.
    """

    name: str
    module: str
    function: str
    limit: float
    what: str
    alone: bool = False
    needs: Literal["", "cuda", "gpu"] = ""

    def runs_on(self, device: str) -> bool:
        """Whether `device` ("cuda", "foreign" or "cpu") has what it needs."""
        return device in {"": ("cuda", "foreign", "cpu"), "cuda": ("cuda", "foreign"), "gpu": ("cuda",)}[self.needs]


STAGES = (
    Stage("kernels", "gpu.attention", "kernels", 120, "every variant of the attention kernel compiles without spills"),
    Stage("digits", "gpu.runs", "digits", 60, "five steps of the digits give the losses of this machine's CPU"),
    Stage("sync", "gpu.runs", "sync", 60, "an optimizer step does not wait for the device", needs="gpu"),
    Stage("compile-real", "gpu.steps", "compile_real", 160, "blocks of real networks compile", needs="gpu"),
    Stage("compile-blocks", "gpu.runs", "compile_blocks", 150, "train.compile=blocks on small networks"),
    Stage("compile-step", "gpu.runs", "compile_step", 150, "train.compile=step on a small network"),
    Stage("families", "gpu.runs", "families", 120, "six families take three bf16 steps, and their exports check"),
    Stage("options", "gpu.runs", "options", 150, "every other setting of train.* for ten steps"),
    Stage("memory", "gpu.memory", "plan", 100, "the memory that a run reserves is the plan's to 10 %", needs="cuda"),
    Stage("out-of-memory", "gpu.memory", "out_of_memory", 80, "a lack of memory is one explained error", needs="cuda"),
    Stage("sample", "gpu.runs", "sample_and_eval", 60, "sample and eval in bf16"),
    Stage("kernel-tests", "gpu.attention", "tests", 120, "pytest -m gpu tests/autodiff/test_flash_gpu.py", needs="gpu"),
    Stage("attention", "gpu.attention", "timing", 40, "it and its tangent beside PyTorch's", alone=True, needs="gpu"),
    Stage("latency", "gpu.steps", "latency", 45, "two steps of a 1.5 B student at 512 px, the VAE apart", alone=True),
    Stage("step", "gpu.steps", "step", 120, "the step of DiT-XL/2 and of a 1.5 B MMDiT, host and device", alone=True),
)
