"""Levels of scalar quantizers: against the true optimum where it can be found, and k-means where not."""

import itertools
import warnings

import numpy as np
import pytest
import torch

from gpuzip.training.scalar_levels import optimal_levels
from tests.lazy import Lazy

sklearn_cluster = Lazy("sklearn.cluster")


def error(values, levels):
    """Mean squared distance to the nearest level, in float64."""
    values, levels = values.double(), levels.double()
    cell = torch.bucketize(values, (levels[1:] + levels[:-1]) / 2)
    return float((values - levels[cell]).square().mean())


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def hard(n=6000):
    steps = torch.Generator().manual_seed(3)
    return {
        "normal": draw(n),
        "laplace": draw(n) * draw(n, seed=1),
        "cauchy": draw(n) / draw(n, seed=1),
        "exponential": draw(n).abs().exp(),
        "far from 0": draw(n) + 1e4,
        "two far away": torch.cat([draw(n), torch.tensor([1e4, -3e4])]),
        "few values": torch.randint(0, 40, (n,), generator=steps).float(),
        "clusters": 0.01 * draw(n) + torch.randint(0, 6, (n,), generator=steps) ** 3,
        "tiny": 1e-20 * draw(n),
        "huge": 1e15 * draw(n),
    }


@pytest.mark.full
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("name", list(hard(2)))
def test_never_worse_than_k_means(name, bits):
    values, K = hard()[name], 1 << bits
    scale = float(values.double().std())  # k-means of scikit-learn loses tiny values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct values than clusters
        means = sklearn_cluster.KMeans(K, n_init=3, random_state=0).fit(
            values.double().numpy()[:, None] / scale
        )
    theirs = torch.from_numpy(np.sort(means.cluster_centers_[:, 0])) * scale
    ours = optimal_levels(values[None], K)[0]
    rounding = (1e-7 * float(values.abs().max())) ** 2  # of a level to float32
    assert error(values, ours) <= error(values, theirs) * (1 + 1e-6) + rounding


@pytest.mark.full
def test_never_worse_than_k_means_on_real_embeddings(real):
    values = real[:300].reshape(-1)
    for K in (2, 4, 16, 64):
        means = sklearn_cluster.KMeans(K, n_init=1, random_state=0).fit(values.numpy()[:, None])
        theirs = torch.from_numpy(np.sort(means.cluster_centers_[:, 0]))
        assert error(values, optimal_levels(values[None], K)[0]) <= error(values, theirs) * (1 + 1e-6)


def least_error(values, K):
    """The optimum, by trying every way to cut the sorted values into K intervals."""
    values = np.sort(np.asarray(values, dtype=np.float64))
    best = np.inf
    for cuts in itertools.combinations(range(1, len(values)), K - 1):
        cells = np.split(values, cuts)
        best = min(best, sum(((cell - cell.mean()) ** 2).sum() for cell in cells))
    return best / len(values)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("K", [2, 4])
def test_the_optimum_of_few_values(K, seed):
    values = draw(18, seed=seed) ** 3
    assert error(values, optimal_levels(values[None], K)[0]) == pytest.approx(
        least_error(values, K), rel=1e-5
    )


@pytest.mark.parametrize("K", [2, 4, 16, 256])
@pytest.mark.parametrize("distinct", [1, 2, 3, 7, 200])
def test_fewer_values_than_levels_are_kept(distinct, K):
    values = torch.linspace(-3, 5, distinct)[torch.arange(1000) % distinct]
    levels = optimal_levels(values[None], K)[0]
    assert levels.shape == (K,)
    assert bool((levels.diff() >= 0).all())
    if distinct <= K:
        assert error(values, levels) < 1e-12
        torch.testing.assert_close(levels.unique(), values.unique())


def test_rows_do_not_see_each_other():
    rows = torch.stack([draw(3000), 100 + draw(3000, seed=1), torch.full((3000,), 7.0)])
    together = optimal_levels(rows, 8)
    for row, levels in zip(rows, together, strict=True):
        torch.testing.assert_close(optimal_levels(row[None], 8)[0], levels, rtol=1e-4, atol=1e-4)


@pytest.mark.full
def test_many_rows_of_many_levels_start_with_fewer():
    """128 x 256 levels are too many for the programs: 64 are halved, which may end 5 % above k-means."""
    rows = draw(128, 3000) * draw(128, 3000, seed=1)
    levels = optimal_levels(rows, 256)
    for row, some in list(zip(rows, levels, strict=True))[:3]:
        means = sklearn_cluster.KMeans(256, n_init=1, random_state=0).fit(row.numpy()[:, None])
        theirs = torch.from_numpy(np.sort(means.cluster_centers_[:, 0]))
        assert error(row, some) <= error(row, theirs) * 1.05


def test_the_same_values_in_any_order_give_the_same_levels():
    values = draw(5000)
    mixed = values[torch.randperm(5000, generator=torch.Generator().manual_seed(1))]
    assert torch.equal(optimal_levels(values[None], 16), optimal_levels(mixed[None], 16))
