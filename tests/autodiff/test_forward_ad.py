"""The exact JVP on a real denoiser."""

import pytest
import torch
from conftest import tiny_net
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from scm_distill.autodiff.derivatives import central_difference
from scm_distill.autodiff.forward_ad import jvp

B = 3


def inputs() -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    x, dx = (torch.randn(B, 1, 8, 8, generator=g) for _ in range(2))
    return x, torch.tensor([3.3, 250.0, 777.7]), dx, torch.tensor([1.0, -2.0, 0.5])


def test_a_unet_with_attention_agrees_with_torch_func_and_with_differences() -> None:
    net = tiny_net()
    x, k, dx, dk = inputs()

    def f(x: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return net(x, k, return_dict=False)[0]

    primal, tangent = jvp(f, (x, k), (dx, dk))
    with torch.no_grad():
        assert torch.allclose(primal, f(x, k), atol=1e-6)
    hooks = [
        m.register_forward_pre_hook(lambda _, a: (a[0].contiguous(),))
        for m in net.modules()
        if isinstance(m, torch.nn.GroupNorm)
    ]
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        _, expected = torch.func.jvp(f, (x, k), (dx, dk))
    for hook in hooks:
        hook.remove()
    assert torch.allclose(tangent, expected, atol=1e-5 * float(expected.abs().max()))
    net.double()  # the time embedding stays float32 inside diffusers, so the step in k cannot be small
    with torch.no_grad():
        x, dx = x.double(), dx.double()
        numeric = (f(x + 1e-3 * dx, k + 1e-3 * dk) - f(x - 1e-3 * dx, k - 1e-3 * dk)) / 2e-3
    assert (tangent - numeric).norm() / numeric.norm() < 1e-3


def test_convolutions_and_linear_layers_cost_two_products_not_three() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 5))
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        net(x)
    with FlopCounterMode(display=False) as both:
        jvp(net, (x,), (x,))
    assert both.get_total_flops() == 2 * forward.get_total_flops()


def test_a_weight_that_moves_is_not_forgotten() -> None:
    g = torch.Generator().manual_seed(0)
    x, w, dx, dw = (torch.randn(4, 4, generator=g, dtype=torch.float64) for _ in range(4))
    _, tangent = jvp(torch.nn.functional.linear, (x, w), (dx, dw))
    assert torch.allclose(tangent, dx @ w.T + x @ dw.T)
    _, tangent = jvp(lambda b: torch.nn.functional.linear(x, w, b), (x[0],), (dx[0],))
    assert torch.allclose(tangent, dx[0].expand(4, 4))


def test_group_norm_of_a_non_contiguous_input() -> None:
    g = torch.Generator().manual_seed(0)
    norm = torch.nn.GroupNorm(2, 4).double()
    torch.nn.init.normal_(norm.weight, generator=g)
    x, dx = (torch.randn(2, 5, 7, 4, generator=g, dtype=torch.float64).movedim(-1, 1) for _ in range(2))
    _, tangent = jvp(norm, (x,), (dx,))
    with torch.no_grad():
        numeric = (norm(x + 1e-6 * dx) - norm(x - 1e-6 * dx)) / 2e-6
    assert torch.allclose(tangent, numeric, atol=1e-7)


def test_no_reverse_graph_is_kept() -> None:
    net = tiny_net()
    x, k, dx, dk = inputs()
    primal, tangent = jvp(lambda x, k: net(x, k, return_dict=False)[0], (x, k), (dx, dk))
    assert not primal.requires_grad
    assert not tangent.requires_grad


def test_an_output_without_a_tangent_is_an_error_not_zero() -> None:
    x = torch.ones(2)
    with pytest.raises(RuntimeError, match="no tangent"):
        jvp(lambda x: torch.ones_like(x), (x,), (x,))


def test_an_operator_without_a_forward_derivative_is_named() -> None:
    class Opaque(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):  # type: ignore[no-untyped-def]
            return 2 * x

    x = torch.ones(2)
    with pytest.raises(NotImplementedError, match="jvp"):
        jvp(Opaque.apply, (x,), (x,))


def test_the_difference_follows_the_flow() -> None:
    """F = x has dF/dt = dx/dt, so cos t sin t times that is exact up to O(h^2)."""
    x, v, t = torch.randn(4, 3).double(), torch.randn(4, 3).double(), torch.linspace(0.1, 1.4, 4).double()
    got = central_difference(lambda x, t, cond: x, x, t, {}, v, h=1e-3)
    assert torch.allclose(got, (t.cos() * t.sin())[:, None] * v, rtol=1e-6)


def test_keywords_and_moving_weights_are_left_to_pytorch() -> None:
    g = torch.Generator().manual_seed(0)
    x, y, dx, dy = (torch.randn(4, 4, generator=g, dtype=torch.float64) for _ in range(4))
    calls = [
        lambda a, b: torch.mul(a, other=b),
        lambda a, b: torch.mul(input=a, other=b),
        lambda a, b: torch.matmul(a, other=b),
        lambda a, b: torch.mm(a, mat2=b),
        lambda a, b: torch.add(a, other=b, alpha=2),
        lambda a, b: a.div(other=b),
        lambda a, b: torch.addmm(a, mat1=b, mat2=b),
        lambda a, b: torch.nn.functional.rms_norm(a, (4,), b[0], 1e-5),
        lambda a, b: torch.nn.functional.group_norm(a, 2, b[0], b[1]),
    ]
    for call in calls:
        found, expected = jvp(call, (x, y), (dx, dy)), torch.func.jvp(call, (x, y), (dx, dy))
        for mine, theirs in zip(found, expected, strict=True):
            assert torch.allclose(mine, theirs, atol=1e-12)
