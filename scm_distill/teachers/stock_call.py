"""The stock call of a pipeline: which arguments drive it, and a stand-in for its denoiser that costs nothing."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from scm_distill.autodiff.torch_private import BatchNorm
from scm_distill.errors import UserError
from scm_distill.teachers import trace

Driver = Literal["none", "labels", "prompt"]
Modality = Literal["image", "video", "audio"]
DENOISERS = ("transformer", "unet", "transformer_2")
TIMES = ("timestep", "timesteps", "t")
_ALONE = "scm-distill draws one sample a prompt; leave it away."
_OURS = "scm-distill sets it itself; leave it away."
RESERVED = {  # arguments of the stock call that have a setting of their own, or are ours
    "guidance_scale": "Set guidance.scale.",
    "true_cfg_scale": "Set guidance.scale.",
    "guidance_scale_2": "Set guidance.scale.",
    "negative_prompt": "Set guidance.negative_prompt.",
    "prompt": "Set data.prompts.",
    **dict.fromkeys(
        ("num_images_per_prompt", "num_videos_per_prompt", "num_waveforms_per_prompt", "batch_size"), _ALONE
    ),
    **dict.fromkeys(("num_inference_steps", "timesteps", "sigmas", "latents", "generator", "class_labels"), _OURS),
}


def refusal(pipeline: Any, why: str) -> UserError:
    """The error for a pipeline, or what goes by this name, that cannot be read."""
    name = pipeline if isinstance(pipeline, str) else type(pipeline).__name__
    return UserError(
        f"{name} cannot be read: {why}.",
        "scm-distill reads pipelines whose denoiser predicts noise, velocity, flow or x_0 from a sample and a time.",
    )


@dataclass
class StockCall:
    """A pipeline and how its call is driven; `extra` are arguments of the user's, such as height or num_frames."""

    pipeline: Any
    extra: dict[str, Any]
    driver: Driver
    denoiser: str
    guided_by: str | None  # the argument that scales classifier-free guidance
    embeds_guidance: bool  # the denoiser itself is told the scale
    template: Any = None  # an output of the denoiser, once seen

    @property
    def net(self) -> nn.Module:
        """The denoiser."""
        net: nn.Module = getattr(self.pipeline, self.denoiser)
        return net

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
        """The call for these prompts or classes; `scale` drives guidance, `embedded` is told to the denoiser."""
        known = inspect.signature(self.pipeline.__call__).parameters
        call: dict[str, Any] = {"num_inference_steps": steps}
        if self.driver == "prompt":
            call["prompt"] = list(ids)
        elif self.driver == "labels":
            call["class_labels"] = list(ids)
        elif "batch_size" in known:
            call["batch_size"] = len(ids)
        if scale is not None and self.guided_by:
            call[self.guided_by] = scale
            wants_negative = self.guided_by == "true_cfg_scale" and scale > 1
            if self.driver == "prompt" and "negative_prompt" in known and (negative or wants_negative):
                call["negative_prompt"] = [negative or " "] * len(ids)
        if embedded is not None and self.embeds_guidance and self.guided_by != "guidance_scale":
            call["guidance_scale"] = embedded
        return call | self.extra

    def watch(self, arguments: Mapping[str, Any], *, fake: bool = False, **how: Any) -> trace.Trace:
        """Run the stock call under watch; a `fake` denoiser answers zeros of the shape that was seen."""
        stand_in = self._fake if fake else None
        seen = trace.watch(self.pipeline, self.denoisers, arguments, fake=stand_in, **how)
        calls = [*(c for s in seen.steps for c in s.calls), *seen.calls]
        if self.template is None and calls:
            first = calls[0]
            self.template = (len(next(iter(first.arguments.values()))), first.output)
        return seen

    def _fake(self, arguments: Mapping[str, Any]) -> Any:
        batch, output = self.template
        return _zeros(output, batch, len(next(iter(arguments.values()))))


def modality_of(pipeline: Any) -> Modality:
    """What a pipeline makes, by the arguments of its call."""
    known = inspect.signature(pipeline.__call__).parameters
    if any(name.startswith("audio") for name in known):
        return "audio"
    return "video" if {"num_frames", "video_length", "frames"} & set(known) else "image"


def _zeros(value: Any, batch: int, wanted: int) -> Any:
    """Zeros like an output of the denoiser seen at `batch`, for a batch of `wanted`."""
    if isinstance(value, Tensor):
        return value.new_zeros(len(value) // batch * wanted, *value.shape[1:])
    if isinstance(value, list) and value:
        return [torch.zeros_like(value[0]) for _ in range(len(value) // batch * wanted)]
    if isinstance(value, tuple):
        return tuple(_zeros(v, batch, wanted) for v in value)
    if hasattr(value, "items"):
        return type(value)(**{k: _zeros(v, batch, wanted) for k, v in value.items()})
    return value


def drive(pipeline: Any, extra: Mapping[str, Any]) -> StockCall:
    """Find out how the call of `pipeline` is driven. Raises UserError where it is not by prompts, labels or nothing."""
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
    else:
        guided_by = "guidance_scale" if "guidance_scale" in parameters and not embeds else None
    return StockCall(pipeline, dict(extra), driver, present[0], guided_by, embeds)
