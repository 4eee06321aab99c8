"""The Triton kernel of `flash`: the forward derivative of attention in one pass over the keys, O(N (D + E)) memory.

This module imports Triton, which is no dependency of the package: only `flash` may import it, and only when asked to.

One program owns BLOCK_N rows of one head and walks over the keys, BLOCK_M at a time. Where O and the logsumexp of every
row are known, P = exp(S - logsumexp), and the kernel sums t = sum (P o dS) and the product (P o dS) V + P dV: then
dO = (P o dS) V + P dV - t O. Where they are not (FUSED), P = exp(S - top), `top` being the row's largest S so far, and
n = sum P and P V are kept as well: O = (P V) / n, and dO is divided by n.

dO does not change when a constant is added to a row of dS, but its rounding does: (P o dS) V and t O nearly cancel when
all keys share an offset. So the row's mean of dS over the first block of keys is subtracted throughout (`centre`).

A head dimension D that is no power of two is held in two pieces, D0 + D1, where that is narrower than the next power,
but not if FUSED.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
from triton.runtime.errors import OutOfResources, PTXASError  # type: ignore[import-not-found,import-untyped,unused-ignore]
from triton.runtime.jit import JITFunction  # type: ignore[import-not-found,import-untyped,unused-ignore]

from scm_distill.autodiff.flash_tiles import Tile


@triton.jit  # type: ignore[untyped-decorator]
def _tile(base, row, rows, stride_row, stride_col, FIRST: tl.constexpr, WIDTH: tl.constexpr, COLS: tl.constexpr):  # type: ignore[no-untyped-def]
    """WIDTH columns from FIRST on of the rows `row` of a matrix of `rows` x COLS at `base`, zero beyond its edges."""
    col = FIRST + tl.arange(0, WIDTH)
    inside = (row < rows)[:, None]
    if FIRST + WIDTH > COLS:
        inside = inside & (col < COLS)[None, :]
    return tl.load(base + row[:, None] * stride_row + col[None, :] * stride_col, mask=inside, other=0.0)


@triton.jit
def _with_sum(x, other):  # type: ignore[no-untyped-def]
    """The product of every row of x (BLOCK_N, WIDTH) with the sum of all rows of `other` (BLOCK_M, WIDTH)."""
    return tl.sum(x.to(tl.float32) * tl.sum(other.to(tl.float32), 0)[None, :], 1)


@triton.jit  # type: ignore[untyped-decorator]
def _store(base, x, row, rows, stride_row, stride_col, FIRST: tl.constexpr, WIDTH: tl.constexpr, COLS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Write x (BLOCK_N, WIDTH) where `_tile` reads."""
    col = FIRST + tl.arange(0, WIDTH)
    inside = (row < rows)[:, None] & (col < COLS)[None, :]
    tl.store(base + row[:, None] * stride_row + col[None, :] * stride_col, x.to(base.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["heads", "group", "N", "M"])  # type: ignore[untyped-decorator]
def tangent_kernel(  # type: ignore[no-untyped-def]
    Q, K, V, dQ, dK, dV, Mask, Out, Lse, dOut,  # Out and Lse are read or, if FUSED, Out is written and Lse unused
    scale, lift, heads, group, N, M,  # group: query heads that share a key head
    q_b, q_h, q_n, q_d,
    k_b, k_h, k_m, k_d,
    v_b, v_h, v_m, v_e,
    dq_b, dq_h, dq_n, dq_d,
    dk_b, dk_h, dk_m, dk_d,
    dv_b, dv_h, dv_m, dv_e,
    mask_b, mask_h, mask_n, mask_m,
    o_b, o_h, o_n, o_e,
    do_b, do_h, do_n, do_e,
    lse_b, lse_h,
    D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,  # D1 is 0, or D > D0; 0 if FUSED
    E: tl.constexpr, E0: tl.constexpr, E1: tl.constexpr,
    FUSED: tl.constexpr, HAS_DQ: tl.constexpr, HAS_DK: tl.constexpr, HAS_DV: tl.constexpr,
    MASK: tl.constexpr,  # 0: none; 1: boolean, as bytes; 2: additive
    MASK_ROWS: tl.constexpr,  # the mask differs between rows
    CAUSAL: tl.constexpr, PRECISION: tl.constexpr,
    UNIT: tl.constexpr,  # of all strides but the last of each tensor, the mask's and the logsumexp's
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Write dO and, if FUSED, O of BLOCK_N rows; q (B, H, N, D), k (B, Hk, M, D), v (B, Hk, M, E) by their strides.

    Lse (B, H, N) is the natural logarithm of the sum of exp(S) of each row; no row is stored beyond N. A row whose Lse
    is not finite sees no key: its dO is zero. `lift` is added to the exponents of P, in units of log 2, and taken away
    at the end: float16 holds no small P.
    """
    HAS_DS: tl.constexpr = HAS_DQ or HAS_DK
    LOG2E: tl.constexpr = 1.4426950408889634
    blocks = (N + BLOCK_N - 1) // BLOCK_N
    program = tl.program_id(0)
    first = (program % blocks) * BLOCK_N
    batch = ((program // blocks) // heads).to(tl.int64)
    head = ((program // blocks) % heads).to(tl.int64)
    first_64 = first.to(tl.int64)
    row, col = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_M)
    rows = N - first

    Q += (batch * q_b + head * q_h + first_64 * q_n) * UNIT
    K += (batch * k_b + (head // group) * k_h) * UNIT
    V += (batch * v_b + (head // group) * v_h) * UNIT
    Out += (batch * o_b + head * o_h + first_64 * o_n) * UNIT
    dOut += (batch * do_b + head * do_h + first_64 * do_n) * UNIT
    q = _tile(Q, row, rows, q_n * UNIT, q_d, 0, D0, D)
    if D1:
        q1 = _tile(Q, row, rows, q_n * UNIT, q_d, D0, D1, D)
    if HAS_DQ:
        dQ += (batch * dq_b + head * dq_h + first_64 * dq_n) * UNIT
        dq = _tile(dQ, row, rows, dq_n * UNIT, dq_d, 0, D0, D)
        if D1:
            dq1 = _tile(dQ, row, rows, dq_n * UNIT, dq_d, D0, D1, D)
    if HAS_DK:
        dK += (batch * dk_b + (head // group) * dk_h) * UNIT
    if HAS_DV:
        dV += (batch * dv_b + (head // group) * dv_h) * UNIT
    if MASK:
        Mask += batch * mask_b + head * mask_h + first_64 * mask_n

    t = tl.full([BLOCK_N], 0.0, tl.float32)
    d_acc = tl.full([BLOCK_N, E0], 0.0, tl.float32)
    if E1:
        d_acc1 = tl.full([BLOCK_N, E1], 0.0, tl.float32)
    if FUSED:
        top = tl.full([BLOCK_N], float("-inf"), tl.float32)
        n = tl.full([BLOCK_N], 0.0, tl.float32)
        acc = tl.full([BLOCK_N, E0], 0.0, tl.float32)
    else:
        lse = tl.load(Lse + batch * lse_b + head * lse_h + first_64 + row, mask=row < rows, other=float("inf"))
        lse = tl.where(tl.abs(lse) < float("inf"), lse * LOG2E - lift, float("inf"))  # NaN is not less

    centre = tl.full([BLOCK_N], 0.0, tl.float32)
    if HAS_DQ:
        centre += _with_sum(dq, _tile(K, col, M, k_m * UNIT, k_d, 0, D0, D))
        if D1:
            centre += _with_sum(dq1, _tile(K, col, M, k_m * UNIT, k_d, D0, D1, D))
    if HAS_DK:
        centre += _with_sum(q, _tile(dK, col, M, dk_m * UNIT, dk_d, 0, D0, D))
        if D1:
            centre += _with_sum(q1, _tile(dK, col, M, dk_m * UNIT, dk_d, D0, D1, D))
    centre *= scale / tl.minimum(M, BLOCK_M)

    end = tl.minimum(M, first + BLOCK_N) if CAUSAL else M
    for start in range(0, end, BLOCK_M):
        left = M - start
        k = _tile(K, col, left, k_m * UNIT, k_d, 0, D0, D)
        S = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        if D1:
            k1 = _tile(K, col, left, k_m * UNIT, k_d, D0, D1, D)
            S = tl.dot(q1, tl.trans(k1), S, input_precision=PRECISION)
        S *= scale * LOG2E  # in units of log 2: exp2 is cheaper
        seen = (col < left)[None, :]
        if CAUSAL:
            seen = seen & ((first + row)[:, None] >= (start + col)[None, :])
        if MASK:
            if MASK_ROWS:
                inside = (row < rows)[:, None] & (col < left)[None, :]
                part = tl.load(Mask + row[:, None] * mask_n + col[None, :] * mask_m, mask=inside, other=0)
            else:
                part = tl.load(Mask + col[None, :] * mask_m, mask=(col < left)[None, :], other=0)
            if MASK == 1:
                seen = seen & (part != 0)
            else:
                S += part.to(tl.float32) * LOG2E
        S = tl.where(seen, S, float("-inf"))

        if FUSED:
            new = tl.maximum(top, tl.max(S, 1))
            safe = tl.where(new == float("-inf"), 0.0, new)  # no key seen yet: P = 0, not exp(-inf + inf)
            decay = tl.exp2(top - safe)
            top = new
            P = tl.exp2(S - safe[:, None])
            n = n * decay + tl.sum(P, 1)
            t *= decay
            d_acc *= decay[:, None]
        else:
            P = tl.exp2(S - lse[:, None])
        if HAS_DS or FUSED:
            v = _tile(V, col, left, v_m * UNIT, v_e, 0, E0, E)
            if E1:
                v1 = _tile(V, col, left, v_m * UNIT, v_e, E0, E1, E)
        if FUSED:
            acc = tl.dot(P.to(v.dtype), v, acc * decay[:, None], input_precision=PRECISION)
        if HAS_DV:
            dv = _tile(dV, col, left, dv_m * UNIT, dv_e, 0, E0, E)
            d_acc = tl.dot(P.to(dv.dtype), dv, d_acc, input_precision=PRECISION)
            if E1:
                dv1 = _tile(dV, col, left, dv_m * UNIT, dv_e, E0, E1, E)
                d_acc1 = tl.dot(P.to(dv.dtype), dv1, d_acc1, input_precision=PRECISION)
            dV += BLOCK_M * dv_m * UNIT
        if HAS_DS:
            dS = tl.full([BLOCK_N, BLOCK_M], 0.0, tl.float32)
            if HAS_DQ:
                dS = tl.dot(dq, tl.trans(k), dS, input_precision=PRECISION)
                if D1:
                    dS = tl.dot(dq1, tl.trans(k1), dS, input_precision=PRECISION)
            if HAS_DK:
                dk = _tile(dK, col, left, dk_m * UNIT, dk_d, 0, D0, D)
                dS = tl.dot(q, tl.trans(dk), dS, input_precision=PRECISION)
                if D1:
                    dk1 = _tile(dK, col, left, dk_m * UNIT, dk_d, D0, D1, D)
                    dS = tl.dot(q1, tl.trans(dk1), dS, input_precision=PRECISION)
                dK += BLOCK_M * dk_m * UNIT
            H = P * (dS * scale - centre[:, None])
            t += tl.sum(H, 1)
            d_acc = tl.dot(H.to(v.dtype), v, d_acc, input_precision=PRECISION)
            if E1:
                d_acc1 = tl.dot(H.to(v.dtype), v1, d_acc1, input_precision=PRECISION)
        K += BLOCK_M * k_m * UNIT
        V += BLOCK_M * v_m * UNIT
        if MASK:
            Mask += BLOCK_M * mask_m

    if FUSED:
        one = 1 / tl.where(n == 0.0, 1.0, n)[:, None]  # a row that sees no key: O = dO = 0
        o = acc * one
        _store(Out, o, row, rows, o_n * UNIT, o_e, 0, E0, E)
    else:
        one = tl.exp2(tl.full([BLOCK_N, 1], 0.0, tl.float32) - lift)
        o = _tile(Out, row, rows, o_n * UNIT, o_e, 0, E0, E).to(tl.float32)
        if E1:
            o1 = _tile(Out, row, rows, o_n * UNIT, o_e, E0, E1, E).to(tl.float32)
    _store(dOut, (d_acc - t[:, None] * o) * one, row, rows, do_n * UNIT, do_e, 0, E0, E)
    if E1:
        _store(dOut, (d_acc1 - t[:, None] * o1) * one, row, rows, do_n * UNIT, do_e, E0, E1, E)


UNFIT = (OutOfResources, PTXASError)  # what a tile raises that is too large for the GPU
INTERPRETED = not isinstance(tangent_kernel, JITFunction)


def start(args: Sequence[Any], flags: Mapping[str, Any], tile: Tile, grid: int) -> None:
    """Run the kernel on its positional arguments, by `grid` programs."""
    tangent_kernel[(grid,)](*args, **flags, **_options(tile))


def compiled(args: Sequence[Any], flags: Mapping[str, Any], tile: Tile) -> Any:
    """The kernel as `start` would run it, compiled and not run; a torch.dtype stands for an aligned tensor of it."""
    return tangent_kernel.warmup(*args, grid=(1,), **flags, **_options(tile))


def _options(tile: Tile) -> dict[str, Any]:
    blocks = {"BLOCK_N": tile.rows, "BLOCK_M": tile.keys}
    if INTERPRETED:
        return blocks
    return {**blocks, "num_warps": tile.warps, "num_stages": tile.stages, "enable_fp_fusion": True}
