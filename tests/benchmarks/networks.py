"""Networks of real and of small sizes, random weights, for the benchmarks."""

from collections.abc import Callable
from typing import Any

import diffusers
from torch import Tensor, nn

from scm_distill.maths.cond import Cond

Made = tuple[nn.Module, tuple[int, ...], dict[str, tuple[int, ...] | int]]  # network, sample, conditions


def networks(size: str) -> dict[str, Callable[[], Made]]:
    """One of each kind; `small` fits a laptop."""
    d, real = diffusers, size == "real"

    def unet2d() -> Made:
        width, n = (128, 32) if real else (32, 32)
        blocks = ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D")
        net = d.UNet2DModel(
            sample_size=n, in_channels=3, out_channels=3, layers_per_block=2 if real else 1,
            block_out_channels=(width, 2 * width, 2 * width, 2 * width), down_block_types=blocks,
            up_block_types=tuple(b.replace("Down", "Up") for b in reversed(blocks)),
        )  # fmt: skip
        return net, (3, n, n), {}

    def sd() -> Made:
        widths, text, n = ((320, 640, 1280, 1280), 768, 64) if real else ((32, 64, 64, 64), 64, 32)
        net = d.UNet2DConditionModel(
            sample_size=n, cross_attention_dim=text, block_out_channels=widths,
            layers_per_block=2 if real else 1, norm_num_groups=32 if real else 8,
        )  # fmt: skip
        return net, (4, n, n), {"encoder_hidden_states": (77, text)}

    def dit() -> Made:
        layers, heads, width, n = (28, 16, 72, 32) if real else (4, 6, 64, 32)
        net = d.DiTTransformer2DModel(
            num_layers=layers, num_attention_heads=heads, attention_head_dim=width, sample_size=n, in_channels=4,
            out_channels=8 if real else 4, num_embeds_ada_norm=1000,
        )  # fmt: skip
        return net, (4, n, n), {"class_labels": 1000}

    def mmdit() -> Made:
        layers, heads, text, pooled, n = (18, 24, 4096, 2048, 64) if real else (4, 6, 64, 32, 32)
        net = d.SD3Transformer2DModel(
            sample_size=n, in_channels=16, out_channels=16, num_layers=layers, num_attention_heads=heads,
            attention_head_dim=64, caption_projection_dim=64 * heads, joint_attention_dim=text,
            pooled_projection_dim=pooled, pos_embed_max_size=96,
        )  # fmt: skip
        return net, (16, n, n), {"encoder_hidden_states": (154, text), "pooled_projections": (pooled,)}

    def wan() -> Made:
        layers, heads, ffn, text, n = (30, 12, 8960, 4096, (5, 60, 104)) if real else (3, 2, 1024, 64, (3, 16, 16))
        net = d.WanTransformer3DModel(
            num_layers=layers, num_attention_heads=heads, attention_head_dim=128, ffn_dim=ffn, text_dim=text,
            freq_dim=256, in_channels=16, out_channels=16,
        )  # fmt: skip
        return net, (16, *n), {"encoder_hidden_states": (512 if real else 32, text)}

    made = {"UNet2D": unet2d, "SD UNet": sd, "DiT": dit, "MMDiT": mmdit, "Wan": wan}
    titles = {"DiT": "DiT-XL/2 256 px", "MMDiT": "MMDiT 1.5 B 512 px", "Wan": "Wan 1.3 B, 17 frames 480p"}
    return {titles.get(name, name) if real else f"{name} small": f for name, f in made.items()}


class Call:
    """net(x, timestep, ...) by keywords, whose first output's channels beyond x's are a variance."""

    batchable = True

    def __call__(self, net: Any, x: Tensor, tau: Tensor, cond: Cond) -> Tensor:
        if isinstance(
            net, diffusers.SD3Transformer2DModel | diffusers.WanTransformer3DModel | diffusers.DiTTransformer2DModel
        ):
            return net(x, timestep=tau, **cond, return_dict=False)[0][:, : x.shape[1]]  # type: ignore[no-any-return]
        return net(x, tau, **cond, return_dict=False)[0][:, : x.shape[1]]  # type: ignore[no-any-return]
