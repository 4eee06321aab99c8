"""The Triton kernel of `flash`: attention and its forward derivative in one pass over the keys, O(N (D + E)) memory.

This module imports Triton, which is no dependency of the package: only `flash` may import it, and only when asked to.

One program owns BLOCK_N rows of one head and walks over the keys, BLOCK_M at a time. With the unnormalised
P = exp(S - top), `top` being the row's largest S so far, it keeps n = sum P, t = sum (P o dS) and the products P V and
(P o dS) V + P dV. At the end O = (P V) / n and dO = ((P o dS) V + P dV) / n - (t / n) O.

dO does not change when a constant is added to a row of dS, but its rounding does: (P o dS) V and t O nearly cancel when
all keys share an offset. So the row's mean of dS over the first block of keys is subtracted throughout (`centre`).
"""

from typing import Any

import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
from triton.runtime.jit import JITFunction  # type: ignore[import-not-found,import-untyped,unused-ignore]


@triton.jit  # type: ignore[untyped-decorator]
def _tile(base, row, rows, stride_row, col, COLS: tl.constexpr, stride_col, PADDED: tl.constexpr):  # type: ignore[no-untyped-def]
    """Rows `row` of a matrix of `rows` x COLS at `base`, zero beyond its edges."""
    inside = (row < rows)[:, None]
    if PADDED:
        inside = inside & (col < COLS)[None, :]
    return tl.load(base + row[:, None] * stride_row + col[None, :] * stride_col, mask=inside, other=0.0)


@triton.jit(do_not_specialize=["heads", "group", "N", "M"])  # type: ignore[untyped-decorator]
def tangent_kernel(  # type: ignore[no-untyped-def]
    Q, K, V, dQ, dK, dV, Mask, Out, dOut,  # Out is read or, if FUSED, written
    scale, heads, group, N, M,  # group: query heads that share a key head
    q_b, q_h, q_n, q_d,
    k_b, k_h, k_m, k_d,
    v_b, v_h, v_m, v_e,
    dq_b, dq_h, dq_n, dq_d,
    dk_b, dk_h, dk_m, dk_d,
    dv_b, dv_h, dv_m, dv_e,
    mask_b, mask_h, mask_n, mask_m,
    o_b, o_h, o_n, o_e,
    do_b, do_h, do_n, do_e,
    D: tl.constexpr, E: tl.constexpr, PAD_D: tl.constexpr, PAD_E: tl.constexpr,
    FUSED: tl.constexpr, HAS_DQ: tl.constexpr, HAS_DK: tl.constexpr, HAS_DV: tl.constexpr,
    MASK: tl.constexpr,  # 0: none; 1: boolean, as bytes; 2: additive
    MASK_ROWS: tl.constexpr,  # the mask differs between rows
    CAUSAL: tl.constexpr, PRECISION: tl.constexpr,
    UNIT: tl.constexpr,  # of all strides but the last of each tensor and the mask's
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Write dO and, if FUSED, O of BLOCK_N rows; q (B, H, N, D), k (B, Hk, M, D), v (B, Hk, M, E) by their strides."""
    HAS_DS: tl.constexpr = HAS_DQ or HAS_DK
    LOG2E: tl.constexpr = 1.4426950408889634
    blocks = (N + BLOCK_N - 1) // BLOCK_N
    program = tl.program_id(0)
    first = (program % blocks) * BLOCK_N
    batch = ((program // blocks) // heads).to(tl.int64)
    head = ((program // blocks) % heads).to(tl.int64)
    first_64 = first.to(tl.int64)
    row, col = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_M)
    d, e = tl.arange(0, PAD_D), tl.arange(0, PAD_E)
    rows = N - first

    Q += (batch * q_b + head * q_h + first_64 * q_n) * UNIT
    K += (batch * k_b + (head // group) * k_h) * UNIT
    V += (batch * v_b + (head // group) * v_h) * UNIT
    Out += (batch * o_b + head * o_h + first_64 * o_n) * UNIT
    dOut += (batch * do_b + head * do_h + first_64 * do_n) * UNIT
    q = _tile(Q, row, rows, q_n * UNIT, d, D, q_d, PAD_D != D)
    if HAS_DQ:
        dQ += (batch * dq_b + head * dq_h + first_64 * dq_n) * UNIT
        dq = _tile(dQ, row, rows, dq_n * UNIT, d, D, dq_d, PAD_D != D)
    if HAS_DK:
        dK += (batch * dk_b + (head // group) * dk_h) * UNIT
    if HAS_DV:
        dV += (batch * dv_b + (head // group) * dv_h) * UNIT
    if MASK:
        Mask += batch * mask_b + head * mask_h + first_64 * mask_n

    top = tl.full([BLOCK_N], float("-inf"), tl.float32)
    n = tl.full([BLOCK_N], 0.0, tl.float32)
    t = tl.full([BLOCK_N], 0.0, tl.float32)
    acc = tl.full([BLOCK_N, PAD_E], 0.0, tl.float32)
    d_acc = tl.full([BLOCK_N, PAD_E], 0.0, tl.float32)
    centre = tl.full([BLOCK_N], 0.0, tl.float32)
    share = scale / tl.minimum(M, BLOCK_M)
    if HAS_DQ:
        k_mean = tl.sum(_tile(K, col, M, k_m * UNIT, d, D, k_d, PAD_D != D).to(tl.float32), 0) * share
        centre += tl.sum(dq.to(tl.float32) * k_mean[None, :], 1)
    if HAS_DK:
        dk_mean = tl.sum(_tile(dK, col, M, dk_m * UNIT, d, D, dk_d, PAD_D != D).to(tl.float32), 0) * share
        centre += tl.sum(q.to(tl.float32) * dk_mean[None, :], 1)

    end = tl.minimum(M, first + BLOCK_N) if CAUSAL else M
    for start in range(0, end, BLOCK_M):
        k = _tile(K, col, M - start, k_m * UNIT, d, D, k_d, PAD_D != D)
        S = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * LOG2E)  # in units of log 2: exp2 is cheaper
        seen = (col < M - start)[None, :]
        if CAUSAL:
            seen = seen & ((first + row)[:, None] >= (start + col)[None, :])
        if MASK:
            if MASK_ROWS:
                inside = (row < rows)[:, None] & (col < M - start)[None, :]
                part = tl.load(Mask + row[:, None] * mask_n + col[None, :] * mask_m, mask=inside, other=0)
            else:
                part = tl.load(Mask + col[None, :] * mask_m, mask=(col < M - start)[None, :], other=0)
            if MASK == 1:
                seen = seen & (part != 0)
            else:
                S += part.to(tl.float32) * LOG2E
        S = tl.where(seen, S, float("-inf"))

        new = tl.maximum(top, tl.max(S, 1))
        safe = tl.where(new == float("-inf"), 0.0, new)  # no key seen yet: P = 0, not exp(-inf + inf)
        decay = tl.exp2(top - safe)
        top = new
        P = tl.exp2(S - safe[:, None])
        n = n * decay + tl.sum(P, 1)
        d_acc *= decay[:, None]
        if HAS_DS or FUSED:
            v = _tile(V, col, M - start, v_m * UNIT, e, E, v_e, PAD_E != E)
        if FUSED:
            acc = tl.dot(P.to(v.dtype), v, acc * decay[:, None], input_precision=PRECISION)
        if HAS_DV:
            dv = _tile(dV, col, M - start, dv_m * UNIT, e, E, dv_e, PAD_E != E)
            d_acc = tl.dot(P.to(dv.dtype), dv, d_acc, input_precision=PRECISION)
            dV += BLOCK_M * dv_m * UNIT
        if HAS_DS:
            dS = tl.full([BLOCK_N, BLOCK_M], 0.0, tl.float32)
            if HAS_DQ:
                dS = tl.dot(dq, tl.trans(k), dS, input_precision=PRECISION)
            if HAS_DK:
                dk = _tile(dK, col, M - start, dk_m * UNIT, d, D, dk_d, PAD_D != D)
                dS = tl.dot(q, tl.trans(dk), dS, input_precision=PRECISION)
                dK += BLOCK_M * dk_m * UNIT
            H = P * (dS * scale - centre[:, None])
            t = t * decay + tl.sum(H, 1)
            d_acc = tl.dot(H.to(v.dtype), v, d_acc, input_precision=PRECISION)
        K += BLOCK_M * k_m * UNIT
        V += BLOCK_M * v_m * UNIT
        if MASK:
            Mask += BLOCK_M * mask_m

    n = tl.where(n == 0.0, 1.0, n)  # a row that sees no key: O = dO = 0
    inside = (row < rows)[:, None] & (e < E)[None, :]
    here = Out + row[:, None] * (o_n * UNIT) + e[None, :] * o_e
    if FUSED:
        o = acc / n[:, None]
        tl.store(here, o.to(Out.dtype.element_ty), mask=inside)
    else:
        o = tl.load(here, mask=inside, other=0.0).to(tl.float32)
    do = d_acc / n[:, None] - (t / n)[:, None] * o
    tl.store(dOut + row[:, None] * (do_n * UNIT) + e[None, :] * do_e, do.to(dOut.dtype.element_ty), mask=inside)


INTERPRETED = not isinstance(tangent_kernel, JITFunction)

# BLOCK_N, BLOCK_M, warps, stages, by the widest padded head dimension: few registers spilled on sm_90. The last of each
# row fits the smallest shared memory. SINGLE is for TF32.
HALF = {
    64: ((128, 64, 8, 2), (128, 64, 8, 3), (64, 64, 4, 2), (64, 32, 4, 3), (32, 32, 4, 2)),
    128: ((128, 32, 8, 2), (128, 16, 8, 2), (64, 32, 4, 2), (64, 16, 4, 2), (32, 32, 4, 2)),
    256: ((64, 32, 8, 2), (64, 16, 8, 2), (32, 16, 8, 2), (16, 16, 4, 1)),
}
SINGLE = {
    64: ((128, 32, 8, 2), (64, 32, 4, 2), (32, 32, 4, 2)),
    128: ((64, 16, 4, 2), (64, 16, 8, 2), (32, 16, 4, 1), (16, 16, 4, 1)),
}


def _choices() -> list[Any]:
    every = dict.fromkeys(c for table in (HALF, SINGLE) for row in table.values() for c in row)
    return [triton.Config({"BLOCK_N": n, "BLOCK_M": m}, num_warps=w, num_stages=s) for n, m, w, s in every]


def _prune(configs: list[Any], named: dict[str, Any], **flags: Any) -> list[Any]:
    """The configurations of the table's row for this head dimension and dtype."""
    wide = max(64, flags["PAD_D"], flags["PAD_E"])
    kept = (SINGLE if named["Q"].element_size() == 4 else HALF)[wide]
    return [c for c in configs if (c.kwargs["BLOCK_N"], c.kwargs["BLOCK_M"], c.num_warps, c.num_stages) in kept]


KEY = ("D", "E", "FUSED", "HAS_DQ", "HAS_DK", "HAS_DV", "MASK", "MASK_ROWS", "CAUSAL", "PRECISION", "UNIT")
tuned_kernel = tangent_kernel
if not INTERPRETED:
    prune = {"early_config_prune": _prune}
    tuned_kernel = triton.autotune(_choices(), key=list(KEY), prune_configs_by=prune)(tangent_kernel)


def launch(*args: Any, batch_heads: int, rows: int, **flags: Any) -> None:
    """Run the kernel on its positional arguments; the block sizes are tuned on a GPU, fixed in the interpreter."""
    if INTERPRETED:
        flags |= {"BLOCK_N": 32, "BLOCK_M": 16}
    grid = lambda meta: (triton.cdiv(rows, meta["BLOCK_N"]) * batch_heads,)  # noqa: E731
    tuned_kernel[grid](*args, **flags, enable_fp_fusion=True)  # Triton 3.9 warns where it is left open
