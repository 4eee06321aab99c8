"""Compiled blocks: one function for every kind, and the results of eager ones; without the compiler's own code."""

from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scm_distill.autodiff import compiled
from scm_distill.autodiff.derivatives import OnePass, TwoPasses

pytestmark = pytest.mark.filterwarnings("ignore")  # of the compiler
WIDTHS = (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 12, 12)  # more kinds than the 8 that torch lets one function have


class Block(nn.Module):
    """A layer, times t."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.layer = nn.Linear(before, after)

    def forward(self, x: Tensor, t: Tensor, *, scale: float = 1.0) -> Tensor:
        return (scale * self.layer(x) * t[:, None]).tanh()


class Blocks(nn.Module):
    """Layers of several kinds, two of them alike."""

    def __init__(self) -> None:
        super().__init__()
        pairs = pairwise(WIDTHS)
        self.blocks = nn.ModuleList(Block(a, b) for a, b in pairs)

    def forward(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        for block in self.blocks:
            x = block(x, t, scale=0.5)
        return x


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compilation up to the graph, which is then run as it is; nothing compiled before."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr(compiled, "LEVELS", compiled.Kinds(compiled.LEVELS.function))
    monkeypatch.setattr(compiled, "CALLS", compiled.Kinds(compiled.CALLS.function))


def off(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def made(seed: int = 0) -> tuple[Blocks, tuple[Any, ...]]:
    with torch.random.fork_rng():
        torch.random.manual_seed(seed)
        net = Blocks()
        x, v = torch.randn(2, WIDTHS[0]), torch.randn(2, WIDTHS[0])
    return net, (x, torch.tensor([0.4, 1.3]), {}, v)


@pytest.mark.usefixtures("traced")
def test_every_kind_of_block_is_compiled_once() -> None:
    net, inputs = made()
    heard: list[str] = []
    compiled.LEVELS.heard = heard.append
    modules, gradients = list(net.blocks), []
    for way in (TwoPasses(), OnePass(modules, compile="blocks"), OnePass(modules, compile="blocks")):
        y, dy = way(net, *inputs)
        gradients.append(
            (y, dy, torch.cat([g.flatten() for g in torch.autograd.grad(y.sum(), list(net.parameters()))]))
        )
    for mine in gradients[1:]:
        assert all(off(a, b) < 1e-5 for a, b in zip(mine, gradients[0], strict=True))
    assert len(compiled.LEVELS.by_kind) == len(set(pairwise(WIDTHS))) == 10
    assert heard == 10 * ["Block"]


@pytest.mark.usefixtures("traced")
def test_another_size_of_batch_is_another_kind() -> None:
    net, (x, t, cond, v) = made()
    way = OnePass([net.blocks[0]], compile="blocks")
    way(net, x, t, cond, v)
    y, _ = way(net, x[:1], t[:1], cond, v[:1])
    assert off(y, net(x[:1], t[:1], cond)) < 1e-6
    assert len(compiled.LEVELS.by_kind) == 2


@pytest.mark.usefixtures("traced")
def test_forwards_without_a_tangent_are_compiled_and_left_as_they_were() -> None:
    net, (x, t, cond, _) = made()
    with torch.no_grad():
        plain = net(x, t, cond)
        with compiled.forwards(list(net.blocks)):
            assert off(net(x, t, cond), plain) < 1e-6
    assert len(compiled.CALLS.by_kind) == 10
    assert not any("forward" in block.__dict__ for block in net.blocks)


def test_kinds_differ_by_what_compiled_code_depends_on() -> None:
    a, b, c = Block(3, 4), Block(3, 4), Block(3, 5)
    x = torch.ones(2, 3)

    def of(block: Block, x: Tensor, tangent: Tensor | None = None, scale: float = 1.0) -> Any:
        return compiled.kind(block.forward, [x, scale], [tangent, None], "spec")

    same = of(a, x)
    assert same == of(b, x.clone())
    with torch.no_grad():
        without_gradient = of(a, x)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = of(a, x)
    others = [
        of(c, x), of(a, x[:1]), of(a, x.double()), of(a, torch.ones(3, 2).t()), of(a, x, x), of(a, x, scale=2.0),
        of(a, x.clone().requires_grad_()), without_gradient, narrow,
    ]  # fmt: skip
    assert len({same, *others}) == 1 + len(others)
    b.layer.bias.requires_grad_(False)
    compiled._PARAMETERS.pop(b)
    assert of(b, x) != same
