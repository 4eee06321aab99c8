"""The stock call of a pipeline: which arguments drive it, and how to run it with a fake denoiser."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from scm_distill.artifacts.export_record import Driver, Modality
from scm_distill.autodiff.torch_private import BatchNorm
from scm_distill.errors import UserError
from scm_distill.teachers import guider, halves, trace

DENOISERS = ("transformer", "unet", "transformer_2")
TIMES = ("timestep", "timesteps", "t")
Fill = Callable[..., Tensor]  # torch.zeros, torch.randn
PER_PROMPT = ("num_images_per_prompt", "num_videos_per_prompt", "num_waveforms_per_prompt")
ONE_TEXT = ("<class 'str'>", "str", "str | None", "typing.Optional[str]")  # annotations of a prompt that is no list
_ALONE = "scm-distill draws one sample a prompt; leave it away."
_OURS = "scm-distill sets it itself; leave it away."
RESERVED = {  # arguments of the stock call that have a setting of their own, or are ours
    "guidance_scale": "Set guidance.scale.",
    "true_cfg_scale": "Set guidance.scale.",
    "guidance_scale_2": "Set guidance.scale.",
    "negative_prompt": "Set guidance.negative_prompt.",
    "prompt": "Set data.prompts.",
    **dict.fromkeys((*PER_PROMPT, "batch_size"), _ALONE),
    **dict.fromkeys(("num_inference_steps", "timesteps", "sigmas", "latents", "generator", "class_labels"), _OURS),
}


def refusal(pipeline: Any, why: str, fix: str = "") -> UserError:
    """The error for a `pipeline` (or its name) that cannot be read, `why` being a clause after a colon."""
    name = pipeline if isinstance(pipeline, str) else type(pipeline).__name__
    return UserError(
        f"{name} cannot be read: {why}.",
        fix
        or "scm-distill reads pipelines whose denoiser predicts noise, velocity, flow or x_0 from a sample and a time.",
    )


@dataclass
class StockCall:
    """A pipeline and how its call is driven: by prompts, class labels or nothing.

    `extra` are the arguments of the user's teacher.call, such as height. `denoiser` is the name of the component.
    """

    pipeline: Any
    extra: dict[str, Any]
    driver: Driver
    denoiser: str
    guided_by: str | None  # the argument that scales classifier-free guidance; guider.ARGUMENT stands for a component
    embeds_guidance: bool  # the scale is an input of the denoiser itself
    both: halves.Halves | None = None  # of a call that evaluates both halves where guidance is off
    needs_negative: bool = False  # a guided call fails without a negative prompt
    template: Any = None  # batch size and output of the first recorded call of the denoiser
    stand_in: Any = None  # the scheduler that its watched calls run under, None for the pipeline's own

    @property
    def net(self) -> nn.Module:
        """The denoiser."""
        net: nn.Module = getattr(self.pipeline, self.denoiser)
        return net

    @property
    def scheduler(self) -> Any:
        """The scheduler that watched calls run under."""
        return self.pipeline.scheduler if self.stand_in is None else self.stand_in

    @property
    def default_scale(self) -> float | None:
        """The scale of classifier-free guidance of a call that names none."""
        if self.guided_by == guider.ARGUMENT:
            return guider.default(self.pipeline)
        parameter = inspect.signature(self.pipeline.__call__).parameters.get(self.guided_by or "")
        default = parameter.default if parameter else None
        return float(default) if isinstance(default, int | float) else None

    @property
    def denoisers(self) -> dict[str, nn.Module]:
        """Every denoiser of the pipeline, by name."""
        return {name: net for name in DENOISERS if isinstance(net := getattr(self.pipeline, name, None), nn.Module)}

    def arguments(
        self,
        ids: Sequence[str] | Sequence[int],
        steps: int,
        *,
        scale: float | None = None,
        embedded: float | None = None,
        negative: str = "",
    ) -> dict[str, Any]:
        """The arguments of a call for prompts or class labels `ids`, with `steps` scheduler steps.

        `scale` is the scale of classifier-free guidance, `embedded` the one that is an input of the denoiser.
        """
        parameters = inspect.signature(self.pipeline.__call__).parameters
        call: dict[str, Any] = {"num_inference_steps": steps}
        n = len(ids)
        if self.driver == "prompt":
            call["prompt"] = self._text(ids)
            if self.alone and n > 1:
                call[next(name for name in PER_PROMPT if name in parameters)] = n
        elif self.driver == "labels":
            call["class_labels"] = list(ids)
        elif "batch_size" in parameters:
            call["batch_size"] = n
        if scale is not None and self.guided_by:
            call[self.guided_by] = scale
            wants_negative = scale > 1 and (self.needs_negative or self.guided_by == "true_cfg_scale")
            if self.driver == "prompt" and "negative_prompt" in parameters and (negative or wants_negative):
                call["negative_prompt"] = self._text([negative or " "] * n)
        if guider.other_kinds(self.pipeline):
            call[guider.ARGUMENT] = None
        if embedded is not None and self.embeds_guidance and self.guided_by != "guidance_scale":
            call["guidance_scale"] = embedded
        return call | self.extra | self.texts(n)

    @property
    def alone(self) -> bool:
        """Whether the call takes one prompt, and no list of them, by its signature."""
        prompt = inspect.signature(self.pipeline.__call__).parameters.get("prompt")
        return prompt is not None and str(prompt.annotation) in ONE_TEXT

    def _text(self, texts: Sequence[Any]) -> Any:
        return texts[0] if self.alone else list(texts)

    def texts(self, n: int) -> dict[str, list[str]]:
        """Other texts of the call that may be lists, such as lyrics, one for each of `n` samples; none for a single."""
        texts: dict[str, list[str]] = {}
        if n == 1:
            return texts
        for name, parameter in inspect.signature(self.pipeline.__call__).parameters.items():
            value = self.extra.get(name, parameter.default)
            if name not in RESERVED and isinstance(value, str) and "ist[str]" in str(parameter.annotation):
                texts[name] = [value] * n
        return texts

    def watch(
        self, arguments: Mapping[str, Any], *, fake: bool | Literal["noise"] = False, **options: Any
    ) -> trace.Trace:
        """Run and record the stock call, see `trace.watch`.

        It runs under `stand_in`, if that is set. A `fake` denoiser returns zeros of the recorded shape, or standard
        normal noise.
        """
        fill = torch.randn if fake == "noise" else torch.zeros
        instead = partial(self._fake, fill) if fake else None
        with ExitStack() as stack:
            for pipeline in self._sharing():
                stack.enter_context(trace.patched(pipeline, "scheduler", self.scheduler))
            recorded = trace.watch(self.pipeline, self.denoisers, arguments, fake=instead, **options)
        calls = [*(c for s in recorded.steps for c in s.calls), *recorded.calls]
        if self.template is None and calls:
            first = calls[0]
            self.template = (len(next(iter(first.arguments.values()))), first.output)
        if self.both is not None and arguments.get(self.guided_by or "") == halves.SCALE:
            return self.both.conditional(recorded)
        return recorded

    def _sharing(self) -> list[Any]:
        """The pipeline, and those that it is made of and that run with its scheduler, as Kandinsky's combined ones."""
        inner = [part for part in vars(self.pipeline).values() if isinstance(part, DiffusionPipeline)]
        own = self.pipeline.scheduler
        return [self.pipeline, *(part for part in inner if getattr(part, "scheduler", None) is own)]

    def _fake(self, fill: Fill, arguments: Mapping[str, Any]) -> Any:
        batch, output = self.template
        return _like(output, batch, len(next(iter(arguments.values()))), fill)


def modality_of(pipeline: Any) -> Modality:
    """The kind of a pipeline's samples, by the arguments of its call."""
    parameters = inspect.signature(pipeline.__call__).parameters
    if any(name.startswith("audio") for name in parameters):
        return "audio"
    return "video" if {"num_frames", "video_length", "frames"} & set(parameters) else "image"


def _like(value: Any, batch: int, size: int, fill: Fill) -> Any:
    """What `fill` makes, in the structure of `value`, an output of the denoiser for `batch` samples, for `size`."""
    if isinstance(value, Tensor):
        return fill(len(value) // batch * size, *value.shape[1:], dtype=value.dtype, device=value.device)
    if isinstance(value, list) and value:
        one = value[0]
        return [fill(*one.shape, dtype=one.dtype, device=one.device) for _ in range(len(value) // batch * size)]
    if isinstance(value, tuple):
        return tuple(_like(v, batch, size, fill) for v in value)
    if hasattr(value, "items"):
        return type(value)(**{k: _like(v, batch, size, fill) for k, v in value.items()})
    return value


def drive(pipeline: Any, extra: Mapping[str, Any]) -> StockCall:
    """How the call of `pipeline` is driven, with the arguments `extra` of teacher.call.

    Raises UserError for a pipeline without a known denoiser, for arguments that it does not take or that have settings
    of their own, and where its call needs more than prompts or labels.
    """
    parameters = inspect.signature(pipeline.__call__).parameters
    present = [name for name in DENOISERS if isinstance(getattr(pipeline, name, None), nn.Module)]
    if not present:
        held = ", ".join(f"{k}: {type(v).__name__}" for k, v in pipeline.components.items() if isinstance(v, nn.Module))
        raise refusal(pipeline, f"it has no denoiser called {' or '.join(DENOISERS[:2])} ({held or 'no networks'})")
    if unknown := sorted(set(extra) - set(parameters)):
        raise UserError(
            f"The call of {type(pipeline).__name__} takes no {unknown[0]!r}.",
            f"teacher.call may set: {', '.join(p for p in parameters if p not in ('kwargs', 'args', 'self'))}.",
        )
    for name in extra:
        if name in RESERVED:
            raise UserError(f"teacher.call cannot set {name!r}.", RESERVED[name])
    driver: Driver = "prompt" if "prompt" in parameters else "labels" if "class_labels" in parameters else "none"
    needed = {n for n, p in parameters.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD}
    missing = sorted(needed - {"prompt", "class_labels"} - set(extra))
    if missing:
        raise refusal(pipeline, f"its call needs {missing[0]!r}, and is not driven by prompts, labels or noise alone")
    net: Any = getattr(pipeline, present[0])
    batch_norm = next((n for n, m in net.named_modules() if isinstance(m, BatchNorm)), None)
    if batch_norm is not None:
        raise refusal(pipeline, f"its denoiser has BatchNorm ({batch_norm}), whose statistics forward AD would disturb")
    embeds = "guidance" in inspect.signature(net.forward).parameters and bool(net.config.get("guidance_embeds", True))
    if "true_cfg_scale" in parameters:
        guided_by: str | None = "true_cfg_scale"
    elif guider.guiders(pipeline) and not guider.other_kinds(pipeline):
        guided_by = guider.ARGUMENT
    else:
        guided_by = "guidance_scale" if "guidance_scale" in parameters and not embeds else None
    return StockCall(pipeline, dict(extra), driver, present[0], guided_by, embeds)
