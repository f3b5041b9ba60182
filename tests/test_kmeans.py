"""k-means: its policy, its repeatability, and what it does when clusters run empty."""

import importlib.util
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode

from gpuzip import GpuzipError, ProductQuantizer
from gpuzip.codecs.pq import Codebook
from gpuzip.ops import OPS, assign
from gpuzip.training.kmeans import kmeans

HAS_TRITON = importlib.util.find_spec("triton") is not None


def objective(x, centroids):
    M, _, S = centroids.shape
    labels = assign(x, centroids).long()
    return float((x.view(-1, M, S) - centroids[torch.arange(M), labels]).square().sum())


@pytest.mark.parametrize("K", [16, 256])
def test_the_same_seed_is_the_same_bytes_for_any_thread_count(real, K):
    threads = torch.get_num_threads()
    runs = []
    try:
        for count in (threads, threads, 1, 3):
            torch.set_num_threads(count)
            runs.append(kmeans(real[:2000], 48, K, seed=3, n_iter=5).centroids)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(run, runs[0]) for run in runs)
    assert not torch.equal(runs[0], kmeans(real[:2000], 48, K, seed=4, n_iter=5).centroids)


def test_the_reported_objective_is_the_squared_error(real):
    start = kmeans(real[:1000], 24, 16, n_iter=1)
    again = kmeans(real[:1000], 24, 16, n_iter=1, init=start.centroids)
    assert float(again.objective.sum()) == pytest.approx(objective(real[:1000], start.centroids), rel=1e-5)


def test_every_iteration_lowers_the_objective(real):
    seen = []
    kmeans(real[:2000], 24, 16, progress=lambda i, n, value: seen.append((i, n, value)))
    assert [i for i, _, _ in seen] == list(range(1, len(seen) + 1))
    assert {n for _, n, _ in seen} == {25}
    values = [value for _, _, value in seen]
    assert all(b <= a * (1 + 1e-9) for a, b in pairwise(values))


def test_stops_when_nothing_moves():
    x = torch.tensor([[0.0], [0.1], [9.0], [9.1]])
    assert kmeans(x, 1, 2, n_iter=25, init=torch.tensor([[[0.0], [9.0]]])).n_iter == 3


@pytest.mark.full
def test_tol_stops_sooner(real):
    steps = [kmeans(real[:2000], 8, 16, tol=tol).n_iter for tol in (0.0, 1e-2, 0.5)]
    assert steps[0] > steps[1] > steps[2] >= 2


def test_as_many_centroids_as_rows_are_the_rows():
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
    assert objective(x, kmeans(x, 2, 16).centroids) == 0


def test_restarts_keep_the_best_of_each_subspace(real):
    x = real[:500]
    runs = [kmeans(x, 12, 16, seed=seed).objective for seed in (0, 1, 2)]
    best = kmeans(x, 12, 16, seed=0, n_init=3)
    assert torch.equal(best.objective, torch.stack(runs).amin(0))


@pytest.mark.full
def test_plus_plus_starts_better_than_random(real):
    x = real[:3000]
    errors = {
        init: np.mean(
            [objective(x, kmeans(x, 24, 64, seed=s, n_iter=1, init=init).centroids) for s in range(3)]
        )
        for init in ("random", "kmeans++")
    }
    assert errors["kmeans++"] < errors["random"]


def test_plus_plus_draws_each_distinct_row_once():
    x = torch.tensor([[1.0, 5.0], [1.0, 6.0], [2.0, 7.0], [3.0, 7.0]])
    centroids = kmeans(x, 2, 3, init="kmeans++", n_iter=0).centroids
    assert sorted(centroids[0].view(-1).tolist()) == [1, 2, 3]
    assert sorted(centroids[1].view(-1).tolist()) == [5, 6, 7]


def test_empty_clusters_are_split_off_large_ones():
    g = torch.Generator().manual_seed(0)
    x = torch.cat([torch.randn(300, 2, generator=g), torch.randn(20, 2, generator=g) + 50])
    init = torch.full((1, 8, 2), 1e3)
    init[0, 0] = 0.0  # seven of eight start where no row is near
    found = kmeans(x, 1, 8, init=init)
    assert bool(torch.bincount(assign(x, found.centroids)[:, 0].long(), minlength=8).all())
    assert objective(x, found.centroids) < 0.5 * objective(x, kmeans(x, 1, 2).centroids)


def test_fewer_distinct_rows_than_centroids_stays_finite():
    x = torch.tensor([[0.0], [1.0]]).repeat(50, 1)
    found = kmeans(x, 1, 16)
    assert bool(torch.isfinite(found.centroids).all())
    assert objective(x, found.centroids) < 1e-4


def test_inputs_are_left_alone(real):
    x, init = real[:100].clone(), torch.randn(2, 4, 192)
    before = init.clone()
    kmeans(x, 2, 4, init=init)
    assert torch.equal(init, before)
    assert torch.equal(x, real[:100])


def test_unknown_starts_are_refused(real):
    with pytest.raises(GpuzipError, match=r"init must be 'random', 'kmeans\+\+' or a tensor"):
        kmeans(real[:100], 2, 4, init="best")
    with pytest.raises(GpuzipError, match=r"init must have shape \(2, 4, 192\); got \(2, 4\)"):
        kmeans(real[:100], 2, 4, init=torch.zeros(2, 4))


WAITS = (DataDependentOutputException, RuntimeError)  # the second where torch has no CUDA at all


class NoCopyToTheHost(TorchDispatchMode):
    """Raises where a tensor of a GPU is copied to the CPU; fake tensors raise where Python reads a value."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        came = [a for a in args if isinstance(a, torch.Tensor) and a.device.type == "cuda"]
        if came and isinstance(out, torch.Tensor) and out.device.type == "cpu":
            raise RuntimeError(f"{func} waits for the GPU")
        return out


@pytest.fixture
def gpu_without_values():
    """Tensors on cuda that have shapes and no values, so that nothing can wait for one."""
    with FakeTensorMode(), NoCopyToTheHost():
        yield "cuda"


def test_waiting_for_the_gpu_is_seen(gpu_without_values):
    x = torch.ones(3, device=gpu_without_values)
    for wait in (lambda: float(x.sum()), lambda: bool((x > 0).all()), lambda: x.sum().item()):
        with pytest.raises(WAITS):
            wait()
    for copy in (x.cpu, lambda: x.to("cpu")):
        with pytest.raises(RuntimeError, match="waits for the GPU"):
            copy()
    with pytest.raises((DynamicOutputShapeException, RuntimeError)):
        x.nonzero()


@pytest.mark.parametrize(("N", "K"), [(4096, 16), (20_000, 16), (65_536, 256), (30_000, 1024)])
@pytest.mark.parametrize("n_init", [1, 2])
def test_nothing_waits_for_the_gpu(gpu_without_values, N, K, n_init):
    x = torch.empty(N, 384, device=gpu_without_values)
    found = kmeans(x, 48, K, n_iter=5, n_init=n_init)
    assert found.centroids.device.type == found.objective.device.type == "cuda"
    assert (found.centroids.shape, found.objective.shape, found.n_iter) == ((48, K, 8), (48,), 5)


def test_progress_and_tol_wait_once_an_iteration(gpu_without_values):
    x = torch.empty(1000, 8, device=gpu_without_values)
    for options in ({"tol": 0.1}, {"progress": lambda *_: None}):
        with pytest.raises(WAITS):
            kmeans(x, 2, 4, **options)


@pytest.mark.parametrize(("m", "nbits", "d"), [(48, 8, 384), (96, 4, 384), (8, 5, 60), (2, 12, 20)])
def test_encoding_does_not_wait_for_the_gpu(gpu_without_values, m, nbits, d):
    centroids = torch.empty(m, 1 << nbits, -(-d // m), device=gpu_without_values)
    codec = ProductQuantizer(m, nbits, True, fitted=Codebook(centroids, d, 0))
    data = codec.encode_block(torch.empty(1000, d, device=gpu_without_values))
    assert data.device.type == "cuda"
    assert data.shape == (1000, codec.code_size)


@pytest.mark.skipif(not HAS_TRITON, reason="the kernel needs triton")
def test_sums_of_the_kernel_keep_the_digits_of_small_rows_and_show_what_is_not_finite():
    """Columns of very different size, subnormal ones too; gradients with inf must not become finite sums."""
    from gpuzip.kernels.centroid_sums import centroid_sums

    g = torch.Generator().manual_seed(0)
    scale = torch.tensor([1e-41, 1e-20, 1.0, 1e30])
    x, labels = torch.randn(500, 4, generator=g) * scale, torch.randint(0, 5, (500, 2), generator=g).byte()
    x[7, 2] = 1e4
    sums, counts = centroid_sums(x, labels, 5)
    want, how_many = OPS["centroid_sums"].reference(x.double(), labels, 5)
    assert torch.equal(counts, how_many)
    assert bool(((sums - want).abs() <= 1e-6 * x.double().abs().sum(0).view(2, 1, 2) + 2e-45).all())
    x[3, 1], x[4, 3] = float("inf"), float("nan")
    sums, _ = centroid_sums(x, labels, 5)
    assert (
        not sums[0, :, 1].isfinite().any() and sums[1, :, 1].isnan().all() and sums[:, :, 0].isfinite().all()
    )
