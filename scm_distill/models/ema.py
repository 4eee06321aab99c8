"""Power-function EMA (Karras et al. 2024, arXiv 2312.02696, section 3.1): its width grows with the training time."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from scm_distill.autodiff.torch_private import foreach_lerp_

Module = TypeVar("Module", bound=nn.Module)

BLOCK = 2**28  # entries: 1 GiB of float32


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
    module's). With `shared`, frozen parameters are not copied: they are the module's own. With `views` none is copied:
    they are views of the module's, for both to be shared out from.

    Where the module is on a GPU and `device` is the host, the average lies in page-locked memory, and an update brings
    it to the GPU tensor by tensor and back, in streams of its own beside the next step: nothing waits on the host.
    `hold` must be called before the parameters change again.
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
        first = next(module.parameters())
        away = device is not None and device.type == "cpu" and first.is_cuda
        self._streams = (torch.cuda.Stream(first.device), torch.cuda.Stream(first.device)) if away else ()
        kept: dict[int, Any] = {id(p): p for p in module.parameters() if shared and not p.requires_grad}
        if views:
            kept = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters()}
        if away:
            kept |= _on_host([p for p in module.parameters() if id(p) not in kept])
        copied: Module = copy.deepcopy(module, kept).float().requires_grad_(False)
        self._module = copied.to(device)

    @property
    def module(self) -> Module:
        """The averaged module, once all updates are in it."""
        for stream in self._streams:
            stream.synchronize()
        return self._module

    def hold(self) -> None:
        """Let the device change no parameter before the last update has read it; the host does not wait."""
        for stream in self._streams:
            torch.cuda.current_stream(stream.device).wait_stream(stream)

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Average in the parameters after optimizer step `step`, counted from 1."""
        weight = 1 - (1 - 1 / step) ** (self.gamma + 1)
        both = [x for x in zip(self._module.parameters(), module.parameters(), strict=True) if x[1].requires_grad]
        if self._streams:
            self._update_away(both, weight)
            return
        averages: list[Tensor] = [s for s, _ in both]
        foreach_lerp_(averages, [p.detach().to(s.device, torch.float32) for s, p in both], weight)

    def _update_away(self, both: list[tuple[nn.Parameter, nn.Parameter]], weight: float) -> None:
        """Two streams take turns, so that one tensor comes while another goes; each keeps its order by itself."""
        for stream in self._streams:
            stream.wait_stream(torch.cuda.current_stream(stream.device))  # the optimizer's step, which is only launched
        for i, (average, p) in enumerate(both):
            with torch.cuda.stream(self._streams[i % 2]):  # memory made here is reused in the order of this stream
                here = average.to(p.device, non_blocking=True)
                here.lerp_(p.detach().float(), weight)
                average.copy_(here, non_blocking=True)

    @contextmanager
    def on(self, device: torch.device) -> Iterator[Module]:
        """A context in which the averaged module is on `device`: itself, or a copy where it is kept elsewhere."""
        module = self.module
        if next(module.parameters()).device.type == device.type:  # of a process: "cpu" is "cpu:0"
            yield module
            return
        moved: dict[int, Any] = {id(b): b.to(device) for b in module.buffers()}
        moved |= {id(p): nn.Parameter(p.detach().to(device), requires_grad=False) for p in module.parameters()}
        yield copy.deepcopy(module, moved)


def _on_host(parameters: list[nn.Parameter]) -> dict[int, nn.Parameter]:
    """float32 copies in page-locked memory of the host, by the id of the parameter.

    They are cut from blocks of BLOCK entries, since PyTorch rounds what it locks up to a power of two.
    """
    copies: dict[int, nn.Parameter] = {}
    left, block, used = sum(p.numel() for p in parameters), torch.empty(0), 0
    for p in parameters:
        if used + p.numel() > len(block):
            block, used = torch.empty(max(p.numel(), min(BLOCK, left)), pin_memory=True), 0
        host = block[used : used + p.numel()].view(p.shape)
        host.copy_(p.detach())
        copies[id(p)] = nn.Parameter(host, requires_grad=False)
        used, left = used + p.numel(), left - p.numel()
    return copies
