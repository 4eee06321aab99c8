"""Power-function EMA (Karras et al. 2024, arXiv 2312.02696, section 3.1): its width grows with the training time."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from scm_distill.autodiff.torch_private import foreach_lerp_

Module = TypeVar("Module", bound=nn.Module)


def gamma_of(std: float) -> float:
    """gamma of the relative width `std`, the root of std = (gamma + 1)^1/2 (gamma + 2)^-1 (gamma + 3)^-1/2.

    Raises ValueError outside of 0 < std < 0.2887.
    """
    if not 0 < std < 12**-0.5:
        raise ValueError("The relative width of a power-function EMA lies between 0 and 0.2887.")
    low, high = 0.0, 1e8
    for _ in range(200):
        gamma = (low + high) / 2
        wide = (gamma + 1) ** 0.5 / ((gamma + 2) * (gamma + 3) ** 0.5) > std
        low, high = (gamma, high) if wide else (low, gamma)
    return (low + high) / 2


class PowerEMA(Generic[Module]):
    """A frozen float32 copy of a module, theta_ema <- b theta_ema + (1 - b) theta, b = (1 - 1/step)^(gamma + 1).

    `std` is the EMA's width as a share of the training time (sCM paper: 0.05). It is kept on `device` (default: the
    module's), to which every update copies the parameters. With `shared`, frozen parameters are not copied: they are
    the module's own. With `views` none is copied: they are views of the module's, for both to be shared out from.
    """

    def __init__(
        self,
        module: Module,
        std: float,
        device: torch.device | None = None,
        *,
        shared: bool = False,
        views: bool = False,
    ) -> None:
        self.gamma = gamma_of(std)
        kept: dict[int, Any] = {id(p): p for p in module.parameters() if shared and not p.requires_grad}
        if views:
            kept = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters()}
        self.module: Module = copy.deepcopy(module, kept).float().requires_grad_(False).to(device)

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Average in the parameters after optimizer step `step`, counted from 1."""
        weight = 1 - (1 - 1 / step) ** (self.gamma + 1)
        both = [x for x in zip(self.module.parameters(), module.parameters(), strict=True) if x[1].requires_grad]
        averages: list[Tensor] = [s for s, _ in both]
        foreach_lerp_(averages, [p.detach().to(s.device, torch.float32) for s, p in both], weight)

    @contextmanager
    def on(self, device: torch.device) -> Iterator[Module]:
        """A context in which the averaged module is on `device`."""
        home = next(self.module.parameters()).device
        if home == device:
            yield self.module
            return
        try:
            yield self.module.to(device)
        finally:
            self.module.to(home)
