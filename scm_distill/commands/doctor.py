"""What `doctor` calls: versions, devices, and whether the exact tangent works on each."""

import importlib.metadata
import platform
from typing import Any

import torch
from torch import Tensor

from scm_distill import __version__
from scm_distill.autodiff.attention import backend
from scm_distill.autodiff.forward_ad import jvp


def doctor() -> dict[str, Any]:
    """Versions, devices, and one exact derivative through attention on each."""
    facts: dict[str, Any] = {"scm-distill": __version__, "python": platform.python_version()}
    for name in ("torch", "diffusers", "accelerate", "safetensors", "huggingface-hub", "datasets"):
        facts[name] = importlib.metadata.version(name)
    facts["threads"] = torch.get_num_threads()
    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    for device in devices:
        name = platform.processor() or platform.machine() if device == "cpu" else torch.cuda.get_device_name(device)
        kernel = backend(torch.empty(1, 1, 1, 64, dtype=torch.bfloat16, device=device))
        facts[device] = f"{name}; exact tangent off by {_tangent_error(device):.1e}, attention in bf16 {kernel}"
    return facts


def _tangent_error(device: str) -> float:
    """Relative difference of the JVP of attention to a central difference, float64."""
    g = torch.Generator().manual_seed(0)
    x, dx = (torch.randn(1, 2, 5, 3, generator=g, dtype=torch.float64).to(device) for _ in range(2))

    def f(q: Tensor) -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, q.flip(-2), q)

    _, tangent = jvp(f, (x,), (dx,))
    expected = (f(x + 1e-5 * dx) - f(x - 1e-5 * dx)) / 2e-5
    return float((tangent - expected).norm() / expected.norm())
