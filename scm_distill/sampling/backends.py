"""The two ways to run an exported student or its teacher: a pixel UNet by the card's loop, all else by its stock call.

A backend draws one sample or a batch and knows what it draws; `sampler.Sampler` adds batching, timing and counting.
"""

import inspect
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from scm_distill.artifacts.export_record import Driver, Modality
from scm_distill.data.pictures import to_images
from scm_distill.errors import UserError
from scm_distill.sampling import stock_loop
from scm_distill.sampling.per_sample_noise import PerSample
from scm_distill.sampling.pixel_student import Student
from scm_distill.teachers import Teacher, guider, safety, trace
from scm_distill.teachers.stock_call import drive, modality_of

Condition = str | int | None  # of a sample: a prompt, a class label, or none

STUDENT_ARGUMENTS = ("num_inference_steps", "guidance_scale", "timesteps", "sigmas")  # that a teacher's call is without
FPS = 16  # frames a second of a clip whose pipeline does not say: Wan's, HunyuanVideo's and Kandinsky's lie around it


@dataclass(frozen=True)
class Facts:
    """What a backend draws, and by which scheduler."""

    driver: Driver  # what conditions a sample
    classes: int | None  # how many labels there are; None where it is not driven by labels
    modality: Modality
    scheduler: str
    default_steps: int
    shape: tuple[int, ...] | None = None  # (C, H, W) of a pixel UNet; elsewhere the call decides
    rate: int | None = None  # samples a second, of audio
    fps: int | None = None  # frames a second, of video

    @property
    def pixels(self) -> bool:
        """Whether the denoiser works on pixels, as a UNet2DModel does."""
        return self.shape is not None


class PixelBackend:
    """A pixel UNet: with `student` by its LCMScheduler, else by DDIM; with labels, which no stock pipeline has."""

    def __init__(self, teacher: Teacher, student: Student | None = None) -> None:
        self.net: Any = teacher.net
        self.call: Mapping[str, Any] = {}
        self.guidance: Mapping[str, Any] = {}
        self.shape, self.scheduler, self.student = teacher.sample_shape, teacher.scheduler, student
        driver: Driver = "none" if teacher.classes is None else "labels"
        scheduler, steps = ("LCMScheduler", 2) if student else ("DDIMScheduler", stock_loop.TEACHER_STEPS)
        self.facts = Facts(driver, teacher.classes, "image", scheduler, steps, self.shape)
        self.flagged: tuple[bool, ...] = ()
        self.deterministic = student is None

    @property
    def nets(self) -> list[nn.Module]:
        """The UNet alone."""
        return [self.net]

    def place(self, device: torch.device) -> None:
        """Move the UNet to `device`."""
        self.net.to(device)

    def check(self, steps: int) -> None:
        """Raise UserError for a number of steps that the student's scheduler cannot take."""
        if self.student:
            self.student.times(steps)

    def draw_batch(self, seeds: Sequence[int], conditions: Sequence[Condition], steps: int) -> list[Any]:
        """One PIL image for each seed and condition."""
        parameter = next(self.net.parameters())
        device, dtype = parameter.device, parameter.dtype
        labels = torch.tensor(cast(list[int], conditions), device=device) if self.facts.classes else None
        cond = {} if labels is None else {"class_labels": labels}
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        eps = torch.cat([torch.randn(1, *self.shape, generator=g) for g in generators]).to(device)

        def net(x: Tensor, k: Tensor, **kwargs: Any) -> tuple[Tensor]:
            return (self.net(x.to(dtype), k, **kwargs)[0].float(),)

        if self.student:
            return list(to_images(stock_loop.loop(net, self.scheduler, eps, cond, steps, generators)))
        return list(to_images(stock_loop.ddim(net, self.scheduler, eps, cond, steps)))

    def draw_one(self, seed: int, condition: Condition, steps: int) -> Any:
        """The PIL image of a seed and condition."""
        return self.draw_batch([seed], [condition], steps)[0]


class PipelineBackend:
    """A stock pipeline and the arguments `call` of its call beside prompt, seed and steps.

    `made_for` is the number of steps of a student, None for a teacher; `guidance` are the arguments of
    `StockCall.arguments` that guide a teacher (scale, embedded, negative). `flagged` says which samples of the last
    call its safety checker flagged.
    """

    def __init__(
        self, pipeline: Any, call: Mapping[str, Any], made_for: int | None, guidance: Mapping[str, Any] | None = None
    ) -> None:
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline, self.made_for = pipeline, made_for
        self.call: Mapping[str, Any] = dict(call)
        self.stock = drive(pipeline, shared_arguments(call))
        self.guidance: Mapping[str, Any] = dict(guidance or {})
        parameters = inspect.signature(pipeline.__call__).parameters
        self.takes_generator = "generator" in parameters
        modality = modality_of(pipeline)
        settings: Any = self.stock.net.config
        fps = next((call.get(n) or parameters[n].default for n in ("frame_rate", "fps") if n in parameters), None)
        default = parameters["num_inference_steps"].default if "num_inference_steps" in parameters else None
        self.facts = Facts(
            driver=self.stock.driver,
            classes=int(settings.get("num_embeds_ada_norm") or 1000) if self.stock.driver == "labels" else None,
            modality=modality,
            scheduler=type(pipeline.scheduler).__name__,
            default_steps=made_for or (default if isinstance(default, int) else stock_loop.TEACHER_STEPS),
            rate=_rate(pipeline) if modality == "audio" else None,
            fps=(int(fps) if fps else FPS) if modality == "video" else None,
        )
        self._deterministic: bool | None = None
        self.flagged: tuple[bool, ...] = ()

    @property
    def nets(self) -> list[nn.Module]:
        """The denoisers of the pipeline."""
        return list(self.stock.denoisers.values())

    @property
    def deterministic(self) -> bool:
        """Whether the scheduler draws no noise after the start, by a trace of the first step of the stock call."""
        if self._deterministic is None:
            conditions: dict[Driver, Condition] = {"prompt": "a photo of a cat", "labels": 0, "none": None}
            arguments = self._arguments([conditions[self.facts.driver]], self.facts.default_steps)
            traced = trace.watch(self.pipeline, self.stock.denoisers, arguments, steps=1)
            self._deterministic = not traced.steps[0].draws
        return self._deterministic

    def place(self, device: torch.device) -> None:
        """Move the pipeline to `device`."""
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
        """The keyword arguments of the stock call for these conditions, without a generator."""
        arguments = self.stock.arguments(conditions, steps, **self.guidance)
        return {**arguments, **self.call, **self.stock.texts(len(conditions)), "num_inference_steps": steps}

    def draw_batch(self, seeds: Sequence[int], conditions: Sequence[Condition], steps: int) -> list[Any]:
        """One sample for each seed and condition, in one stock call with a generator for each.

        Noise that the scheduler draws without a generator is each sample's own, too (see `PerSample`).
        """
        if self.stock.alone and len(seeds) > 1:
            pairs = zip(seeds, conditions, strict=True)
            return [sample for seed, one in pairs for sample in self.draw_batch([seed], [one], steps)]
        with self._global_generators_kept(), PerSample(seeds) as noise:
            arguments = self._arguments(conditions, steps)
            if self.takes_generator:
                arguments["generator"] = noise.generators
            torch.random.manual_seed(seeds[0])
            return self._run(arguments)

    def draw_one(self, seed: int, condition: Condition, steps: int) -> Any:
        """The sample of the card's stock call: `generator=torch.manual_seed(seed)`, which is the global generator."""
        with self._global_generators_kept():
            arguments = self._arguments([condition], steps)
            generator = torch.random.manual_seed(seed)
            if self.takes_generator:
                arguments["generator"] = generator
            return self._run(arguments)[0]

    def _run(self, arguments: dict[str, Any]) -> list[Any]:
        """The samples of a stock call."""
        with guider.applied(self.pipeline, arguments) as arguments:
            output = self.pipeline(**arguments)
        self.flagged = safety.flagged(self.pipeline, output)
        return list(output[0])

    def _global_generators_kept(self) -> AbstractContextManager[None]:
        """After it the global generators of the CPU and of the pipeline's GPU are as they were before."""
        device = self.pipeline.device
        return torch.random.fork_rng([device] if device.type == "cuda" else [])


def shared_arguments(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments that a teacher's call has in common with its student's: sizes and lengths."""
    return {name: value for name, value in call.items() if name not in STUDENT_ARGUMENTS}


def _rate(pipeline: Any) -> int:
    """The samples a second of the sounds that an audio pipeline returns, by the configuration of its decoder."""
    for part in ("vae", "vocoder"):
        config = getattr(getattr(pipeline, part, None), "config", None)
        if rate := getattr(config, "sampling_rate", None) or getattr(config, "sample_rate", None):
            return int(rate)
    return 44100
