"""Wan 2.2: two experts, one for each half of the noise levels."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from scm_distill.maths.cond import Cond, rows
from scm_distill.teachers.convention import Convention
from scm_distill.teachers.families import Family


class Experts(nn.Module):
    """Both networks; `high` is used from the denoiser's own time `boundary` upwards, `low` below."""

    def __init__(self, high: nn.Module, low: nn.Module, boundary: float) -> None:
        super().__init__()
        self.high, self.low, self.boundary = high, low, boundary


class Switched(Convention):
    """The convention of `Experts`: each sample is evaluated by the expert of its own time."""

    def __call__(self, net: nn.Module, x_nat: Tensor, tau: Tensor, cond: Cond) -> Tensor:
        """The native prediction (B, ...). The host waits for the device where it does not know the times."""
        if not isinstance(net, Experts):
            return super().__call__(net, x_nat, tau, cond)
        times = tau.cpu() if self.known is None else self.known.float().repeat(len(tau) // len(self.known))
        first = times >= net.boundary
        if first.all() or not first.any():
            return super().__call__(net.high if first.all() else net.low, x_nat, tau, cond)
        out = None
        for expert, chosen in ((net.high, first), (net.low, ~first)):
            i = chosen.nonzero().flatten()
            i = (i.pin_memory() if x_nat.is_cuda else i).to(x_nat.device, non_blocking=True)
            part = super().__call__(expert, x_nat[i], tau[i], rows(cond, i))
            out = torch.zeros_like(x_nat, dtype=part.dtype) if out is None else out
            out = out.index_copy(0, i, part)
        assert out is not None
        return out


class Wan(Family):
    """The student is one network for both sampling times, and starts from the high-noise expert."""

    pipelines = ("WanPipeline",)

    def teacher(self, pipeline: Any, net: nn.Module, convention: Convention) -> tuple[nn.Module, Convention]:
        """Both experts as one network, if the pipeline has two."""
        low, ratio = getattr(pipeline, "transformer_2", None), pipeline.config.get("boundary_ratio")
        if low is None or ratio is None:
            return net, convention
        switched = Switched(**{f.name: getattr(convention, f.name) for f in fields(convention)})
        return Experts(net, low, ratio * pipeline.scheduler.config.num_train_timesteps), switched

    def student(self, net: nn.Module) -> nn.Module:
        """The high-noise expert, or the only network."""
        return net.high if isinstance(net, Experts) else net

    def parts(self) -> Mapping[str, Any]:
        """The pipeline with one expert."""
        return {"transformer_2": None, "boundary_ratio": None}
