"""The frozen teacher in less memory: bf16 or int8 weights, or weights that wait on the host."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scm_distill import config
from scm_distill.errors import UserError
from scm_distill.maths.cond import Cond
from scm_distill.models.low_pass import Filtered
from scm_distill.models.network import Network
from scm_distill.progress import Reporter

ALLOWED = 0.05  # relative change of F; bf16 products alone change it by 0.6 %
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def quantize(network: Network, settings: config.Teacher, x_t: Tensor, t: Tensor, cond: Cond, report: Reporter) -> None:
    """Narrow the weights of linear layers and convolutions to teacher.dtype, in place; the time path stays float32.

    F is computed before and after on x_t (B, ...), t (B,) and cond. Raises UserError where it changes by more than
    ALLOWED, or where the network does not run in bf16.
    """
    if settings.dtype == "fp32":
        return
    if network.autocast is None:
        why = (
            "an epsilon teacher's bf16 error is divided by cos t"
            if network.prediction == "epsilon"
            else "it runs in it"
        )
        raise UserError(
            f"teacher.dtype={settings.dtype} needs bf16 products, and this teacher has float32 ones: {why}.",
            "Set teacher.dtype=fp32, or train.precision=bf16 for a teacher that does not predict epsilon.",
        )
    with torch.no_grad():
        before = network(x_t / network.sigma_d, t, cond)
        layers = [m for m in network.net.modules() if isinstance(m, LAYERS) and not isinstance(m, Filtered)]
        if settings.dtype == "int8":
            _to_int8(network.net, layers)
        for layer in layers:
            if settings.dtype == "bf16" or not isinstance(layer, nn.Linear):
                layer.to(torch.bfloat16)
        changed = network(x_t / network.sigma_d, t, cond) - before
    off = float((changed.square().mean() / before.square().mean()).sqrt())
    report.say(f"teacher weights in {settings.dtype}: F changes by {off:.2%}")
    if not off <= ALLOWED:
        raise UserError(
            f"With {settings.dtype} weights the teacher's F changes by {off:.1%}; allowed are {ALLOWED:.0%}.",
            "Set teacher.dtype=bf16 or fp32.",
        )


def _to_int8(net: nn.Module, layers: Sequence[nn.Module]) -> None:
    """int8 weights with one scale a row, by torchao; products are made in bf16. Raises UserError without torchao."""
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise UserError("teacher.dtype=int8 needs torchao.", "pip install 'scm-distill[quantize]'") from error
    linear = {m for m in layers if isinstance(m, nn.Linear)}
    quantize_(net, Int8WeightOnlyConfig(), filter_fn=lambda module, _: module in linear)


def offload(network: Network, device: torch.device, report: Reporter) -> None:
    """Keep the weights in host memory, and copy those of each layer to `device` before it runs (diffusers' hooks)."""
    if device.type == "cpu":
        report.say("teacher: train.offload has nothing to move, the device is the host")
        return
    from diffusers.hooks import apply_group_offloading

    network.net.to("cpu")
    apply_group_offloading(network.net, onload_device=device, offload_type="leaf_level", use_stream=True)
