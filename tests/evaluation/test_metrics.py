"""Distances against closed forms and torchmetrics."""

import pytest
import torch

from scm_distill.evaluation import metrics
from scm_distill.evaluation.metrics import (
    block_features,
    clip_score,
    diversity,
    frechet,
    kid,
    min_samples,
    mmd,
    precision,
    recall,
)
from scm_distill.sampling.stock_loop import seeded_noise


def draws(n: int = 400, d: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_frechet_of_two_gaussians_with_known_moments() -> None:
    a = draws()
    a = (a - a.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(a.T)).T)  # exactly N(0, I)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet(a, 3 * a + 2) == pytest.approx(12 * (2**2 + (3 - 1) ** 2))


class Itself(torch.nn.Module):
    """Hands torchmetrics the features that the test made, in the order of the (blank) images."""

    num_features = 12

    def __init__(self, *sets: torch.Tensor) -> None:
        super().__init__()
        self.sets = list(sets)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.sets.pop(0)


def blank(n: int) -> torch.Tensor:
    return torch.zeros(n, 3, 8, 8, dtype=torch.uint8)


@pytest.mark.parametrize("n", [400, 9], ids=["full rank", "fewer samples than features"])
def test_frechet_agrees_with_torchmetrics(n: int) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    a, b = draws(n), draws(n, seed=1) @ draws(d=12, n=12, seed=2) + 0.3
    theirs = FrechetInceptionDistance(feature=Itself(a, b), input_img_size=(3, 8, 8))
    theirs.set_dtype(torch.float64)
    theirs.update(blank(n), real=True)
    theirs.update(blank(n), real=False)
    assert frechet(a, b) == pytest.approx(float(theirs.compute()), rel=1e-4)


def test_fewest_is_where_the_covariance_has_full_rank() -> None:
    assert [int(torch.linalg.matrix_rank(torch.cov(draws(n).mT))) for n in (min_samples(12) - 1, min_samples(12))] == [
        11,
        12,
    ]


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_kid_agrees_with_torchmetrics() -> None:
    from torchmetrics.image.kid import KernelInceptionDistance

    a, b = draws(300), 1.2 * draws(300, seed=1) + 0.1
    theirs = KernelInceptionDistance(feature=Itself(a, b), subsets=2, subset_size=300)
    theirs.update(blank(300), real=True)
    theirs.update(blank(300), real=False)
    mean = float(theirs.compute()[0])
    assert kid(a, b, subsets=2, size=300)[0] == pytest.approx(mean, rel=1e-4)
    assert mmd(a, b) == pytest.approx(mean, rel=1e-4)


def test_kid_subsets_are_those_of_the_seed_and_scatter_around_all_pairs() -> None:
    a, b = draws(), 1.2 * draws(seed=1)
    mean, std = kid(a, b, subsets=50, size=100)
    assert (mean, std) == kid(a, b, subsets=50, size=100) != kid(a, b, subsets=50, size=100, seed=1)
    assert std > 0
    assert abs(mean - mmd(a, b)) < 4 * std / 50**0.5
    with pytest.raises(ValueError, match="subsets of 500 from 400"):
        kid(a, b, size=500)


def test_the_deviation_of_kid_is_that_of_its_subsets_not_of_a_sample_of_them() -> None:
    a, b = draws(), 1.2 * draws(seed=1)
    g, found = torch.Generator().manual_seed(3), []
    for _ in range(2):
        i, j = (torch.randperm(400, generator=g)[:50] for _ in "ab")
        found.append(mmd(a[i], b[j]))
    expected = (sum(found) / 2, abs(found[0] - found[1]) / 2)
    assert kid(a, b, subsets=2, size=50, seed=3) == pytest.approx(expected)


def test_mmd_is_unbiased_for_sets_of_unequal_size() -> None:
    found = [mmd(draws(40, seed=2 * i), draws(60, seed=2 * i + 1)) for i in range(200)]
    assert abs(sum(found) / 200) < 4 * float(torch.tensor(found).std()) / 200**0.5


def test_precision_and_recall_by_hand() -> None:
    real = torch.tensor([[0.0], [1.0], [2.0], [10.0]])  # with k = 1, radii 1, 1, 1, 8
    fake = torch.tensor([[-0.5], [-1.5], [30.0], [31.0]])  # radii 1, 1, 1, 1
    assert precision(real, fake, k=1) == 0.25  # -0.5 alone
    assert recall(real, fake, k=1) == 0.25  # 0 alone, in the ball of -0.5
    with pytest.raises(ValueError, match="4 samples have no 4 neighbours"):
        recall(real, fake, k=4)


def test_precision_and_recall_by_brute_force() -> None:
    real, fake = 1.3 * draws(60, 3), draws(50, 3, seed=1) + 0.5

    def brute(points: torch.Tensor, manifold: torch.Tensor) -> float:
        inside = 0
        for point in points:
            for center in manifold:
                radius = (manifold - center).norm(dim=1).sort().values[3]
                if (point - center).norm() <= radius:
                    inside += 1
                    break
        return inside / len(points)

    assert precision(real, fake) == brute(fake, real) < 1
    assert recall(real, fake) == brute(real, fake) < 1


def test_diversity_against_pdist() -> None:
    a = draws()
    assert diversity(a) == pytest.approx(float(torch.pdist(a).mean()), rel=1e-9)
    assert diversity(3 * a + 1) == pytest.approx(3 * diversity(a), rel=1e-9)


def test_chunks_do_not_change_a_figure(monkeypatch) -> None:
    a, b = draws(), 1.2 * draws(seed=1)

    def figures() -> list[float]:
        return [
            frechet(a, b), mmd(a, b), kid(a, b, subsets=3, size=90)[0], precision(a, b), recall(a, b), diversity(a)
        ]  # fmt: skip

    whole = figures()
    monkeypatch.setattr(metrics, "CHUNK", 30 * 400)
    assert figures() == pytest.approx(whole, rel=1e-10)


def test_clip_score_is_a_cosine_cut_at_zero() -> None:
    image, text = torch.tensor([[2.0, 0], [1, 0], [1, 1]]), torch.tensor([[3.0, 0], [-1, 0], [0, 5]])
    assert clip_score(image, text).tolist() == pytest.approx([100, 0, 100 / 2**0.5])


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


def test_of_sounds_and_tokens_the_smaller_dimension_is_channels() -> None:
    x = draws(4, 3 * 128).reshape(4, 3, 128)
    blocks = x.reshape(4, 3, 64, 2)
    expected = [blocks.mean(-1), blocks.std(-1, correction=0)]
    for sequence in (x, x.mT):
        assert torch.allclose(block_features(sequence), torch.cat([part.flatten(1) for part in expected], 1))


def test_noise_of_image_i_does_not_depend_on_the_batch() -> None:
    many, one = seeded_noise([4, 5, 6], (1, 2, 2), 2), seeded_noise([5], (1, 2, 2), 2)
    assert torch.equal(many[:, 1:2], one)
