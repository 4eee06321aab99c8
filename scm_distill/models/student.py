"""A diffusers denoiser in TrigFlow form, teacher or student, and the adaptive weight w_phi.

x         x_t / sigma_d                                        (B, ...)
t         time in radians, float32 or wider                    (B,)
cond      keyword arguments of the denoiser, batched           {name: (B, ...)}
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from scm_distill.maths.schedules import DiscreteSchedule, Prediction, native

Cond = Mapping[str, Tensor]


def in_chunks(f: Callable[..., Tensor], size: int, *tensors: Tensor, cond: Cond) -> Tensor:
    """f(*tensors, cond) on slices of `size` samples, joined."""
    parts = [
        f(*(x[i : i + size] for x in tensors), {k: v[i : i + size] for k, v in cond.items()})
        for i in range(0, len(tensors[0]), size)
    ]
    return torch.cat(parts)


class Network(nn.Module):
    """F(x_t / sigma_d, t, cond) of a native denoiser `net(x_nat, k, **cond)` with a discrete clock.

    Times, coefficients and F are float32 or wider; with `autocast` the denoiser between them runs in that dtype.
    Where no gradient is recorded, it sees `chunk` samples at a time, so that evaluation fits wherever training does.
    """

    chunk = 256

    def __init__(
        self,
        net: nn.Module,
        clock: DiscreteSchedule,
        prediction: Prediction,
        sigma_d: float,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.net, self.clock, self.prediction = net, clock, prediction
        self.sigma_d, self.autocast = sigma_d, autocast

    def forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """F, of the shape and dtype of `x`."""
        if len(x) > self.chunk and not torch.is_grad_enabled():
            return in_chunks(self.forward, self.chunk, x, t, cond=cond)
        x_t = self.sigma_d * x
        t = t.double().clamp(self.clock.t_min, self.clock.t_max)  # never extrapolated: eps / cos t is singular beyond
        form = native(self.prediction, t, self.sigma_d)
        k = self.clock.index(t).float()
        with torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None):
            raw = self.net(form.scale(x_t), k, **cond, return_dict=False)[0]
        return form.to_F(raw.to(x.dtype), x_t)


class Weight(nn.Module):
    """w_phi(t): a linear layer on Fourier features of ln(tan t) / 4, zero at the start (paper, section 4.2)."""

    def __init__(self, frequencies: int = 16) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.arange(1, frequencies + 1) * 0.5, persistent=False)
        self.linear = nn.Linear(2 * frequencies, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, t: Tensor) -> Tensor:
        """w_phi (B,)."""
        phase = (t.tan().log() / 4).float()[:, None] * self.get_buffer("frequencies")
        features = torch.cat([phase.sin(), phase.cos()], -1)
        return self.linear(features).squeeze(-1)  # type: ignore[no-any-return]


class Student(nn.Module):
    """F_theta and w_phi from one `forward`, since a DDP wrapper passes nothing else through."""

    def __init__(self, network: Network, *, adaptive: bool) -> None:
        super().__init__()
        self.network = network
        self.weight = Weight() if adaptive else None

    def forward(self, x: Tensor, t: Tensor, cond: Cond) -> tuple[Tensor, Tensor]:
        """F_theta (B, ...) and w_phi (B,); w_phi is zero where the weighting is off."""
        w_phi = torch.zeros_like(t, dtype=torch.float32) if self.weight is None else self.weight(t)
        return self.network(x, t, cond), w_phi
