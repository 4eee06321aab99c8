"""Warm-up and the normalizations of g."""

import torch

from scm_distill.maths.tangent import normalize, warmup


def test_warm_up_is_linear_and_then_one() -> None:
    assert [warmup(step, 10) for step in (0, 5, 10, 30)] == [0.0, 0.5, 1.0, 1.0]
    assert warmup(0, 0) == 1.0


def test_each_sample_is_normalized_by_its_own_norm() -> None:
    g = (
        torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1e-3, 1.0, 10.0, 1e4])[:, None, None]
    )
    rms = g.flatten(1).square().mean(1).sqrt()
    assert torch.allclose(normalize(g, 0.1, "rms").flatten(1).square().mean(1).sqrt(), rms / (rms + 0.1))
    l2 = g.flatten(1).norm(dim=1)
    assert torch.allclose(normalize(g, 0.1, "l2").flatten(1).norm(dim=1), l2 / (l2 + 0.1))
    assert normalize(g, 0.1, "clip").abs().max() == 1
    assert torch.equal(normalize(g, 0.1, "none"), g)
