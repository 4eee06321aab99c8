"""The forward derivative of attention by one Triton kernel: nothing of size N x M is stored.

With S = scale Q K^T (+ mask) and P = softmax(S): dS = scale (dQ K^T + Q dK^T) and
dO = P dV + (P o dS) V - rowsum(P o dS) o O. Five products where O and the logsumexp of S are known, see `primal.py`; O
and dO together take six. A zero tangent takes fewer.

Triton is no dependency of the package: call `available` first. The launch is a custom operator, so torch.compile sees
one opaque node; like every custom operator it would drop a tangent silently, so it takes plain tensors only.
"""

import math
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from scm_distill.autodiff import flash_launch, primal
from scm_distill.autodiff.flash_tiles import pieces

MASK_AT = 6  # among q, k, v, dq, dk, dv, mask, O, dO


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _kernel_for(dtype: torch.dtype, cuda: bool) -> bool:  # noqa: FBT001 - constants
    """Whether Triton is there, and runs on CUDA tensors or, interpreted, on those of the CPU."""
    if not cuda and os.environ.get("TRITON_INTERPRET") != "1":
        return False
    try:
        interpreted = flash_launch.kernel().INTERPRETED
    except ImportError:
        return False
    return dtype != torch.bfloat16 if interpreted else cuda  # the interpreter's bfloat16 is wrong


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _capability(device: int | None) -> tuple[int, int] | None:
    return None if torch.version.hip is not None else torch.cuda.get_device_capability(device)


def source(
    q: Tensor, k: Tensor, v: Tensor, *, masked: bool = False, causal: bool = False, tf32: bool = False, graph: bool
) -> primal.Source:
    """What computes attention of q (B, H, N, D), k (B, Hk, M, D) and v (B, Hk, M, E), see `primal.source`.

    On the CPU "chunks", or "kernel" in Triton's interpreter: TRITON_INTERPRET=1 before Triton is imported.
    """
    if not _kernel_for(q.dtype, q.is_cuda):
        return "chunks"
    here = _capability(q.device.index) if q.is_cuda else None
    settings: Any = {"masked": masked, "causal": causal, "tf32": tf32 or not q.is_cuda, "graph": graph}
    return primal.source(q.shape, k.shape, v.shape, q.dtype, **settings, capability=here)


def output_and_tangent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dq: Tensor | None,
    dk: Tensor | None,
    dv: Tensor | None,
    *,
    mask: Tensor | None,
    causal: bool,
    scale: float,
    tf32: bool = False,
) -> tuple[Tensor, Tensor]:
    """O = softmax(scale Q K^T + mask) V and dO, both (..., H, N, E) in the dtype of q.

    q, dq (..., H, N, D), k, dk (..., Hk, M, D), v, dv (..., Hk, M, E), in any strides; H is a multiple of Hk, and query
    head h reads key head h // (H / Hk). The mask broadcasts to (..., H, N, M): True attends, or it is added to S; a row
    that sees no key gives zeros. `causal`: row i sees the keys 0..i, also where N != M. A tangent that is None is zero.
    `tf32` rounds the factors of float32 products: pass torch.backends.cuda.matmul.allow_tf32 to follow PyTorch's own.
    All tensors are plain, under no_grad. Raises ValueError where the shapes do not fit each other, or heads are wider
    than the kernel takes.
    """
    shape = (*q.shape[:-1], v.shape[-1])
    q, k, v, dq, dk, dv = _flat(q, k, v, dq, dk, dv)
    _check(q, k, v, dq, dk, dv)
    mask = None if mask is None else _flat_mask(mask, shape[:-3])
    o, dO = attention_and_tangent(q, k, v, dq, dk, dv, mask, causal, scale, tf32)
    return o.reshape(shape), dO.reshape(shape)


def tangent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dq: Tensor | None,
    dk: Tensor | None,
    dv: Tensor | None,
    o: Tensor,
    lse: Tensor,
    *,
    mask: Tensor | None,
    causal: bool,
    scale: float,
    tf32: bool = False,
) -> Tensor:
    """dO (..., H, N, E) alone, as from `output_and_tangent`, where O (..., H, N, E) and the logsumexp are known.

    `lse` (..., H, N) is the natural logarithm of the sum of exp(scale Q K^T + mask) over the keys of each row, in
    float32. Where it is not finite the row sees no key, and its dO is zero.
    """
    shape = o.shape
    q, k, v, dq, dk, dv, o = _flat(q, k, v, dq, dk, dv, o)
    _check(q, k, v, dq, dk, dv, o)
    lse = lse.reshape(q.shape[:-1])
    mask = None if mask is None else _flat_mask(mask, shape[:-3])
    dO: Tensor = attention_tangent(q, k, v, dq, dk, dv, o, lse, mask, causal, scale, tf32)
    return dO.reshape(shape)


def _flat(q: Tensor, *others: Tensor | None) -> list[Any]:
    """Every tensor as (B, heads, length, width), a view if 4-D, in the dtype of q."""
    lead = q.shape[:-3]
    flat: list[Tensor | None] = []
    for x in (q, *others):
        if x is not None:
            x = x[(None,) * (4 - x.ndim)] if x.ndim < 4 else x.expand(*lead, -1, -1, -1).flatten(0, -4)
            x = x.to(q.dtype)
        flat.append(x)
    return flat


def _flat_mask(mask: Tensor, lead: torch.Size | tuple[int, ...]) -> Tensor:
    """The mask as (B or 1, H or 1, N or 1, M or 1)."""
    rank = max(4, len(lead) + 3)
    mask = mask[(None,) * (rank - mask.ndim)]
    if any(n != 1 for n in mask.shape[:-3]):
        mask = mask.expand(*lead, -1, -1, -1)
    return mask.flatten(0, -4)


def _check(q: Tensor, k: Tensor, v: Tensor, *rest: Tensor | None) -> None:
    """Raises ValueError where shapes differ from those of q and v: the kernel, which reads by pointers, cannot."""
    (B, H, N, D), (Hk, M, E) = q.shape, v.shape[1:]
    expected = ((B, H, N, D), (B, Hk, M, D), (B, Hk, M, E), (B, H, N, E))
    if H % Hk:
        raise ValueError(f"Attention got {H} query heads, no multiple of the key's {Hk}.")
    if max(D, E) > primal.WIDEST:
        raise ValueError(f"No kernel for head dimensions {D} and {E}: at most {primal.WIDEST}.")
    for x, shape in zip((k, v, *rest), (expected[1], expected[2], *expected), strict=False):
        if x is not None and tuple(x.shape) != shape:
            raise ValueError(f"Attention got {tuple(x.shape)} where the query {tuple(q.shape)} asks for {shape}.")


def _empty(q: Tensor, width: int) -> Tensor:
    """(B, H, N, width), heads inside rows as in q: the caller's transpose(1, 2) back is free."""
    B, H, N, _ = q.shape
    if q.stride(1) < q.stride(2):
        return q.new_empty(B, N, H, width).transpose(1, 2)
    return q.new_empty(B, H, N, width)


def _strides(tensors: Sequence[Tensor | None]) -> tuple[list[int], int]:
    """Four strides of each tensor, zero along a single entry, and the unit in which all but the last are counted.

    Triton learns of an integer whether 16 divides it; 8 are enough to load 16 bytes at a time. The mask keeps the
    unit 1.
    """
    rows = [
        [0] * 4 if x is None else [n if size > 1 else 0 for n, size in zip(x.stride(), x.shape, strict=True)]
        for x in tensors
    ]
    unit = 1 if any(n % 8 for i, row in enumerate(rows) if i != MASK_AT for n in row[:3]) else 8
    for i, row in enumerate(rows):
        if i != MASK_AT:
            row[:3] = [n // unit for n in row[:3]]
    return [n for row in rows for n in row], unit


def launch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tangents: tuple[Tensor | None, Tensor | None, Tensor | None],
    known: tuple[Tensor, Tensor] | None,
    mask: Tensor | None,
    *,
    causal: bool,
    scale: float,
    tf32: bool,
) -> tuple[Tensor, Tensor]:
    """O and dO; `known` are O and the logsumexp."""
    (B, H, N, D), (Hk, M, E) = q.shape, v.shape[1:]
    out, lse = (_empty(q, E), q) if known is None else known
    dO = _empty(q, E)
    if dO.numel() == 0 or M == 0:  # no key: rows that see nothing
        return (out.zero_() if known is None else out), dO.zero_()
    mode = 0
    if mask is not None:
        mode = 1 if mask.dtype == torch.bool else 2
        mask = (mask.view(torch.uint8) if mode == 1 else mask).expand(B, H, N, M)
    optional = (q, k, v, *tangents, mask, out, dO)
    strides, unit = _strides(optional)
    if known is not None:
        lse = lse if lse.stride(-1) == 1 else lse.contiguous()
    tensors = [q if x is None else x for x in (*optional[:-1], lse, dO)]
    (D0, D1), (E0, E1) = (pieces(n, whole=known is None) for n in (D, E))
    flags = {
        "D": D, "D0": D0, "D1": D1, "E": E, "E0": E0, "E1": E1,
        "FUSED": known is None,
        "HAS_DQ": tangents[0] is not None, "HAS_DK": tangents[1] is not None, "HAS_DV": tangents[2] is not None,
        "MASK": mode, "MASK_ROWS": mask is not None and mask.stride(2) != 0, "CAUSAL": causal,
        "PRECISION": "tf32" if tf32 else "ieee", "UNIT": unit,
    }  # fmt: skip
    numbers = (scale, 0.5 * math.log2(M), H, H // Hk, N, M, *strides, *lse.stride()[:2])
    with torch.cuda.device_of(q):
        flash_launch.launch(flash_launch.Call((*tensors, *numbers), flags, batch_heads=B * H, rows=N, keys=M))
    return out, dO


@torch.library.custom_op("scm_distill::attention_and_tangent", mutates_args=())
def attention_and_tangent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dq: Tensor | None,
    dk: Tensor | None,
    dv: Tensor | None,
    mask: Tensor | None,
    causal: bool,  # noqa: FBT001 - an operator's schema
    scale: float,
    tf32: bool,  # noqa: FBT001
) -> tuple[Tensor, Tensor]:
    """O and dO (B, H, N, E) of q (B, H, N, D), k (B, Hk, M, D), v (B, Hk, M, E) and a mask that broadcasts."""
    return launch(q, k, v, (dq, dk, dv), None, mask, causal=causal, scale=scale, tf32=tf32)


@torch.library.custom_op("scm_distill::attention_tangent", mutates_args=())
def attention_tangent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dq: Tensor | None,
    dk: Tensor | None,
    dv: Tensor | None,
    o: Tensor,
    lse: Tensor,
    mask: Tensor | None,
    causal: bool,  # noqa: FBT001 - an operator's schema
    scale: float,
    tf32: bool,  # noqa: FBT001
) -> Tensor:
    """dO (B, H, N, E) alone, from a known O (B, H, N, E) and logsumexp (B, H, N)."""
    return launch(q, k, v, (dq, dk, dv), (o, lse), mask, causal=causal, scale=scale, tf32=tf32)[1]


@attention_and_tangent.register_fake
def _(q: Tensor, _k: Tensor, v: Tensor, *_rest: Any) -> tuple[Tensor, Tensor]:
    return _empty(q, v.shape[-1]), _empty(q, v.shape[-1])


@attention_tangent.register_fake
def _(q: Tensor, _k: Tensor, v: Tensor, *_rest: Any) -> Tensor:
    return _empty(q, v.shape[-1])


def _flops(q: Any, v: Any, *, fused: bool, dq: bool, dk: bool, dv: bool) -> int:
    """Two per multiply-add of each product made: Q K^T, dQ K^T, Q dK^T of width D; P V, (P o dS) V, P dV of width E."""
    (B, H, N, D), (M, E) = q, v[2:]
    return int(2 * B * H * N * M * (D * (1 + dq + dk) + E * (fused + (dq or dk) + dv)))


@register_flop_formula(torch.ops.scm_distill.attention_and_tangent)
def _(q: Any, _k: Any, v: Any, dq: Any, dk: Any, dv: Any, *_rest: Any, **_kwargs: Any) -> int:
    return _flops(q, v, fused=True, dq=dq is not None, dk=dk is not None, dv=dv is not None)


@register_flop_formula(torch.ops.scm_distill.attention_tangent)
def _(q: Any, _k: Any, v: Any, dq: Any, dk: Any, dv: Any, *_rest: Any, **_kwargs: Any) -> int:
    return _flops(q, v, fused=False, dq=dq is not None, dk=dk is not None, dv=dv is not None)
