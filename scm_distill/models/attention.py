"""Attention that has a forward derivative: the primal stays PyTorch's fused kernel, the tangent is chunked.

With S = scale Q K^T and P = softmax(S): dS = scale (dQ K^T + Q dK^T) and
dO = P dV + (P * dS) V - rowsum(P * dS) * O. Rows are taken in chunks, so memory is O(chunk x M), not O(N x M).

q (B, H, N, D), k (B, H, M, D), v (B, H, M, E); any leading dimensions; a tangent that is None is zero.
"""

import torch
from torch import Tensor
from torch.autograd import forward_ad as fwAD

CHUNK = 256  # query rows at a time


def attention_tangent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dq: Tensor | None,
    dk: Tensor | None,
    dv: Tensor | None,
    o: Tensor,
    *,
    mask: Tensor | None,
    causal: bool,
    scale: float,
) -> Tensor:
    """dO of O = softmax(scale Q K^T + mask) V, exact, in float32 or wider."""
    wide = torch.promote_types(q.dtype, torch.float32)
    q, k, v, o = (x.to(wide) for x in (q, k, v, o))
    out = torch.empty_like(o)
    for start in range(0, q.shape[-2], CHUNK):
        rows = slice(start, min(start + CHUNK, q.shape[-2]))
        S = scale * q[..., rows, :] @ k.mT
        if causal:
            row = torch.arange(rows.start, rows.stop, device=q.device)[:, None]
            S = S.masked_fill(row < torch.arange(k.shape[-2], device=q.device), float("-inf"))
        if mask is not None:
            part = mask if mask.shape[-2] == 1 else mask[..., rows, :]
            S = S.masked_fill(~part, float("-inf")) if part.dtype == torch.bool else S + part.to(wide)
        P = S.softmax(-1)
        dS = torch.zeros_like(S)
        if dq is not None:
            dS = dS + dq[..., rows, :].to(wide) @ k.mT
        if dk is not None:
            dS = dS + q[..., rows, :] @ dk.to(wide).mT
        H = scale * P * dS
        dO = H @ v - H.sum(-1, keepdim=True) * o[..., rows, :]
        out[..., rows, :] = dO if dv is None else dO + P @ dv.to(wide)
    return out


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
    """Stand in for the function of the same name in torch.nn.functional, on dual tensors."""
    (q, dq), (k, dk), (v, dv) = (fwAD.unpack_dual(x) for x in (query, key, value))
    if dropout_p > 0:
        raise NotImplementedError("Attention dropout draws a new mask in every pass; set it to 0 for distillation.")
    o = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=attn_mask, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa
    )
    if dq is None and dk is None and dv is None:
        return o
    with torch.no_grad(), torch.autocast(q.device.type, enabled=False):  # autocast would round every product to bf16
        if enable_gqa:
            groups = q.shape[-3] // k.shape[-3]
            k, v, dk, dv = (x if x is None else x.repeat_interleave(groups, -3) for x in (k, v, dk, dv))
        do = attention_tangent(
            *(q, k, v, dq, dk, dv, o),
            mask=attn_mask,
            causal=is_causal,
            scale=q.shape[-1] ** -0.5 if scale is None else scale,
        )
    dual: Tensor = fwAD.make_dual(o, do.to(o.dtype))
    return dual
