"""O and the logarithm of the sum of exp(S) of every row, by PyTorch's own fused attention on CUDA.

With both known the kernel of `flash` needs no running maximum. Where neither operator takes a call, that kernel
computes O too.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from scm_distill.autodiff.torch_private import efficient_attention, flash_attention

Source = Literal["flash", "efficient", "kernel", "chunks"]
HALF = (torch.float16, torch.bfloat16)
WIDEST, WIDEST_TF32 = 256, 128  # head dimension that the kernel takes
GRID = 2**16  # samples and heads that the operators launch are fewer


def source(
    q: Sequence[int],
    k: Sequence[int],
    v: Sequence[int],
    dtype: torch.dtype,
    *,
    masked: bool,
    causal: bool,
    tf32: bool,
    graph: bool,
    capability: tuple[int, int] | None,
) -> Source:
    """What computes O of q (B, H, N, D), k (B, Hk, M, D), v (B, Hk, M, E) on a GPU of a CUDA `capability`.

    "flash" and "efficient" are PyTorch's operators, which give the logsumexp too, and leave the tangent alone to the
    kernel; "kernel" is the kernel that computes both; "chunks" needs no Triton. `graph`: O has a reverse graph. A
    capability of None is a GPU that is none of NVIDIA's. float32 takes the kernel with `tf32` only: exact products have
    no tensor cores.
    """
    half = dtype in HALF
    wide = max(q[-1], v[-1])
    if not (half or (dtype == torch.float32 and tf32)) or wide > (WIDEST if half else WIDEST_TF32):
        return "chunks"
    if capability is None:
        return "kernel"
    if capability < (8, 0):
        return "chunks"
    B, H, N, D = q
    M = k[-2]
    unlike = v[-1] != D or D % (8 if half else 4) or (causal and (masked or N != M))
    if unlike or 0 in (B, H, N, M) or max(B, H) >= GRID:
        return "kernel"
    small = (8, 6) <= capability < (9, 0) or capability[0] == 12  # too little shared memory for flash's wide backward
    if half and not masked and not (graph and D > 192 and small):
        return "flash"
    return "efficient" if k[1] == H else "kernel"


def additive(mask: Tensor, dtype: torch.dtype, keys: int) -> Tensor:
    """The mask (B or 1, H or 1, N or 1, M or 1) as it is added to S, (..., M) in `dtype`, rows 8 entries aligned."""
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))
    mask = mask.to(dtype).expand(*mask.shape[:-1], keys)
    starts = [n for n, size in zip(mask.stride()[:-1], mask.shape, strict=False) if size > 1]
    if mask.stride(-1) == 1 and all(n % 8 == 0 for n in starts):
        return mask
    return torch.nn.functional.pad(mask, (0, -keys % 8)).contiguous()[..., :keys]


def _aligned(x: Tensor) -> Tensor:
    """`x` (B, H, N, D) with rows that start at multiples of 16 bytes and whose entries lie side by side."""
    unit = 16 // x.element_size()
    starts = [n for n, size in zip(x.stride()[:-1], x.shape, strict=False) if size > 1]
    if not torch.compiler.is_compiling():  # it cannot ask for the offset, and aligns what it makes
        starts.append(int(x.storage_offset()))
    return x if x.stride(-1) == 1 and all(n % unit == 0 for n in starts) else x.contiguous()


def output(
    by: Source, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """O (B, H, N, D), with a reverse graph where q, k or v has one, and the logsumexp (B, H, N) in float32.

    `by` is "flash" or "efficient"; the mask is as from `additive`.
    """
    q, k, v = (_aligned(x) for x in (q, k, v))
    if by == "flash":
        o, lse, *_ = flash_attention(q, k, v, 0.0, causal, scale=scale)
        return o, lse
    bias = None if mask is None else mask.expand(*q.shape[:-1], k.shape[-2])
    o, lse, *_ = efficient_attention(q, k, v, bias, compute_log_sumexp=True, is_causal=causal, scale=scale)
    return o, lse[..., : q.shape[-2]]  # padded to a multiple of 32
