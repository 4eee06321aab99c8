"""A low-rank adapter (LoRA, Hu et al. 2021) as the student: W + s B A, of which A and B are trained, by peft's layers.

A (r, in)     small random numbers      B (out, r)    zero at the start, so the student is the teacher then
s             alpha / rank
"""

import math
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn

from scm_distill.errors import UserError
from scm_distill.models.low_pass import Filtered, filters

NAME = "default"  # of the adapter in peft's layers
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")  # what the training scripts of diffusers adapt
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

Targets = Literal["attention", "all-linear"] | Sequence[str]


def require() -> None:
    """Raises UserError if peft is not installed."""
    if find_spec("peft") is None:
        raise UserError("lora.rank needs peft.", "pip install 'scm-distill[lora]', or leave lora.rank away.")


def chosen(net: nn.Module, targets: Targets) -> list[str]:
    """The names of the layers of `net` that `targets` selects. Raises UserError if there are none.

    A layer with the low-pass of the time is never one: an adapter beside it would see the unfiltered sinusoids.
    """
    endings = ATTENTION if targets == "attention" else targets
    names = [
        name
        for name, module in net.named_modules()
        if isinstance(module, LAYERS)
        and not isinstance(module, Filtered)
        and (isinstance(module, nn.Linear) if targets == "all-linear" else f".{name}".endswith(_dotted(endings)))
    ]
    if not names:
        layers = sorted({name.rpartition(".")[2] for name, module in net.named_modules() if isinstance(module, LAYERS)})
        raise UserError(
            f"lora.targets {targets if isinstance(targets, str) else list(targets)} fit no layer of this "
            f"{type(net).__name__}.",
            f"Set it to all-linear, or to endings of its layers' names, such as {', '.join(layers[:12])}.",
        )
    return names


def _dotted(endings: Sequence[str]) -> tuple[str, ...]:
    return tuple(f".{ending}" for ending in endings)


def inject(net: nn.Module, rank: int, alpha: float, targets: Targets, generator: torch.Generator) -> None:
    """Add adapters to the layers `targets` of `net`, in place, and freeze everything else. Raises UserError.

    A is drawn by `generator`, a generator of the CPU.
    """
    require()
    from peft import LoraConfig, inject_adapter_in_model

    names = "|".join(map(re.escape, chosen(net, targets)))  # as one pattern, since names of a list fit endings too
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=f"({names})")
    try:
        with torch.random.fork_rng():
            inject_adapter_in_model(config, net, NAME)
    except ValueError as error:
        raise UserError(f"peft cannot adapt these layers: {error}", "Change lora.targets or lora.rank.") from error
    net.requires_grad_(False)
    for _, layer in adapters(net):
        a, b = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
        with torch.no_grad():
            drawn = nn.init.kaiming_uniform_(torch.empty(a.shape), math.sqrt(5), generator=generator)
            a.copy_(drawn)  # b is zero
        a.requires_grad_(True)
        b.requires_grad_(True)


def adapters(net: nn.Module) -> Iterator[tuple[str, Any]]:
    """peft's layers in `net`, each with the name of the layer that it wraps."""
    if find_spec("peft") is None:
        return
    from peft.tuners.lora import LoraLayer

    for name, module in net.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def merge(net: nn.Module) -> None:
    """Add every adapter to the weight of its layer, in place, so that `net` has its stock layers again."""
    for name, layer in list(adapters(net)):
        layer.merge(adapter_names=[NAME])
        owner, _, leaf = name.rpartition(".")
        setattr(net.get_submodule(owner), leaf, layer.get_base_layer())
    if hasattr(net, "peft_config"):
        del net.peft_config


@torch.no_grad()
def pairs(net: nn.Module) -> dict[str, Tensor]:
    """The difference of `net` from its stock network as tensors NAME.lora_A.weight and NAME.lora_B.weight, of scale 1.

    NAME is a layer, and lora_B @ lora_A is added to its weight. The low-pass is such a difference too, exactly:
    W diag(f) - W = W diag(f - 1), whose rank is the number of the channels that it changes.
    """
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name, layer in adapters(net):
        found[name] = layer.lora_A[NAME].weight, layer.scaling[NAME] * layer.lora_B[NAME].weight
    moved = set(filters(net))
    for name, module in net.named_modules():
        if module in moved and isinstance(module, Filtered):
            change = module.factors.to(module.weight) - 1
            channels = change.nonzero().flatten()
            if len(channels):
                found[name] = change.diag()[channels], module.weight[:, channels]
    kinds = ("lora_A", "lora_B")
    return {
        f"{name}.{kind}.weight": value.detach().cpu().contiguous()
        for name, pair in found.items()
        for kind, value in zip(kinds, pair, strict=True)
    }
