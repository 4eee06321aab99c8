"""FLOPs by torch's own counter, with the fused attention of the CPU, of which it knows nothing."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten
Shape = tuple[int, ...]


def _forward(q: Shape, k: Shape, v: Shape, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(q, k, v)  # type: ignore[no-any-return, no-untyped-call]


def _backward(g: Shape, q: Shape, k: Shape, v: Shape, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(g, q, k, v)  # type: ignore[no-any-return, no-untyped-call]


FUSED = {
    aten._scaled_dot_product_flash_attention_for_cpu: _forward,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward,
}


def flops(f: Callable[[], object]) -> int:
    """Of one call."""
    with FlopCounterMode(display=False, custom_mapping=FUSED) as counter:
        f()
    return int(counter.get_total_flops())
