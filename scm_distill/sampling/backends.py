"""The two ways to run an exported student or its teacher: a pixel UNet by the card's loop, all else by its stock call.

A maker draws a batch and knows what it draws; `samplers` adds batching, timing and counting.
"""

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scm_distill.data.pictures import to_images
from scm_distill.errors import UserError
from scm_distill.sampling import stock_loop
from scm_distill.sampling.per_sample_noise import PerSample
from scm_distill.sampling.pixel_student import Student
from scm_distill.teachers import Teacher, trace
from scm_distill.teachers.stock_call import Driver, Modality, drive, modality_of

OF_THE_STUDENT = ("num_inference_steps", "guidance_scale", "timesteps", "sigmas")  # what a teacher's call goes without
FPS = 16  # frames a second of a clip whose pipeline does not say: Wan's, HunyuanVideo's and Kandinsky's lie around it


@dataclass(frozen=True)
class Facts:
    """What is drawn, and how."""

    driver: Driver
    classes: int | None  # of driver "labels"
    modality: Modality
    scheduler: str
    default_steps: int
    shape: tuple[int, ...] | None = None  # (C, H, W) of a pixel UNet; elsewhere the call decides
    rate: int | None = None  # samples a second, of audio
    fps: int | None = None  # frames a second, of video

    @property
    def pixels(self) -> bool:
        """Whether it is a pixel UNet."""
        return self.shape is not None


class Pixels:
    """A pixel UNet: a student by its LCMScheduler, a teacher by DDIM. Its stock pipeline takes no labels, it does."""

    def __init__(self, teacher: Teacher, student: Student | None = None) -> None:
        self.net: Any = teacher.net
        self.call: dict[str, Any] = {}
        self.guidance: dict[str, Any] = {}
        self.shape, self.scheduler, self.student = teacher.sample_shape, teacher.scheduler, student
        driver: Driver = "none" if teacher.classes is None else "labels"
        scheduler, steps = ("LCMScheduler", 2) if student else ("DDIMScheduler", stock_loop.TEACHER_STEPS)
        self.facts = Facts(driver, teacher.classes, "image", scheduler, steps, self.shape)
        self.deterministic = student is None

    @property
    def nets(self) -> list[nn.Module]:
        """The UNet."""
        return [self.net]

    def place(self, device: torch.device) -> None:
        """Move it."""
        self.net.to(device)

    def check(self, steps: int) -> None:
        """Raise UserError for a number of steps that the scheduler has not."""
        if self.student:
            self.student.times(steps)

    def batch(self, seeds: Sequence[int], conditions: Sequence[Any], steps: int) -> list[Any]:
        """One image a seed."""
        parameter = next(self.net.parameters())
        device, dtype = parameter.device, parameter.dtype
        labels = torch.tensor(list(conditions), device=device) if self.facts.classes else None
        cond = {} if labels is None else {"class_labels": labels}
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        eps = torch.cat([torch.randn(1, *self.shape, generator=g) for g in generators]).to(device)

        def net(x: Tensor, k: Tensor, **kwargs: Any) -> tuple[Tensor]:
            return (self.net(x.to(dtype), k, **kwargs)[0].float(),)

        if self.student:
            return list(to_images(stock_loop.loop(net, self.scheduler, eps, cond, steps, generators)))
        return list(to_images(stock_loop.ddim(net, self.scheduler, eps, cond, steps)))

    def one(self, seed: int, condition: Any, steps: int) -> Any:
        """A batch of one."""
        return self.batch([seed], [condition], steps)[0]


class Pipeline:
    """A stock pipeline and the arguments of its call.

    `made_for` is a student's number of steps; `guidance` what of `Stock.arguments` guides a teacher.
    """

    def __init__(
        self, pipeline: Any, call: Mapping[str, Any], made_for: int | None, guidance: Mapping[str, Any] | None = None
    ) -> None:
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline, self.call, self.made_for = pipeline, dict(call), made_for
        self.stock = drive(pipeline, shared(call))
        self.guidance: dict[str, Any] = dict(guidance or {})
        known = inspect.signature(pipeline.__call__).parameters
        self.known = set(known)
        modality = modality_of(pipeline)
        settings: Any = self.stock.net.config
        said = next((call.get(n) or known[n].default for n in ("frame_rate", "fps") if n in known), None)
        default = known["num_inference_steps"].default if "num_inference_steps" in known else None
        self.facts = Facts(
            driver=self.stock.driver,
            classes=int(settings.get("num_embeds_ada_norm") or 1000) if self.stock.driver == "labels" else None,
            modality=modality,
            scheduler=type(pipeline.scheduler).__name__,
            default_steps=made_for or (default if isinstance(default, int) else stock_loop.TEACHER_STEPS),
            rate=_rate(pipeline) if modality == "audio" else None,
            fps=(int(said) if said else FPS) if modality == "video" else None,
        )
        self._deterministic: bool | None = None

    @property
    def nets(self) -> list[nn.Module]:
        """Its denoisers."""
        return list(self.stock.denoisers.values())

    @property
    def deterministic(self) -> bool:
        """Whether its scheduler draws no noise after the start: seen in one step of the stock call."""
        if self._deterministic is None:
            condition: Any = {"prompt": "a photo of a cat", "labels": 0, "none": None}[self.facts.driver]
            arguments = self._arguments([condition], self.facts.default_steps)
            seen = trace.watch(self.pipeline, self.stock.denoisers, arguments, steps=1)
            self._deterministic = not seen.steps[0].draws
        return self._deterministic

    def place(self, device: torch.device) -> None:
        """Move it."""
        self.pipeline.to(device)

    def check(self, steps: int) -> None:
        """Raise UserError for a number of steps that a student cannot take."""
        if self.made_for is None or steps == self.made_for:
            return
        if {"timesteps", "sigmas"} & set(self.call):
            raise UserError(f"The call of this student names its {self.made_for} times.", "Leave --steps away.")
        if steps < 2 and self.facts.scheduler.startswith("FlowMatch"):
            raise UserError("A flow student samples in two steps or more.", "Two is what it is for.")

    def _arguments(self, conditions: Sequence[Any], steps: int) -> dict[str, Any]:
        return {**self.stock.arguments(conditions, steps, **self.guidance), **self.call, "num_inference_steps": steps}

    def batch(self, seeds: Sequence[int], conditions: Sequence[Any], steps: int) -> list[Any]:
        """One stock call, one generator a sample; what its scheduler draws without one is each sample's own, too."""
        with self._untouched(), PerSample(seeds) as noise:
            arguments = self._arguments(conditions, steps)
            if "generator" in self.known:
                arguments["generator"] = noise.generators
            torch.random.manual_seed(seeds[0])
            return list(self.pipeline(**arguments)[0])

    def one(self, seed: int, condition: Any, steps: int) -> Any:
        """The stock call of the card: `generator=torch.manual_seed(seed)`, which is the global generator."""
        with self._untouched():
            arguments = self._arguments([condition], steps)
            generator = torch.random.manual_seed(seed)
            if "generator" in self.known:
                arguments["generator"] = generator
            return self.pipeline(**arguments)[0][0]

    @contextmanager
    def _untouched(self) -> Iterator[None]:
        """The global generators are left as they were."""
        device = self.pipeline.device
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
            yield


def shared(call: Mapping[str, Any]) -> dict[str, Any]:
    """What a teacher's call has in common with its student's: sizes and lengths."""
    return {name: value for name, value in call.items() if name not in OF_THE_STUDENT}


def _rate(pipeline: Any) -> int:
    """Samples a second of what an audio pipeline returns."""
    for part in ("vae", "vocoder"):
        config = getattr(getattr(pipeline, part, None), "config", None)
        if rate := getattr(config, "sampling_rate", None) or getattr(config, "sample_rate", None):
            return int(rate)
    return 44100
