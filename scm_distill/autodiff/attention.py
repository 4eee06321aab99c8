"""Attention with a forward derivative, in memory that grows with N, not with N M.

With S = scale Q K^T + mask and P = softmax(S): dS = scale (dQ K^T + Q dK^T) and
O = P V, dO = P dV + (P * dS) V - rowsum(P * dS) * O: six matrix products. On a GPU PyTorch's fused attention computes
O, with its own backward, and the logsumexp of S (`primal.py`), and a Triton kernel dO from both (`flash.py`): seven,
since Q K^T is made twice. Elsewhere plain PyTorch does, some rows of S at a time, and the backward is PyTorch's for the
CPU, or chunked too.

q, dq  queries and their tangent      (B, H, N, D)        k, dk  keys     (B, H, M, D)
v, dv  values                         (B, H, M, E)        O, dO  output   (B, H, N, E)

`scaled_dot_product_attention` takes any leading dimensions. A tangent that is None is zero.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad as fwAD

from scm_distill.autodiff import flash, primal
from scm_distill.autodiff.torch_private import cpu_attention_backward

CHUNK = 2**20  # entries of S at a time; on a GPU, which wants larger products, 16 times as many


def _tf32() -> bool:
    return bool(torch.backends.cuda.matmul.allow_tf32)


def backend(device: torch.device | str, dtype: torch.dtype) -> str:
    """How the tangent of attention is computed on a device for queries of a dtype, in words for a report."""
    q = torch.empty(1, 1, 1, 64, device=device, dtype=dtype)
    source = flash.source(q, q, q, tf32=_tf32(), graph=False)
    words = {"chunks": "exact in chunks", "kernel": "by the Triton kernel"}
    return words.get(source, f"by PyTorch's {source} attention and the Triton kernel")


_most: list[int | None] = [None]  # chunks to compute; the backward asks in threads of its own


@contextmanager
def first_chunks(n: int) -> Iterator[None]:
    """Within it only the first `n` chunks are computed, in all threads: for traces of memory, whose peak they have."""
    _most.append(n)
    try:
        yield
    finally:
        _most.pop()


def _parts(q: Tensor, k: Tensor) -> Iterator[tuple[slice, slice]]:
    """Slices of the samples and of the query rows, such that S of each pair of slices has about CHUNK entries."""
    B, H, N, M = *q.shape[:-1], k.shape[-2]
    entries = 16 * CHUNK if q.is_cuda else CHUNK
    samples = max(1, min(B, entries // (H * M * min(N, 64))))
    rows = max(1, entries // (samples * H * M))
    starts = ((b, n) for b in range(0, B, samples) for n in range(0, N, rows))
    return islice(((slice(b, b + samples), slice(n, min(n + rows, N))) for b, n in starts), _most[-1])


def _scores(q: Tensor, k: Tensor, mask: Tensor | None, rows: slice, *, causal: bool, scale: float) -> Tensor:
    """S (B, H, rows, M) of the queries `rows`, in the dtype of `q`, which holds those rows alone; `mask` holds all."""
    S = scale * q @ k.mT
    if causal:
        row = torch.arange(rows.start, rows.stop, device=q.device)[:, None]
        S = S.masked_fill(row < torch.arange(k.shape[-2], device=q.device), float("-inf"))
    if mask is not None:
        part = mask if mask.shape[-2] == 1 else mask[..., rows, :]
        S = S.masked_fill(~part, float("-inf")) if part.dtype == torch.bool else S + part.to(S.dtype)
    return S


def _probabilities(S: Tensor) -> tuple[Tensor, Tensor]:
    """P, zero in rows that see no key as PyTorch has it, and the largest score of every row (B, H, rows)."""
    highest = S.amax(-1)
    return S.softmax(-1).masked_fill_((highest == float("-inf"))[..., None], 0.0), highest


def _samples(x: Tensor | None, samples: slice) -> Tensor | None:
    """The slice `samples` of a mask, which may be None, or one for all samples."""
    return x if x is None or x.shape[0] == 1 else x[samples]


def with_tangent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dq: Tensor | None,
    dk: Tensor | None,
    dv: Tensor | None,
    o: Tensor | None = None,
    *,
    mask: Tensor | None,
    causal: bool,
    scale: float,
    lse: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """O and dO (B, H, N, E), exact, in the dtype of q. The `mask` broadcasts to (B, H, N, M).

    With `o` it is returned as O, and only dO is computed. `lse` (B, H, N) is filled with the logarithm of the sum of
    exp(S) of every row.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    out = torch.empty(*q.shape[:-1], v.shape[-1], dtype=q.dtype, device=q.device) if o is None else o
    dout = torch.empty_like(out)
    for b, n in _parts(q, k):
        Q, K, V = q[b, :, n].to(wide), k[b].to(wide), v[b].to(wide)
        S = _scores(Q, K, _samples(mask, b), n, causal=causal, scale=scale)
        P, highest = _probabilities(S)
        if lse is not None:
            lse[b, :, n] = torch.where(highest.isinf(), 0.0, highest - P.amax(-1).log())
        if o is None:
            O = P @ V  # noqa: E741 - the paper's name
            out[b, :, n] = O.to(out.dtype)
        else:
            O = o[b, :, n].to(wide)  # noqa: E741
        dO: Tensor | None = None if dv is None else P @ dv[b].to(wide)
        dS = None if dq is None else dq[b, :, n].to(wide) @ K.mT
        if dk is not None:
            second = Q @ dk[b].to(wide).mT
            dS = second if dS is None else dS.add_(second)
        if dS is not None:
            H = dS.mul_(P).mul_(scale)
            moved = H @ V - H.sum(-1, keepdim=True) * O
            dO = moved if dO is None else dO.add_(moved)
        assert dO is not None
        dout[b, :, n] = dO.to(out.dtype)
    return out, dout


class Chunked(torch.autograd.Function):
    """O with a backward in memory that grows with N, and dO without one; the arguments of `with_tangent`."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        tangents: tuple[Tensor | None, Tensor | None, Tensor | None],
        mask: Tensor | None,
        causal: bool,  # noqa: FBT001 - autograd takes no keywords
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))  # the kernel below looks at no stride
        fused = q.device.type == "cpu" and q.dtype == torch.float32 and q.shape[-1] == v.shape[-1]
        lse = q.new_empty(q.shape[:-1]) if fused else None
        o, do = with_tangent(q, k, v, *tangents, mask=mask, causal=causal, scale=scale, lse=lse)
        ctx.mark_non_differentiable(do)
        ctx.save_for_backward(q, k, v, o, mask, lse)
        ctx.causal, ctx.scale = causal, scale
        return o, do

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, o, mask, lse = ctx.saved_tensors
        if lse is not None:  # PyTorch's own backward for the CPU, of all that the forward would have saved
            if mask is not None and mask.dtype == torch.bool:
                mask = torch.zeros(mask.shape).masked_fill_(~mask, float("-inf"))
            grads = cpu_attention_backward(g, q, k, v, o, lse, 0.0, ctx.causal, attn_mask=mask, scale=ctx.scale)
            return *grads, None, None, None, None
        wide = torch.promote_types(q.dtype, torch.float32)
        gq = torch.empty_like(q)
        gk, gv = (torch.zeros_like(x, dtype=wide) for x in (k, v))
        for b, n in _parts(q, k):
            Q, K, V, G = q[b, :, n].to(wide), k[b].to(wide), v[b].to(wide), g[b, :, n].to(wide)
            P, _ = _probabilities(_scores(Q, K, _samples(mask, b), n, causal=ctx.causal, scale=ctx.scale))
            gv[b] += P.mT @ G
            inner = (G * o[b, :, n].to(wide)).sum(-1, keepdim=True)
            gS = (G @ V.mT).sub_(inner).mul_(P).mul_(ctx.scale)
            gq[b, :, n] = (gS @ K).to(gq.dtype)
            gk[b] += gS.mT @ Q
        return gq, gk.to(k.dtype), gv.to(v.dtype), None, None, None, None


def _four(x: Tensor) -> Tensor:
    """`x` (..., N, D) with two leading dimensions: (B, H, N, D)."""
    return x.flatten(0, -4) if x.ndim > 4 else x.reshape(*[1] * (4 - x.ndim), *x.shape)


def _broadcast(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dq: Tensor | None,
    dk: Tensor | None,
    dv: Tensor | None,
    *,
    grouped: bool,
) -> list[Any]:
    """q, k, v, dq, dk, dv as (B, heads, length, width).

    The leading dimensions are made equal, or if `grouped` (enable_gqa) the heads of q may be a multiple of the keys'.
    """
    tensors = (q, k, v, dq, dk, dv)
    if not grouped:
        lead = torch.broadcast_shapes(*(x.shape[:-2] for x in (q, k, v)))
        tensors = tuple(x if x is None else x.expand(*lead, *x.shape[-2:]) for x in tensors)  # type: ignore[assignment]
    return [x if x is None else _four(x) for x in tensors]


def _repeated(tensors: Sequence[Any]) -> list[Any]:
    """q, k, v, dq, dk, dv with every key head as often as query heads read it."""
    groups = tensors[0].shape[-3] // tensors[1].shape[-3]
    wanted = (1, 2, 4, 5) if groups > 1 else ()
    return [x.repeat_interleave(groups, -3) if i in wanted and x is not None else x for i, x in enumerate(tensors)]


def _output_and_tangent(
    tensors: Sequence[Any],
    mask: Tensor | None,
    *,
    causal: bool,
    scale: float,
    stock: Callable[[], Tensor],
) -> tuple[Tensor, Tensor]:
    """O (B, H, N, E), with a reverse graph where it is recorded, and dO without one.

    `tensors` are q, k, v, dq, dk, dv; `stock` gives O by PyTorch's function, in its own shape.
    """
    q, k, v = tensors[:3]
    graph = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    settings: Any = {"causal": causal, "scale": scale}
    by = flash.source(q, k, v, masked=mask is not None, causal=causal, tf32=_tf32(), graph=graph)
    if by in ("flash", "efficient"):
        mask = None if mask is None else primal.additive(mask, q.dtype, k.shape[-2])
        o, lse = primal.output(by, q, k, v, mask, **settings)
        with torch.no_grad():
            arguments: Any = (*_detached(tensors), o.detach(), lse)
            return o, flash.tangent(*arguments, **settings, mask=mask, tf32=_tf32())
    settings["mask"] = mask
    if graph and not q.is_cuda:
        q, k, v, *tangents = _repeated(tensors)
        return Chunked.apply(q, k, v, tuple(tangents), mask, causal, scale)  # type: ignore[no-any-return, no-untyped-call]
    own = _four(stock()) if graph else None
    with torch.no_grad():
        plain = _detached(tensors)
        if by == "kernel":
            o, do = flash.output_and_tangent(*plain, **settings, tf32=_tf32())
        else:
            arguments = (*_repeated(plain), None if own is None else own.detach())
            o, do = with_tangent(*arguments, **settings)
    return o if own is None else own, do


def _detached(tensors: Sequence[Any]) -> Any:
    return [x if x is None else x.detach() for x in tensors]


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,  # noqa: FBT001, FBT002 - the signature of the function that this stands in for
    scale: float | None = None,
    enable_gqa: bool = False,  # noqa: FBT001, FBT002
) -> Tensor:
    """The function of the same name in torch.nn.functional, on dual tensors: the output is dual if an input is.

    Raises NotImplementedError for dropout. A mask that has a gradient or a tangent takes PyTorch's unfused attention.
    """
    (q, dq), (k, dk), (v, dv) = (fwAD.unpack_dual(x) for x in (query, key, value))
    if dropout_p > 0:
        raise NotImplementedError("Attention dropout draws a new mask in every pass; set it to 0 for distillation.")

    def stock(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = attn_mask) -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa
        )

    def cast() -> Tensor:  # the mask as autocast would
        if attn_mask is None or attn_mask.dtype == torch.bool:
            return stock(q, k, v)
        return stock(q, k, v, attn_mask.to(q.dtype))

    if dq is None and dk is None and dv is None:
        return stock(query, key, value)
    if attn_mask is not None and (attn_mask.requires_grad or fwAD.unpack_dual(attn_mask).tangent is not None):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return stock(query, key, value)
    device = q.device.type
    if torch.is_autocast_enabled(device) and q.dtype != torch.float64:  # as it does with the stock function
        q, k, v = (x.to(torch.get_autocast_dtype(device)) for x in (q, k, v))
    with torch.autocast(device, enabled=False):  # it would round every product
        parts = _broadcast(q, k, v, dq, dk, dv, grouped=enable_gqa)
        tensors = [*parts[:3], *(x if x is None else x.detach().to(q.dtype) for x in parts[3:])]
        lead = q.shape[:-2] if enable_gqa else torch.broadcast_shapes(*(x.shape[:-2] for x in (q, k, v)))
        mask = attn_mask
        if mask is not None:
            mask = _four(mask.expand(*lead, *mask.shape[-2:]) if len(lead) > 2 else mask)
        factor = q.shape[-1] ** -0.5 if scale is None else scale
        o, do = _output_and_tangent(tensors, mask, causal=is_causal, scale=factor, stock=cast)
    dual: Tensor = fwAD.make_dual(*(x.reshape(*lead, q.shape[-2], v.shape[-1]) for x in (o, do)))
    return dual
