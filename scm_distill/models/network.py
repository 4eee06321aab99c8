"""A diffusers denoiser in TrigFlow form.

x         x_t / sigma_d                                        (B, ...)
t         time in radians, float32 or wider                    (B,)
cond      keyword arguments of the denoiser, batched           {name: (B, ...)}
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from scm_distill.autodiff.derivatives import Cond
from scm_distill.maths.clocks import Clock
from scm_distill.maths.guidance import GuidanceRule
from scm_distill.maths.schedules import Prediction, native


def in_chunks(f: Callable[..., Tensor], size: int, *tensors: Tensor, cond: Cond) -> Tensor:
    """f(*tensors, cond) on slices of `size` samples, joined."""
    parts = [
        f(*(x[i : i + size] for x in tensors), {k: v[i : i + size] for k, v in cond.items()})
        for i in range(0, len(tensors[0]), size)
    ]
    return torch.cat(parts)


class Convention(Protocol):
    """How a denoiser is called."""

    @property
    def batchable(self) -> bool:
        """Whether samples of different prompts may share a call."""
        ...

    def __call__(self, net: nn.Module, x_nat: Tensor, tau: Tensor, cond: Cond, /) -> Tensor:
        """The native prediction (B, ...)."""
        ...


class Keywords:
    """net(x_nat, tau, **cond): what a UNet2DModel is."""

    batchable = True

    def __call__(self, net: nn.Module, x_nat: Tensor, tau: Tensor, cond: Cond) -> Tensor:
        """The first output."""
        return net(x_nat, tau, **cond, return_dict=False)[0]  # type: ignore[no-any-return]


class Network(nn.Module):
    """F(x_t / sigma_d, t, cond) of a native denoiser with its clock.

    Times, coefficients and F are float32 or wider; with `autocast` the denoiser between them runs in that dtype.
    Where no gradient is recorded, it sees at most `chunk` samples at a time, so that evaluation fits where training
    does.
    With a guidance `rule`, cond["w"] is the scale (B,) and the entries u/NAME are the unconditional ones.
    """

    def __init__(
        self,
        net: nn.Module,
        clock: Clock,
        prediction: Prediction,
        sigma_d: float,
        autocast: torch.dtype | None = None,
        call: Convention | None = None,
        rule: GuidanceRule | None = None,
        chunk: int = 256,
    ) -> None:
        super().__init__()
        self.net, self.clock, self.prediction = net, clock, prediction
        self.sigma_d, self.autocast = sigma_d, autocast
        self.call, self.rule, self.chunk = call or Keywords(), rule, chunk

    def with_autocast(self, dtype: torch.dtype | None) -> "Network":
        """The same denoiser, its products in `dtype`; None is float32."""
        return Network(self.net, self.clock, self.prediction, self.sigma_d, dtype, self.call, self.rule, self.chunk)

    def with_chunk(self, size: int) -> "Network":
        """The same denoiser, which sees at most `size` samples at a time where no gradient is recorded."""
        return Network(self.net, self.clock, self.prediction, self.sigma_d, self.autocast, self.call, self.rule, size)

    def forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """F, of the shape and dtype of `x`."""
        if len(x) > self.chunk and not torch.is_grad_enabled():
            return in_chunks(self.forward, self.chunk, x, t, cond=cond)
        x_t = self.sigma_d * x
        t = t.double().clamp(self.clock.t_min, self.clock.t_max)  # never extrapolated: eps / cos t is singular beyond
        form = native(self.prediction, t, self.sigma_d)
        k = self.clock.network_time(t).float()
        with torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None):
            raw = self._native(form.scale(x_t), k, cond)
        return form.to_F(raw.to(x.dtype), x_t)

    def _native(self, x_nat: Tensor, k: Tensor, cond: Cond) -> Tensor:
        """The native prediction, guided where this network has a rule and `cond` a scale."""
        c = {name: value for name, value in cond.items() if not name.startswith("u/")}
        if self.rule is None or "w" not in cond:
            return self.call(self.net, x_nat, k, c)
        w = c.pop("w")
        u = {name.removeprefix("u/"): value for name, value in cond.items() if name.startswith("u/")}
        if self.call.batchable and all(u[name].shape == value.shape for name, value in c.items()):
            both = {name: torch.cat([value, u[name]]) for name, value in c.items()}
            conditional, unconditional = self.call(
                self.net, x_nat.repeat(2, *[1] * (x_nat.ndim - 1)), k.repeat(2), both
            ).chunk(2)
        else:
            conditional, unconditional = self.call(self.net, x_nat, k, c), self.call(self.net, x_nat, k, u)
        return self.rule(conditional, unconditional, w)
