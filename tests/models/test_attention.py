"""The chunked tangent of attention against PyTorch's own forward AD through the unfused kernel."""

import pytest
import torch
from torch.autograd import forward_ad as fwAD
from torch.nn.attention import SDPBackend, sdpa_kernel

from scm_distill.models import attention
from scm_distill.models.forward_ad import jvp

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
