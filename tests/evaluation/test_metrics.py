"""Distances against closed forms and torchmetrics."""

import pytest
import torch

from scm_distill.evaluation.metrics import block_features, frechet, recall
from scm_distill.evaluation.stock import seeded_noise


def draws(n: int = 400, d: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_frechet_of_two_gaussians_with_known_moments() -> None:
    a = draws()
    a = (a - a.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(a.T)).T)  # exactly N(0, I)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet(a, 3 * a + 2) == pytest.approx(12 * (2**2 + (3 - 1) ** 2))


def test_frechet_agrees_with_torchmetrics() -> None:
    from torchmetrics.image.fid import _compute_fid

    a, b = draws(), draws(seed=1) @ draws(d=12, n=12, seed=2) + 0.3
    theirs = float(_compute_fid(a.mean(0), torch.cov(a.T), b.mean(0), torch.cov(b.T)))
    assert frechet(a, b) == pytest.approx(theirs, rel=1e-6)


def test_recall_falls_when_the_samples_cover_less() -> None:
    real = draws()
    assert recall(real, draws(seed=1)) > 0.7
    assert recall(real, 0.3 * draws(seed=1)) < 0.1
    assert recall(real, real) == 1.0


def test_blocks_see_layout_noise_and_blur() -> None:
    x = draws(300, 3 * 32 * 32).reshape(300, 3, 32, 32) * 0.1
    assert block_features(x).shape == (300, 2 * 3 * 64)
    near = frechet(block_features(x[:150]), block_features(x[150:]))
    assert frechet(block_features(x), block_features(3 * x)) > 2 * near
    assert frechet(block_features(x), block_features(torch.nn.functional.avg_pool2d(x, 3, 1, 1))) > 0.5 * near
    assert torch.equal(block_features(x[..., :8, :8]), x[..., :8, :8].flatten(1))


def test_noise_of_image_i_does_not_depend_on_the_batch() -> None:
    many, one = seeded_noise([4, 5, 6], (1, 2, 2), 2), seeded_noise([5], (1, 2, 2), 2)
    assert torch.equal(many[:, 1:2], one)
