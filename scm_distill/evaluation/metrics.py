"""Distances between two sets of samples, by their features.

features   any float array of one row per sample        (N, D)
x          samples: pixels or latents                   (N, ...)

Sums are float64, on `device` (where the features lie, if None), by chunks of rows: no N x N matrix is ever held.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

GRID = 8  # blocks per side of an image in `block_features`
MOST = 1024  # features of a latent: the covariance of more is slow, and noise
CHUNK = 2**24  # float64 entries of the largest intermediate matrix: 128 MiB
SUBSETS, SUBSET_SIZE = 100, 1000  # of KID, as torchmetrics and torch-fidelity have them

Device = torch.device | str | None


def min_samples(dim: int) -> int:
    """The smallest N for which the covariance of `dim` features has full rank.

    `frechet` works below it as well, but then mostly measures N; it stays biased upwards until N is many times `dim`.
    """
    return dim + 1


def _chunks(a: Tensor, columns: int, device: Device) -> Iterator[Tensor]:
    """The rows of `a` (N, D) in float64, as many at a time as fit into CHUNK with `columns` entries each."""
    for rows in a.split(max(1, CHUNK // columns)):
        yield rows.to(device or a.device, torch.float64)


def _moments(a: Tensor, device: Device) -> tuple[Tensor, Tensor]:
    """Mean (D,) and unbiased covariance (D, D)."""
    n, dim = a.shape
    if n < 2:
        raise ValueError(f"{n} samples have no covariance")
    mean = torch.zeros(dim, dtype=torch.float64, device=device or a.device)
    for rows in _chunks(a, dim, device):
        mean += rows.sum(0) / n
    covariance = torch.zeros(dim, dim, dtype=torch.float64, device=mean.device)
    for rows in _chunks(a, dim, device):
        covariance += (rows - mean).mT @ (rows - mean) / (n - 1)
    return mean, covariance


def frechet(a: Tensor, b: Tensor, device: Device = None) -> float:
    """Frechet distance of the Gaussians fitted to two sets of features (Dowson & Landau 1982).

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2). It is biased upwards for small N: compare equal N only.
    """
    (m_a, S_a), (m_b, S_b) = _moments(a, device), _moments(b, device)
    values, vectors = torch.linalg.eigh(S_a)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.mT
    cross = torch.linalg.eigvalsh(root @ S_b @ root).clamp_min(0).sqrt().sum()
    return float((m_a - m_b).square().sum() + S_a.trace() + S_b.trace() - 2 * cross)


def mmd(a: Tensor, b: Tensor, device: Device = None) -> float:
    """Unbiased squared MMD with KID's kernel k(x, y) = (x.y / D + 1)^3, on all pairs (Binkowski et al. 2018)."""
    n, m = len(a), len(b)
    if min(n, m) < 2:
        raise ValueError(f"{min(n, m)} samples have no pairs")
    aa, bb = (_kernel_sum(x, x, device) - _kernel_diagonal(x, device) for x in (a, b))
    return aa / (n * (n - 1)) + bb / (m * (m - 1)) - 2 * _kernel_sum(a, b, device) / (n * m)


def _kernel_sum(a: Tensor, b: Tensor, device: Device) -> float:
    b = b.to(device or b.device, torch.float64)
    return sum(float((rows @ b.mT / b.shape[1] + 1).pow(3).sum()) for rows in _chunks(a, len(b), device))


def _kernel_diagonal(a: Tensor, device: Device) -> float:
    return sum(float((rows.square().mean(1) + 1).pow(3).sum()) for rows in _chunks(a, a.shape[1], device))


def kid(
    a: Tensor, b: Tensor, *, subsets: int = SUBSETS, size: int | None = None, seed: int = 0, device: Device = None
) -> tuple[float, float]:
    """Kernel Inception Distance: mean and standard deviation of `mmd` over random subsets of `size` samples of each.

    `size` None is SUBSET_SIZE, or all samples of the smaller set where it has fewer. The subsets depend on `seed` only.
    """
    size = size or min(SUBSET_SIZE, len(a), len(b))
    if size > min(len(a), len(b)):
        raise ValueError(f"subsets of {size} from {min(len(a), len(b))} samples")
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(subsets):
        i, j = (torch.randperm(len(x), generator=generator)[:size].to(x.device) for x in (a, b))
        values.append(mmd(a[i], b[j], device))
    estimates = torch.tensor(values, dtype=torch.float64)
    return float(estimates.mean()), float(estimates.std(correction=0))


def recall(real: Tensor, fake: Tensor, k: int = 3, device: Device = None) -> float:
    """Share of real samples that lie in the manifold of the fake ones (Kynkaanniemi et al. 2019); blur lowers it.

    The manifold is the union of balls around its samples that reach to their k-th neighbour.
    """
    if len(fake) <= k:
        raise ValueError(f"{len(fake)} samples have no {k} neighbours each")
    fake = fake.to(device or fake.device, torch.float64)
    radius = torch.cat(
        [torch.cdist(rows, fake).kthvalue(k + 1, dim=1).values for rows in _chunks(fake, len(fake), device)]
    )
    inside = sum(int((torch.cdist(rows, fake) <= radius).any(1).sum()) for rows in _chunks(real, len(fake), device))
    return inside / len(real)


def precision(real: Tensor, fake: Tensor, k: int = 3, device: Device = None) -> float:
    """Share of fake samples that lie in the manifold of the real ones (as above); artefacts lower it."""
    return recall(fake, real, k, device)


def diversity(a: Tensor, device: Device = None) -> float:
    """The mean distance between two different rows of a (N, D); only its ratio to that of real samples means much."""
    n = len(a)
    if n < 2:
        raise ValueError(f"{n} samples have no pairs")
    total, first = 0.0, 0
    columns = a.to(device or a.device, torch.float64)
    for rows in _chunks(a, n, device):
        distances = torch.cdist(rows, columns)
        distances[torch.arange(len(rows)), torch.arange(first, first + len(rows))] = 0  # exactly: cdist is off by 1e-7
        total, first = total + float(distances.sum()), first + len(rows)
    return total / (n * (n - 1))


def clip_score(image: Tensor, text: Tensor) -> Tensor:
    """100 max(cos, 0) of each image's embedding (N, D) with its text's, (N,) (Hessel et al. 2021, as torchmetrics)."""
    return 100 * functional.cosine_similarity(image.double(), text.double()).clamp_min(0)


def block_features(x: Tensor) -> Tensor:
    """Mean and contrast of blocks of x, (N, D): features without a network, for a Frechet distance.

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
