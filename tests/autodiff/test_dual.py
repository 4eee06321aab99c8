"""Pairs of primal and tangent: what functions do to them, and what a block does."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from conftest import tiny_net
from diffusers import (
    DiTTransformer2DModel,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from torch import nn

from scm_distill.autodiff.dual import Dual, blocks, one_pass, regions
from scm_distill.autodiff.forward_ad import jvp

Parts = Callable[..., torch.Tensor]
HEADS: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 8}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kinds(net: nn.Module) -> list[str]:
    return [type(block).__name__ for block in blocks(net)]


def test_the_blocks_of_unets_are_their_resnets_and_attentions() -> None:
    found = kinds(tiny_net())
    assert set(found) == {"ResnetBlock2D", "Attention", "Downsample2D", "Upsample2D"}
    conditional = UNet2DConditionModel(
        sample_size=8, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4, attention_head_dim=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=12,
    )  # fmt: skip
    assert set(kinds(conditional)) == {"ResnetBlock2D", "Transformer2DModel", "Downsample2D", "Upsample2D"}


def test_the_blocks_of_transformers_are_their_layers() -> None:
    dit = DiTTransformer2DModel(**HEADS, in_channels=4, num_layers=2, sample_size=8, num_embeds_ada_norm=10)
    sd3 = SD3Transformer2DModel(
        sample_size=8, num_layers=2, **HEADS, joint_attention_dim=12, caption_projection_dim=16,
        pooled_projection_dim=6, in_channels=4,
    )  # fmt: skip
    flux = FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=2, num_single_layers=3, **HEADS, joint_attention_dim=12,
        pooled_projection_dim=6, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    assert blocks(dit) == list(dit.transformer_blocks)
    assert blocks(sd3) == list(sd3.transformer_blocks)
    assert blocks(flux) == [*flux.transformer_blocks, *flux.single_transformer_blocks]


def test_what_has_no_parameters_or_no_list_is_no_block() -> None:
    assert blocks(nn.Sequential(nn.Linear(2, 2), nn.ReLU())) == []
    net = nn.Module()
    net.parts = nn.ModuleList([nn.ReLU(), nn.Linear(2, 2)])
    assert blocks(net) == [net.parts[1]]


def test_a_pair_looks_like_its_primal() -> None:
    x = draw(2, 3, 4).movedim(0, -1).float()
    pair = Dual(x, torch.ones_like(x))
    assert (pair.shape, pair.dtype, pair.device, pair.ndim) == (x.shape, x.dtype, x.device, x.ndim)
    assert (pair.size(1), pair.dim(), len(pair), pair.numel()) == (x.size(1), x.dim(), len(x), x.numel())
    assert pair.stride() == x.stride()
    assert not pair.is_contiguous()
    assert pair.is_floating_point()
    assert not pair.requires_grad
    assert Dual(x.requires_grad_(), torch.ones_like(x)).requires_grad
    assert "Dual(" in repr(pair)


def changed(x: torch.Tensor, y: torch.Tensor, f: Callable[[torch.Tensor], Any]) -> torch.Tensor:
    """A copy of x, after `f` has changed it in place."""
    x = 1 * x
    f(x)
    return x * y


def assigned(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    made = 0 * x
    made[:, 1:] = x[:, 1:] * y[:, 1:]
    made[:, 0] = 2.0
    return made


FUNCTIONS: dict[str, Parts] = {
    "arithmetic": lambda x, y: 2 - x * y + y / (x * x + 1) - (-x) ** 3 + 1 / (2 + y * y),
    "comparison": lambda x, y: torch.where(x > 0, x, y).clamp(-0.5, 0.5) + x.abs().maximum(y),
    "cat": lambda x, y: torch.cat([x, y, x * y, torch.ones_like(x)], dim=1),
    "stack": lambda x, y: torch.stack((x, 3 * y), -1).sum(1),
    "chunk": lambda x, y: (lambda a, b: a * b)(*(x * y).chunk(2, dim=1)),
    "split": lambda x, y: sum((part.sum(1) for part in (x * y).split([1, 2, 1], dim=1)), x[:, 0]),
    "unbind": lambda x, y: torch.stack([a * b for a, b in zip(x.unbind(1), y.unbind(1), strict=True)]),
    "indexing": lambda x, y: x[:, None, 1::2] * y[..., torch.tensor([3, 0])][:, None],
    "reshape": lambda x, y: (x * y).reshape(3, 2, 2).permute(2, 0, 1).flatten(1).unflatten(1, (3, 2)).transpose(0, 2),
    "gather": lambda x, y: torch.gather(x * y, 1, torch.tensor([[0], [3], [1]])),
    "to and back": lambda x, y: (x * y).float().to(torch.float64).contiguous().clone(),
    "in place": lambda x, y: changed(x, y, lambda z: z.mul_(y).add_(x).sin_()),
    "in place, of a view": lambda x, y: changed(x, y, lambda z: z[:, 1:3].mul_(y[:, 1:3])),
    "augmented": lambda x, y: changed(x, y, lambda z: z.__iadd__(y)),
    "set item": assigned,
    "norm": lambda x, y: x / torch.linalg.vector_norm(y, dim=-1, keepdim=True),
    "pad": lambda x, y: nn.functional.pad(x * y, (1, 2)),
    "expand": lambda x, y: x[:, :1].expand(3, 4) * y.repeat(1, 1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_pairs_are_forward_ad(name: str) -> None:
    f = FUNCTIONS[name]
    x, y, dx, dy = (draw(3, 4, seed=seed) for seed in range(4))
    before = x.clone()
    primal, tangent = jvp(f, (x, y), (dx, dy))
    mine, d_mine = one_pass(f, (x, y), (dx, dy))
    assert torch.allclose(mine, primal, atol=1e-7)
    assert torch.allclose(d_mine, tangent, atol=1e-7)
    assert torch.equal(x, before)
    x.requires_grad_()
    y.requires_grad_()
    mine, d_mine = one_pass(f, (x, y), (dx, dy))
    assert not d_mine.requires_grad
    found = torch.autograd.grad(mine.sin().sum(), (x, y), allow_unused=True)
    expected = torch.autograd.grad(f(x, y).sin().sum(), (x, y), allow_unused=True)
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, atol=1e-7)


def test_a_tangent_written_into_a_plain_tensor_is_refused() -> None:
    pair = Dual(draw(3), draw(3, seed=1))
    with pytest.raises(NotImplementedError, match="without a tangent"):
        torch.zeros(3, dtype=torch.float64)[:2] = pair[:2]
    with pytest.raises(NotImplementedError, match="without a tangent"):
        torch.zeros(3, dtype=torch.float64).add_(pair)


@pytest.mark.parametrize("f", [torch.ones_like, torch.detach, lambda x: x > 0, lambda x: x.argmax(-1)])
def test_what_drops_the_tangent_is_an_error_at_the_end(f: Parts) -> None:
    with pytest.raises(RuntimeError, match="no tangent"):
        one_pass(f, (draw(2, 3),), (draw(2, 3, seed=1),))


def test_code_that_goes_round_torch_functions_is_refused() -> None:
    pair = Dual(draw(3), draw(3, seed=1))
    with pytest.raises(NotImplementedError, match="pair"), torch._C.DisableTorchFunctionSubclass():
        torch.sin(pair)


@dataclass
class Answer:
    """As diffusers' outputs, which are dataclasses and dictionaries."""

    sample: torch.Tensor


class Odd(nn.Module):
    """A block with every kind of argument and output."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(draw(4, 4, seed=7))

    def forward(self, x: torch.Tensor, rest: Any = None, *, scale: Any = None) -> Any:
        y = (x @ self.weight).sin()
        y = y if scale is None else y * scale
        if rest is None:
            return y
        (t, flags), none = rest
        assert flags.dtype == torch.bool
        assert none is None
        return y * t, {"flags": flags, "none": none, "more": [y + t, 3]}


class Net(nn.Module):
    """Blocks called several times, with pairs among tuples and keyword arguments, and one weight for two of them."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([Odd(), Odd(), Odd()])
        self.parts[2].weight = self.parts[0].weight

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        first, second, third = self.parts
        flags = torch.tensor([True, False])
        h, more = first(x, ((t[:, None], flags), None), scale=0.5)
        assert more["none"] is None
        assert torch.equal(more["flags"], flags)
        assert more["more"][1] == 3
        return third(second(first(h) + more["more"][0], scale=x)) + first(x)


def differentiated(net: nn.Module, *, lean: bool | None) -> list[torch.Tensor]:
    """F, its tangent and the gradients by inputs and parameters, with the blocks as regions."""
    x, t = (z.requires_grad_() for z in (draw(2, 4), draw(2, seed=1)))
    dx, dt = draw(2, 4, seed=2), draw(2, seed=3)
    if lean is None:
        tangent = jvp(net, (x, t), (dx, dt))[1]
        y = net(x, t)
    else:
        with regions(blocks(net), lean=lean):
            y, tangent = one_pass(net, (x, t), (dx, dt))
    wanted = [x, t, *net.parameters()]
    grads = torch.autograd.grad(y.square().sum(), wanted)
    return [y.detach(), tangent, *grads]


@pytest.mark.parametrize("lean", [False, True])
def test_blocks_of_any_signature_called_again_and_sharing_a_weight(lean: bool) -> None:
    net = Net()
    assert len(blocks(net)) == 3
    for mine, theirs in zip(differentiated(net, lean=lean), differentiated(net, lean=None), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-12)


@pytest.mark.parametrize("lean", [False, True])
def test_a_frozen_weight_gets_no_gradient(lean: bool) -> None:
    net = Net()
    net.parts[1].weight.requires_grad_(False)
    with regions(blocks(net), lean=lean):
        y, _ = one_pass(net, (draw(2, 4), draw(2, seed=1)), (draw(2, 4), draw(2)))
    y.sum().backward()
    assert net.parts[1].weight.grad is None
    assert net.parts[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("lean", [False, True])
def test_a_region_works_without_a_reverse_graph(lean: bool) -> None:
    net = Net()
    expected = differentiated(net, lean=None)
    with torch.no_grad(), regions(blocks(net), lean=lean):
        y, tangent = one_pass(net, (draw(2, 4), draw(2, seed=1)), (draw(2, 4, seed=2), draw(2, seed=3)))
    assert not y.requires_grad
    assert torch.allclose(y, expected[0])
    assert torch.allclose(tangent, expected[1])


@pytest.mark.parametrize("lean", [False, True])
def test_hooks_of_a_block_see_plain_tensors(lean: bool) -> None:
    net, seen = Net(), []
    for part in net.parts:
        part.register_forward_pre_hook(lambda _, args: seen.append(type(args[0])))
        part.register_forward_hook(lambda _, __, output: seen.append(type(output)))
    with regions(blocks(net), lean=lean):
        one_pass(net, (draw(2, 4), draw(2, seed=1)), (draw(2, 4), draw(2)))
    assert seen
    assert Dual not in seen


class OwnForward(nn.Linear):
    """Raises, once asked to."""

    fails = False

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.fails:
            raise ValueError("asked to")
        return super().forward(input)


@pytest.mark.parametrize("lean", [False, True])
def test_nothing_is_left_on_the_modules_after_an_exception(lean: bool) -> None:
    net = nn.Module()
    net.parts = nn.ModuleList([OwnForward(4, 4).double(), OwnForward(4, 4).double()])
    net.parts[1].fails = True
    patched = net.parts[0].forward
    net.parts[0].forward = patched
    with pytest.raises(ValueError, match="asked to"), regions(blocks(net), lean=lean):
        one_pass(lambda x: net.parts[1](net.parts[0](x)), (draw(2, 4),), (draw(2, 4),))
    for part in net.parts:
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
    assert net.parts[0].__dict__["forward"] is patched
    assert "forward" not in net.parts[1].__dict__
