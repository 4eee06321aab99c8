"""What the counter of launched operators counts, and what it does not."""

import torch
from launches import launches

from scm_distill.autodiff import attention


def test_views_allocations_and_questions_do_not_count() -> None:
    x = torch.ones(4, 6)

    def quiet() -> None:
        x.view(6, 4).t()[1:].unsqueeze(0).expand(2, 3, 6).detach()
        torch.empty(3, 3)
        torch.empty_like(x)
        x.is_same_size(x)
        x.split(2)
        torch.cat([torch.empty(0), torch.empty(0)])
        x.to(torch.float32)
        x.contiguous()

    assert not launches(quiet)


def test_what_writes_counts_once() -> None:
    x, y = torch.ones(4, 6), torch.ones(6, 4)

    def loud() -> None:
        (x @ y).add_(1)
        torch._foreach_add_([x, y], 1.0)
        x.view(-1)[2:5].copy_(torch.zeros(3))
        y.t().contiguous()

    assert launches(loud) == {
        "mm.default": 1, "add_.Tensor": 1, "_foreach_add_.Scalar": 1, "zeros.default": 1, "copy_.default": 1,
        "clone.default": 1,
    }  # fmt: skip


def test_the_backward_counts() -> None:
    w = torch.ones(3, requires_grad=True)
    counts = launches(lambda: (w * w).sum().backward())
    assert counts["mul.Tensor"] == 3
    assert counts["sum.default"] == 1


def test_attention_with_its_tangent_is_one_kernel_and_its_backward_another() -> None:
    q, k, v = (torch.randn(1, 2, 5, 8, requires_grad=True) for _ in range(3))

    def attend() -> None:
        o, _ = attention.Chunked.apply(q, k, v, (torch.ones_like(q.detach()), None, None), None, False, 1.0)  # type: ignore[no-untyped-call]
        o.sum().backward()

    counts = launches(attend)
    assert counts["attention with its tangent"] == counts["attention's backward"] == 1
    assert counts["bmm.default"] == counts["_scaled_dot_product_flash_attention_for_cpu_backward.default"] == 0
