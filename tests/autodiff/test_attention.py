"""The chunked tangent of attention against PyTorch's own forward AD through the unfused kernel."""

import itertools
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.autograd import forward_ad as fwAD
from torch.nn.attention import SDPBackend, sdpa_kernel

from scm_distill.autodiff import attention
from scm_distill.autodiff.forward_ad import TangentMode, jvp
from scm_distill.autodiff.torch_private import TorchDispatchMode, storage_id, tree_leaves

B, H, N, M, D, E = 2, 3, 11, 7, 5, 4


def draws(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes]


def reference(f, primals, tangents):  # type: ignore[no-untyped-def]
    with sdpa_kernel(SDPBackend.MATH), fwAD.dual_level():
        return fwAD.unpack_dual(f(*(fwAD.make_dual(p, d) for p, d in zip(primals, tangents, strict=True))))


MASKS = {
    "none": None,
    "bool": torch.rand(B, 1, 1, M, generator=torch.Generator().manual_seed(1)) > 0.3,
    "additive": torch.randn(B, H, N, M, generator=torch.Generator().manual_seed(2), dtype=torch.float64),
}


@pytest.mark.parametrize("chunk", [4, 256])
@pytest.mark.parametrize("mask", MASKS)
def test_cross_attention(mask: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "CHUNK", chunk)
    shapes = ((B, H, N, D), (B, H, M, D), (B, H, M, E))
    q, k, v, dq, dk, dv = draws(*shapes, *shapes)

    def f(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=MASKS[mask], scale=0.7)

    expected = reference(f, (q, k, v), (dq, dk, dv))
    for mine, theirs in zip(jvp(f, (q, k, v), (dq, dk, dv)), expected, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-12)


def test_causal_and_grouped_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "CHUNK", 4)
    q, dq, k, dk, v, dv = draws((B, 6, N, D), (B, 6, N, D), (B, 2, N, D), (B, 2, N, D), (B, 2, N, D), (B, 2, N, D))

    def f(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    expected = reference(f, (q, k, v), (dq, dk, dv))
    for mine, theirs in zip(jvp(f, (q, k, v), (dq, dk, dv)), expected, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-12)


@pytest.mark.parametrize("moving", [0, 1, 2])
def test_only_one_of_query_key_value_moves(moving: int) -> None:
    parts = draws((B, H, N, D), (B, H, M, D), (B, H, M, D))
    (d,) = draws(parts[moving].shape)

    def f(x: torch.Tensor) -> torch.Tensor:
        q, k, v = (x if i == moving else part for i, part in enumerate(parts))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    assert torch.allclose(jvp(f, (parts[moving],), (d,))[1], reference(f, (parts[moving],), (d,))[1], atol=1e-12)


def test_dropout_is_refused() -> None:
    q, dq = draws((1, 1, 4, 4), (1, 1, 4, 4))
    with pytest.raises(NotImplementedError, match="dropout"):
        jvp(lambda x: torch.nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=0.1), (q,), (dq,))


class AllocationTracker(TorchDispatchMode):
    """Counts the bytes of storages that operators have made and that are still referred to, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {storage_id(x) for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor) and storage_id(x) not in given | self.known:
                storage, key = x.untyped_storage(), storage_id(x)
                self.known.add(key)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._freed, key, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _freed(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def peak(f: Callable[[], object]) -> int:
    with AllocationTracker() as tracker:
        kept = f()
    assert kept is not None
    return tracker.peak


def long(n: int, heads: int = 1) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(1, heads, n, 8, generator=g) for _ in range(6)]


def test_memory_grows_with_the_number_of_tokens_and_not_with_its_square(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "CHUNK", 2**18)
    peaks = [
        peak(lambda n=n: attention.with_tangent(*long(n), mask=None, causal=False, scale=0.25))
        for n in (512, 1024, 2048)
    ]
    assert peaks[0] > 4 * 2**18
    for shorter, longer in itertools.pairwise(peaks):
        assert longer <= 2 * shorter


def test_memory_at_4096_tokens_is_a_quarter_of_the_unfused_derivative() -> None:
    q, k, v, dq, dk, dv = long(4096, 2)

    def derived(mode: Any) -> torch.Tensor:
        with mode, fwAD.dual_level():
            duals = (fwAD.make_dual(p, d) for p, d in ((q, dq), (k, dk), (v, dv)))
            y, dy = fwAD.unpack_dual(torch.nn.functional.scaled_dot_product_attention(*duals))
            if y.requires_grad:
                y.sum().backward()
            return dy.clone()

    theirs = peak(lambda: derived(sdpa_kernel(SDPBackend.MATH)))
    assert theirs >= 3 * 4 * 2 * 4096**2
    assert peak(lambda: derived(TangentMode())) <= theirs / 4
    q.requires_grad_()
    assert peak(lambda: derived(TangentMode())) <= theirs / 4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])  # chunked, and PyTorch's own for the CPU
@pytest.mark.parametrize("kind", ["none", "bool", "additive", "causal", "grouped"])
def test_the_backward_is_that_of_the_plain_function(
    kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "CHUNK", 4)
    heads, width = 1 if kind == "grouped" else H, E if dtype == torch.float64 else D
    shapes = ((B, H, N, D), (B, heads, M, D), (B, heads, M, width), (B, H, N, D))
    q, k, v, d = (x.to(dtype) for x in draws(*shapes))
    mask = MASKS.get(kind)
    mask = mask.to(dtype) if mask is not None and mask.is_floating_point() else mask
    settings: dict[str, Any] = {"attn_mask": mask, "is_causal": kind == "causal", "enable_gqa": heads == 1}
    leaves = [x.requires_grad_() for x in (q, k, v)]
    with fwAD.dual_level(), TangentMode():
        duals = (fwAD.make_dual(q, d), k, v)
        y, dy = fwAD.unpack_dual(torch.nn.functional.scaled_dot_product_attention(*duals, **settings))
        assert not dy.requires_grad
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    found = torch.autograd.grad(y, leaves, weights)
    plain = torch.nn.functional.scaled_dot_product_attention(*leaves, **settings)
    for mine, theirs in zip(found, torch.autograd.grad(plain, leaves, weights), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-12 if dtype == torch.float64 else 1e-6)


def both(f: Any, parts: tuple[torch.Tensor, ...], tangents: tuple[torch.Tensor, ...]) -> None:
    """Value, derivative and gradients of `f` on pairs are those of plain PyTorch."""
    leaves = [x.detach().requires_grad_() for x in parts]
    with fwAD.dual_level(), TangentMode():
        y, dy = fwAD.unpack_dual(f(*(fwAD.make_dual(p, d) for p, d in zip(leaves, tangents, strict=True))))
    weights = torch.linspace(-1, 1, y.numel()).reshape(y.shape)
    found = [y, dy, *torch.autograd.grad(y, leaves, weights)]
    value, derivative = reference(f, parts, tangents)
    expected = [value, derivative, *torch.autograd.grad(f(*leaves), leaves, weights)]
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_a_last_dimension_that_is_not_contiguous() -> None:
    shapes = ((B, H, D, N), (B, H, D, M), (B, H, D, M))
    parts = tuple(x.float().mT for x in draws(*shapes))
    both(torch.nn.functional.scaled_dot_product_attention, parts, tuple(x.float().mT for x in draws(*shapes)))


@pytest.mark.parametrize("moved", [(B, 1, 1), (1, H, H), (B, H, 1)])
def test_leading_dimensions_that_broadcast(moved: tuple[int, ...]) -> None:
    batch, heads, of_values = moved
    shapes = ((B, H, N, D), (batch, heads, M, D), (batch, of_values, M, D))
    parts, tangents = (tuple(x.float() for x in draws(*shapes)) for _ in range(2))
    both(torch.nn.functional.scaled_dot_product_attention, parts, tangents)


def test_a_query_that_sees_no_key_gives_zero() -> None:
    seen = torch.ones(B, 1, N, M, dtype=torch.bool)
    seen[:, :, 2] = False
    shapes = ((B, H, N, D), (B, H, M, D), (B, H, M, D))
    q, k, v = (x.float().requires_grad_() for x in draws(*shapes))
    (d,) = draws((B, H, N, D))
    with fwAD.dual_level(), TangentMode():
        y, dy = fwAD.unpack_dual(
            torch.nn.functional.scaled_dot_product_attention(fwAD.make_dual(q, d.float()), k, v, attn_mask=seen)
        )
    assert torch.equal(y[:, :, 2], torch.zeros(B, H, D))
    assert torch.equal(dy[:, :, 2], torch.zeros(B, H, D))
    grads = torch.autograd.grad(y.square().sum(), (q, k, v))
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    for mine, theirs in zip(grads, torch.autograd.grad(plain.square().sum(), (q, k, v)), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_within_first_chunks_no_others_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "CHUNK", 4)
    q, k = torch.zeros(2, 1, 6, 8), torch.zeros(2, 1, 4, 8)
    every = list(attention._parts(q, k))
    assert len(every) == 12
    with attention.first_chunks(2):
        assert list(attention._parts(q, k)) == every[:2]
    assert list(attention._parts(q, k)) == every
