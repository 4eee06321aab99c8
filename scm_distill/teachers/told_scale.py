"""Denoisers that are told the guidance scale: by a number (FLUX.1, HunyuanVideo), or embedded (UNets of LCM's kind)."""

from typing import Any

import torch
from torch import Tensor, nn

from scm_distill.teachers.convention import Convention, Unclear, at
from scm_distill.teachers.guidance import ids_of
from scm_distill.teachers.stock_call import StockCall

NUMBER, EMBEDDED = "guidance", "timestep_cond"  # arguments of the denoiser
SCALES = (1.0, 2.0)  # at which the stock call is watched


class Embedding:
    """The guidance scale as stock pipelines embed it for a UNet of so many `channels`, its time_cond_proj_dim.

    The formula is that of diffusers' `get_guidance_scale_embedding`, which makes its frequencies on the CPU at every
    call; they are made there here too, once, since those of a GPU are rounded otherwise, and then
    follow the scale to its device.
    """

    def __init__(self, channels: int) -> None:
        half = channels // 2
        step = torch.log(torch.tensor(10000.0)) / (half - 1)
        self.frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -step)
        self.channels = channels

    def __call__(self, w: Tensor) -> Tensor:
        """The embedding (B, channels) of scales w (B,)."""
        frequencies = self.frequencies.to(w.device)
        if type(frequencies) is Tensor:  # no fake one
            self.frequencies = frequencies
        angles = ((w.float() - 1) * 1000.0)[:, None] * frequencies[None, :]
        pair = torch.cat([angles.sin(), angles.cos()], dim=1)
        return nn.functional.pad(pair, (0, self.channels % 2))


def learn(convention: Convention, stock: StockCall, arguments: dict[str, Any]) -> None:
    """Note the denoiser's argument for the guidance scale, if it has one, and how that is made of it. Raises Unclear.

    `arguments` are the denoiser's in a stock call.
    """
    if stock.embeds_guidance and isinstance(arguments.get(NUMBER), Tensor):
        one, two = (float(_seen(stock, NUMBER, embedded=w).flatten()[0]) for w in SCALES)
        if not abs(two - 2 * one) <= 1e-4 * abs(two) or one == 0:
            raise Unclear(
                f"its denoiser is told the guidance scale in a way that is not a multiple of it ({one}, {two})"
            )
        unit, dtype = one, arguments[NUMBER].dtype
        convention.batched.pop(NUMBER, None)
        convention.scale_of = (NUMBER, lambda w: (unit * w).to(dtype))
    elif stock.guided_by and isinstance(arguments.get(EMBEDDED), Tensor):
        embed = Embedding(arguments[EMBEDDED].shape[-1])
        for w in SCALES:
            seen = _seen(stock, EMBEDDED, scale=w)[:1].float().cpu()
            if not torch.allclose(seen, embed(torch.tensor([w])), atol=1e-4):
                raise Unclear("its denoiser is told the guidance scale by an embedding that is not diffusers' own")
        convention.batched.pop(EMBEDDED, None)
        convention.scale_of = (EMBEDDED, embed)


def scale_in(convention: Convention, arguments: dict[str, Any], off: float | None) -> float:
    """The guidance scale that a denoiser was told in the `arguments` of a stock call without guidance, at `off`."""
    assert convention.scale_of is not None
    path, made_of = convention.scale_of
    if path == EMBEDDED:
        assert off is not None  # `learn` asked for an argument that guides
        return off
    return float(at(arguments, path).flatten()[0]) / float(made_of(torch.ones(1)))


def _seen(stock: StockCall, name: str, *, scale: float | None = None, embedded: float | None = None) -> Tensor:
    """The denoiser's argument `name` in a stock call for one sample at these scales of `StockCall.arguments`."""
    trace = stock.watch(stock.arguments(ids_of(stock), 2, scale=scale, embedded=embedded), fake=True, steps=1)
    seen: Tensor = trace.steps[0].calls[0].arguments[name]
    return seen
