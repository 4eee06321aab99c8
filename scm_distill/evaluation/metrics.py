"""Distances between two sets of samples that need no pretrained extractor.

features   any float array of one row per sample        (N, D)
x          samples: pixels or latents                   (N, ...)
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

GRID = 8  # blocks per side of an image in `block_features`
MOST = 1024  # features of a latent: the covariance of more is slow, and noise


def frechet(a: Tensor, b: Tensor) -> float:
    """Frechet distance of the Gaussians fitted to two sets of features, in float64 (Dowson & Landau 1982).

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2). It is biased upwards for small N: compare equal N only.
    """
    a, b = a.double(), b.double()
    mean = (a.mean(0) - b.mean(0)).square().sum()
    S_a, S_b = torch.cov(a.mT).reshape(a.shape[1], -1), torch.cov(b.mT).reshape(b.shape[1], -1)
    values, vectors = torch.linalg.eigh(S_a)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.mT
    cross = torch.linalg.eigvalsh(root @ S_b @ root).clamp_min(0).sqrt().sum()
    return float(mean + S_a.trace() + S_b.trace() - 2 * cross)


def recall(real: Tensor, fake: Tensor, k: int = 3) -> float:
    """Share of real samples that lie in the manifold of the fake ones (Kynkaanniemi et al. 2019); blur lowers it."""
    radius = torch.cdist(fake.double(), fake.double()).kthvalue(k + 1, dim=1).values
    return float((torch.cdist(real.double(), fake.double()) <= radius).any(1).double().mean())


def block_features(x: Tensor) -> Tensor:
    """Mean and contrast of blocks, (N, D): what an extractor-free Frechet distance is taken on.

    The means see the layout, the contrasts (the standard deviation within each block) see noise and blur. Images and
    image latents (N, C, H, W) have 8 x 8 blocks, clips 4 x 4 x 4, sequences of tokens or sound (the smaller of the two
    dimensions counts as channels) 64 blocks; fewer where D would pass MOST. Samples no larger are taken as they are.
    """
    if x.ndim == 3 and x.shape[1] > x.shape[2]:
        x = x.mT
    dims = x.ndim - 2
    side = {1: GRID**2, 2: GRID, 3: GRID // 2}[dims]
    while side > 1 and 2 * x.shape[1] * side**dims > MOST:
        side -= 1
    grid = tuple(min(side, size) for size in x.shape[2:])
    pools: Any = (functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d, functional.adaptive_avg_pool3d)
    pool = pools[dims - 1]
    mean: Tensor = pool(x, grid)
    if tuple(x.shape[2:]) == grid:
        return mean.flatten(1)
    square = pool(x.square(), grid)
    return torch.cat([mean.flatten(1), (square - mean.square()).clamp_min(0).sqrt().flatten(1)], 1)
