"""Monotone piecewise cubic interpolation and its inverse, both differentiable."""

import torch
from torch import Tensor


class MonotoneCubic:
    """Monotone piecewise cubic interpolation (Fritsch & Carlson 1980, PCHIP slopes), float64, differentiable.

    `x` and `y` (K,) must both increase strictly, K >= 2, or it raises ValueError. Arguments outside [x[0], x[-1]] are
    clamped, never extrapolated. The derivative is continuous.
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x.detach().double().cpu(), y.detach().double().cpu()
        self._copies: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = {}
        h, dy = self.x.diff(), self.y.diff()
        if len(self.x) < 2 or not (h.gt(0).all() and dy.gt(0).all()):
            raise ValueError("MonotoneCubic needs two or more strictly increasing points.")
        slope = dy / h
        if len(h) == 1:
            self.d = slope.repeat(2)
            return
        # Interior: weighted harmonic mean of the two secants. Ends: one-sided three-point formula, kept monotone.
        w1, w2 = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
        inner = (w1 + w2) / (w1 / slope[:-1] + w2 / slope[1:])
        first = ((2 * h[0] + h[1]) * slope[0] - h[0] * slope[1]) / (h[0] + h[1])
        last = ((2 * h[-1] + h[-2]) * slope[-1] - h[-1] * slope[-2]) / (h[-1] + h[-2])
        self.d = torch.cat([first.clamp_min(0)[None], inner, last.clamp_min(0)[None]])

    def __call__(self, x: Tensor) -> Tensor:
        """y(x), float64, of the shape and on the device of `x`."""
        nodes, y, d = self._on(x.device)
        x = x.double().clamp(nodes[0], nodes[-1])
        i = torch.searchsorted(nodes, x.detach().contiguous(), right=True).clamp(1, len(nodes) - 1) - 1
        h = nodes[i + 1] - nodes[i]
        u = (x - nodes[i]) / h
        return (
            (1 + 2 * u) * (1 - u).square() * y[i]
            + u * (1 - u).square() * h * d[i]
            + u.square() * (3 - 2 * u) * y[i + 1]
            + u.square() * (u - 1) * h * d[i + 1]
        )

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Nodes, values and slopes on a device; copied once, since the host waits for every copy."""
        if device not in self._copies:
            self._copies[device] = (self.x.to(device), self.y.to(device), self.d.to(device))
        return self._copies[device]

    def inverse(self, y: Tensor) -> Tensor:
        """x with y(x) = y, float64, by bisection and one Newton step that carries the derivative; `y` is clamped."""
        y = y.double().clamp(self.y[0].item(), self.y[-1].item())
        low = torch.full_like(y, self.x[0].item()).detach()
        high = torch.full_like(low, self.x[-1].item())
        for _ in range(60):
            middle = (low + high) / 2
            above = self(middle) > y.detach()
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        with torch.enable_grad():
            x = ((low + high) / 2).requires_grad_()
            value = self(x)
            (slope,) = torch.autograd.grad(value.sum(), x)
        return x.detach() + (y - value.detach()) / slope.clamp_min(1e-300)
