"""One pass and two against torch.func.jvp and plain backward on diffusers' networks, and what they cost."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from conftest import tiny_net
from counting import flops
from diffusers import (
    DiTTransformer2DModel,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    UNet2DModel,
)
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from zoo.parts import awaken

from scm_distill.autodiff.derivatives import Derivative, Difference, OnePass, TwoPasses, direction, tangent_pass
from scm_distill.autodiff.dual import blocks, one_pass, regions

B = 2
Made = tuple[torch.nn.Module, dict[str, torch.Tensor]]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def dit() -> Made:
    net = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=4, num_layers=2, sample_size=8,
        patch_size=2, num_embeds_ada_norm=10, norm_type="ada_norm_zero", norm_elementwise_affine=False,
    )  # fmt: skip
    return net, {"class_labels": torch.tensor([1, 2])}


def unet() -> Made:
    return tiny_net(channels=4), {}


def unet_with_text() -> Made:
    net = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4, attention_head_dim=8, cross_attention_dim=12,
    )  # fmt: skip
    mask = torch.tensor([[True] * 5, [True, True, False, False, True]])
    return net, {"encoder_hidden_states": draw(B, 5, 12, seed=1), "encoder_attention_mask": mask}


def pixart() -> Made:
    net = PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=4, num_layers=2, sample_size=8,
        patch_size=2, cross_attention_dim=16, caption_channels=12, norm_type="ada_norm_single",
        use_additional_conditions=False,
    )  # fmt: skip
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    return net, {"encoder_hidden_states": draw(B, 5, 12, seed=1), "encoder_attention_mask": mask}


def sd3() -> Made:
    net = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=12, caption_projection_dim=16, pooled_projection_dim=6,
        pos_embed_max_size=8, qk_norm="rms_norm",
    )  # fmt: skip
    return net, {"encoder_hidden_states": draw(B, 5, 12, seed=1), "pooled_projections": draw(B, 6, seed=2)}


NETWORKS: dict[str, Callable[[], Made]] = {f.__name__: f for f in (dit, unet, unet_with_text, pixart, sd3)}


class Network:
    """F(x, t, cond) of a network, and inputs for it."""

    def __init__(self, net: torch.nn.Module, cond: dict[str, torch.Tensor], size: int = 8, channels: int = 4) -> None:
        self.net, self.cond = net, cond
        self.x, self.v = (draw(B, channels, size, size, seed=seed) for seed in (3, 4))
        self.t = torch.tensor([0.4, 1.3])

    def __call__(self, x: torch.Tensor, t: torch.Tensor, cond: Any) -> torch.Tensor:
        return self.net(x, timestep=50 * t, **cond, return_dict=False)[0]

    def by(self, way: Derivative) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """F, cos t sin t dF/dt and the gradient of a sum over F."""
        y, dy = way(self, self.x, self.t, self.cond, self.v)
        weights = torch.linspace(-1, 1, y.numel()).reshape(y.shape)
        grads = torch.autograd.grad((y * weights).sum(), list(self.net.parameters()), allow_unused=True)
        flat = [torch.zeros_like(p) if g is None else g for p, g in zip(self.net.parameters(), grads, strict=True)]
        return y.detach(), dy, torch.cat([g.flatten() for g in flat])


@contextmanager
def math_only(net: torch.nn.Module) -> Iterator[None]:
    """What torch.func.jvp can derive: unfused attention, and contiguous inputs of group norms."""
    norms = [m for m in net.modules() if isinstance(m, torch.nn.GroupNorm)]
    hooks = [m.register_forward_pre_hook(lambda _, a: (a[0].contiguous(),)) for m in norms]
    with sdpa_kernel(SDPBackend.MATH):
        yield
    for hook in hooks:
        hook.remove()


@cache
def known(name: str) -> tuple[Network, tuple[torch.Tensor, ...]]:
    """A network with F, its derivative and its gradient by torch alone."""
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        net, cond = NETWORKS[name]()
        network = Network(awaken(net), cond)
    with math_only(net), torch.no_grad():
        along = direction(network.t, network.v)
        y, dy = torch.func.jvp(lambda x, t: network(x, t, cond), (network.x, network.t), along)
    _, _, gradient = network.by(lambda F, x, t, cond, v: (F(x, t, cond), x))
    return network, (y, dy, gradient)


def off(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


WAYS: dict[str, Callable[[Sequence[torch.nn.Module]], Derivative]] = {
    "one pass, fast": lambda parts: OnePass(parts, "fast"),
    "one pass, lean": lambda parts: OnePass(parts, "lean"),
    "one pass, no blocks": lambda parts: OnePass(()),
    "two passes, fast": lambda parts: TwoPasses(parts, "fast"),
    "two passes, lean": lambda parts: TwoPasses(parts, "lean"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_way_gives_what_torch_gives(name: str, way: str) -> None:
    network, (y, dy, gradient) = known(name)
    parts = blocks(network.net)
    assert parts
    mine, d_mine, my_gradient = network.by(WAYS[way](parts))
    assert off(mine, y) < 2e-6
    assert off(d_mine, dy) < 1e-5
    assert off(my_gradient, gradient) < 1e-5
    assert not d_mine.requires_grad
    assert type(mine) is type(d_mine) is torch.Tensor


@pytest.mark.parametrize("name", NETWORKS)
def test_one_pass_and_two_agree(name: str) -> None:
    network, _ = known(name)
    parts = blocks(network.net)
    y, dy, gradient = network.by(TwoPasses(parts))
    for memory in ("fast", "lean"):
        mine, d_mine, my_gradient = network.by(OnePass(parts, memory))
        assert off(mine, y) < 1e-6
        assert off(d_mine, dy) < 1e-6 * (3 if name.startswith("unet") else 1)
        assert off(my_gradient, gradient) < 1e-5


class AttentionFlops(TorchFunctionMode):
    """The two products of every attention that is called."""

    total = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            q, k, v = [*args, *(kwargs[name] for name in ("query", "key", "value")[len(args) :])][:3]
            self.total += 2 * q[..., 0].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1])
        return func(*args, **kwargs)


def wide_dit() -> Network:
    net = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=32, in_channels=4, out_channels=4, num_layers=3, sample_size=16,
        patch_size=1, num_embeds_ada_norm=10, norm_type="ada_norm_zero", norm_elementwise_affine=False,
    )  # fmt: skip
    return Network(net, {"class_labels": torch.tensor([1, 2])}, 16)


def wide_unet() -> Network:
    net = UNet2DModel(
        sample_size=16, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4, attention_head_dim=8,
    )  # fmt: skip
    return Network(net, {}, 16, 3)


@pytest.mark.parametrize("make", [wide_dit, wide_unet])
def test_the_arithmetic_of_a_distillation_step(make: Callable[[], Network]) -> None:
    network = make()
    inputs = network.x, network.t, network.cond
    with torch.no_grad():
        F = flops(lambda: network(*inputs))
        with AttentionFlops() as attention:
            network(*inputs)
    a = attention.total / F
    assert 0.04 < a < 0.5
    tangent = flops(lambda: tangent_pass(network, *inputs, network.v)) / F
    assert tangent <= 2.05 + a

    def step(way: Derivative) -> None:
        with torch.no_grad():
            network(*inputs)
        y, _ = way(network, *inputs, network.v)
        y.square().mean().backward()
        network.net.zero_grad()

    parts = blocks(network.net)
    assert flops(lambda: step(OnePass(parts))) / F <= 5.1 + 1.5 * a
    assert flops(lambda: step(OnePass(parts, "lean"))) / F <= 6.1 + 1.5 * a


def held(f: Callable[[], torch.Tensor]) -> int:
    """Bytes of the distinct storages that the reverse graph of f() holds, its parameters aside."""
    storages: dict[int, int] = {}
    kept: list[torch.Tensor] = []

    def pack(x: torch.Tensor) -> torch.Tensor:
        if not isinstance(x, torch.nn.Parameter):
            kept.append(x)
            storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        f()
    return sum(storages.values())


def test_no_tangent_is_kept_for_the_backward() -> None:
    net = tiny_net()
    x, dx = (torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    k = torch.linspace(1, 900, 16)

    def f(x: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return net(x, k, return_dict=False)[0]

    def paired(parts: list[torch.nn.Module], *, lean: bool) -> torch.Tensor:
        with regions(parts, lean=lean):
            return one_pass(f, (x, k), (dx, torch.ones(16)))[0]

    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        plain = held(lambda: f(x, k))
    assert held(lambda: paired(blocks(net), lean=False)) < 1.15 * plain
    assert held(lambda: paired([], lean=False)) < 1.15 * plain
    assert held(lambda: paired(blocks(net), lean=True)) < 0.5 * plain
    for way in (TwoPasses(blocks(net), "lean"), Difference(0.01, blocks(net), "lean")):
        assert held(lambda way=way: way(lambda x, t, _: f(x, 500 * t), x, k / 1000, {}, dx)[0]) < 0.5 * plain


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler
@pytest.mark.parametrize("compile", ["blocks", "step"])
def test_a_compiled_pass_is_the_eager_one(compile: Any) -> None:
    network, _ = known("dit")
    y, dy, gradient = network.by(TwoPasses())
    mine, d_mine, my_gradient = network.by(OnePass(blocks(network.net), compile=compile))
    assert off(mine, y) < 1e-5
    assert off(d_mine, dy) < 1e-5
    assert off(my_gradient, gradient) < 1e-5
