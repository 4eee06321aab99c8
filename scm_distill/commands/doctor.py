"""`doctor`: versions, devices, and whether the exact tangent works on each."""

import importlib.metadata
import platform

import torch
from torch import Tensor

from scm_distill import __version__
from scm_distill.autodiff.attention import backend
from scm_distill.autodiff.forward_ad import jvp
from scm_distill.commands.results import DeviceCheck, DoctorResult


def doctor() -> DoctorResult:
    """Versions, devices, and one exact derivative through attention on each."""
    packages = ("torch", "diffusers", "accelerate", "safetensors", "huggingface-hub", "datasets")
    versions = {name: importlib.metadata.version(name) for name in packages}
    versions = {"scm-distill": __version__, "python": platform.python_version(), **versions}
    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    return DoctorResult(versions, torch.get_num_threads(), tuple(map(_checked, devices)))


def _checked(device: str) -> DeviceCheck:
    name = platform.processor() or platform.machine() if device == "cpu" else torch.cuda.get_device_name(device)
    kernel = backend(device, torch.bfloat16)
    return DeviceCheck(device, name, _tangent_error(device), kernel)


def _tangent_error(device: str) -> float:
    """Relative difference of the JVP of attention to a central difference, float64."""
    g = torch.Generator().manual_seed(0)
    x, dx = (torch.randn(1, 2, 5, 3, generator=g, dtype=torch.float64).to(device) for _ in range(2))

    def f(q: Tensor) -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, q.flip(-2), q)

    _, tangent = jvp(f, (x,), (dx,))
    expected = (f(x + 1e-5 * dx) - f(x - 1e-5 * dx)) / 2e-5
    return float((tangent - expected).norm() / expected.norm())
