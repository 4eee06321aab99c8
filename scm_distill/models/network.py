"""A diffusers denoiser in TrigFlow form: F(x_t / sigma_d, t, cond), dx_t/dt = sigma_d F.

x         x_t / sigma_d                                        (B, ...)
t         time in radians, float32 or wider                    (B,)
tau       the denoiser's own time                              (B,)
x_nat     the denoiser's own input, rho x_t                    (B, ...)
cond      conditions, see maths/cond.py                        {name: (B, ...)}
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from scm_distill.maths.clocks import Clock
from scm_distill.maths.cond import SCALE, Cond, conditional, rows, unconditional, unguided
from scm_distill.maths.guidance import GuidanceRule
from scm_distill.maths.schedules import Prediction, native


def chunks(n: int, size: int) -> list[slice]:
    """Slices of at most `size` of n samples."""
    return [slice(i, i + size) for i in range(0, n, size)]


def in_chunks(f: Callable[..., Tensor], size: int, *tensors: Tensor, cond: Cond) -> Tensor:
    """f(*tensors, cond) (B, ...), computed on slices of `size` samples and joined."""
    slices = chunks(len(tensors[0]), size)
    return torch.cat([f(*(x[part] for x in tensors), rows(cond, part)) for part in slices])


class Convention(Protocol):
    """How a denoiser is called.

    `known` are the times tau (B,) of the calls to come, on the host, where they are known: see `Network.knowing`.
    """

    known: Tensor | None

    @property
    def batchable(self) -> bool:
        """Whether samples of different prompts may share a call."""
        ...

    def __call__(self, net: nn.Module, x_nat: Tensor, tau: Tensor, cond: Cond, /) -> Tensor:
        """The native prediction (B, ...) of `net`."""
        ...


class Keywords:
    """The convention of a UNet2DModel: net(x_nat, tau, **cond)."""

    batchable = True
    known: Tensor | None = None

    def __call__(self, net: nn.Module, x_nat: Tensor, tau: Tensor, cond: Cond) -> Tensor:
        """The first output of `net`, (B, ...)."""
        return net(x_nat, tau, **cond, return_dict=False)[0]  # type: ignore[no-any-return]


class Network(nn.Module):
    """F(x_t / sigma_d, t, cond) of the denoiser `net`, which predicts `prediction` at the times of `clock`.

    Times, coefficients and F are float32 or wider; with `autocast` the denoiser between them runs in that dtype.
    Where no gradient is recorded, the denoiser gets at most `chunk` samples at a time, so that a large evaluation batch
    needs no more memory than training. `call` is how the denoiser is called (default: `Keywords`). With a guidance
    `rule`, a batch whose `cond` holds a scale w is guided: F is then the rule of two predictions.
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

    @contextmanager
    def knowing(self, t: Tensor | None) -> Iterator[None]:
        """A context in which every call is at the times `t` (B,), which are on the host; None: at any times.

        What a denoiser decides by its times is then decided without waiting for the device.
        """
        before, self.call.known = self.call.known, None if t is None else self.clock.network_time(self._clamped(t))
        try:
            yield
        finally:
            self.call.known = before

    def _clamped(self, t: Tensor) -> Tensor:
        """`t` in the clock's range, in float64: never extrapolated, since eps / cos t is singular beyond."""
        return t.double().clamp(self.clock.t_min, self.clock.t_max)

    def forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """F, of the shape and dtype of `x`. `t` outside the clock's range is clamped to it."""
        if len(x) > self.chunk and not torch.is_grad_enabled():
            with self.knowing(None):
                return in_chunks(self.forward, self.chunk, x, t, cond=cond)
        x_t = self.sigma_d * x
        t = self._clamped(t)
        form = native(self.prediction, t, self.sigma_d)
        tau = self.clock.network_time(t).float()
        with torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None):
            raw = self._native(form.scale(x_t), tau, cond)
        return form.to_F(raw.to(x.dtype), x_t)

    def _native(self, x_nat: Tensor, tau: Tensor, cond: Cond) -> Tensor:
        """The native prediction (B, ...), guided where this network has a rule and `cond` a scale.

        Both predictions come from one call of twice the batch where their arguments have the same shapes.
        """
        if self.rule is None or SCALE not in cond:
            return self.call(self.net, x_nat, tau, conditional(cond))
        of_c, of_u = unguided(cond), unconditional(cond)
        if self.call.batchable and all(of_u[name].shape == value.shape for name, value in of_c.items()):
            both = {name: torch.cat([value, of_u[name]]) for name, value in of_c.items()}
            x_twice = x_nat.repeat(2, *[1] * (x_nat.ndim - 1))
            c, u = self.call(self.net, x_twice, tau.repeat(2), both).chunk(2)
        else:
            c, u = self.call(self.net, x_nat, tau, of_c), self.call(self.net, x_nat, tau, of_u)
        return self.rule(c, u, cond[SCALE])
