"""Codes beyond the samples: FAISS, any range of values, exactness, and tiles that change nothing."""

import importlib
import importlib.util

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gpuzip import GpuzipError
from gpuzip._core.rows import LARGEST_NORM
from gpuzip.ops import OPS, assign, centroid_update, encode, kmeans_step, lloyd, unpack_bits
from gpuzip.ops._samples import anisotropic, generator

HAS_TRITON = importlib.util.find_spec("triton") is not None
needs_kernels = pytest.mark.skipif(not HAS_TRITON, reason="needs triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def kernel(name):
    """A launcher, on a GPU or in the interpreter, from and to the CPU."""
    launch = getattr(importlib.import_module(f"gpuzip.kernels.{name}"), name)

    def run(*args, **kwargs):
        result = launch(*(a.to(DEVICE) if isinstance(a, Tensor) else a for a in args), **kwargs)
        return tuple(r.cpu() for r in result) if isinstance(result, tuple) else result.cpu()

    return run


PATHS = [assign, pytest.param(lambda *args: kernel("assign")(*args), marks=needs_kernels)]
PATH = pytest.mark.parametrize("path", PATHS, ids=["op", "kernel"])


def excess(x: Tensor, centroids: Tensor, labels: Tensor) -> Tensor:
    """In float64, (N, M): how much farther the chosen centroid is than the nearest, of (d + |x|^2)."""
    M, _, S = centroids.shape
    sub, c = x.double().view(-1, M, S), centroids.double()
    distance = (sub[:, :, None] - c).square().sum(-1)  # [N, M, K]
    least = distance.amin(-1)
    chosen = distance.gather(-1, labels.long()[..., None])[..., 0]
    return (chosen - least) / (least + sub.square().sum(-1)).clamp(min=1e-300)


@pytest.mark.full
def test_codes_are_those_of_faiss(real):
    faiss = pytest.importorskip("faiss")
    differ = 0
    for m, nbits, rows in ((48, 8, 512), (96, 4, 512)):
        pq, K = faiss.ProductQuantizer(384, m, nbits), 1 << nbits
        near = real[: 4 * K].view(K, 4, m, -1).mean(1)  # [K, M, S]
        centroids = near.transpose(0, 1).contiguous()
        faiss.copy_array_to_vector(centroids.numpy().ravel(), pq.centroids)
        x = real[-rows:]
        want = unpack_bits(torch.from_numpy(pq.compute_codes(x.numpy())), m, nbits)
        for path in [encode, *([kernel("encode")] if HAS_TRITON else [])]:
            got = unpack_bits(path(x, centroids, False), m, nbits)
            assert float(excess(x, centroids, got).max()) <= 1e-5
            differ += int((got != want).sum())
    assert differ <= 5e-6 * 2 * (48 * 512 + 96 * 512)


@pytest.mark.full
@PATH
@settings(max_examples=40, deadline=None)
@given(
    size=st.sampled_from([(9, 2, 5, 1), (17, 1, 16, 3), (11, 2, 37, 8), (7, 1, 4, 17)]),
    scale=st.integers(-95, 60),
    of_rows=st.integers(-30, 30),
    offset=st.sampled_from([0.0, 3.0, 1e4]),
    outlier=st.sampled_from([1.0, 30.0, 1e3, 1e6]),
    seed=st.integers(0, 99),
)
def test_any_range_of_values_gives_the_nearest(path, size, scale, of_rows, offset, outlier, seed):
    N, M, K, S = size
    g = generator(seed)
    centroids = torch.randn(M, K, S, generator=g) + offset
    x = torch.randn(N, M * S, generator=g) + offset
    x[0], x[1::3] = 0.0, x[1::3] * 2.0**of_rows
    centroids[:, -1] *= outlier
    x, centroids = x * 2.0 ** min(scale, 35), centroids * 2.0 ** min(scale, 35)
    if path is assign and (scale < -45 or bool((x.norm(dim=1) >= LARGEST_NORM).any())):
        return  # squares of float32 vanish there, and all distances are equal; or such rows are refused
    assert float(excess(x, centroids, path(x, centroids, False)).max()) <= 1e-5


@needs_kernels
@pytest.mark.parametrize("power", [-100, 62])
def test_ends_of_float32(power):
    x = torch.randn(20, 6, generator=generator()) * 2.0**power
    centroids = torch.randn(2, 9, 3, generator=generator(1)) * 2.0 ** max(power, -98)
    assert float(excess(x, centroids, kernel("assign")(x, centroids)).max()) <= 1e-5


@PATH
@pytest.mark.parametrize("offset", [pytest.param(0.0, marks=pytest.mark.full), 100.0])
def test_exact_codes_are_those_of_differences_in_float32(path, offset):
    """Many rows lie between two centroids; the fast product cannot tell those apart, differences can."""
    g, N = generator(), 400 if path is PATHS[0] else 100  # the interpreter takes its time
    centroids = torch.randn(2, 60, 5, generator=g) + offset
    pairs = centroids[:, torch.randint(0, 60, (2, N), generator=g)]  # [M, 2, N, S]
    x = pairs.mean(1).transpose(0, 1).reshape(N, 10)
    x += 1e-6 * torch.randn(x.shape, generator=g)
    got, want = path(x, centroids, True).long(), OPS["assign"].reference(x, centroids).long()
    sub = x.view(N, 2, 5)
    ours, theirs = ((sub - centroids[torch.arange(2), label]).square().sum(-1) for label in (got, want))
    rounding = 4 * 2.0**-24 * theirs  # two sums of five squares, each in an order of its own
    assert bool(((ours - theirs).abs() <= rounding).all())
    fast = path(x, centroids, False).long()
    assert int((got != want).sum()) <= int((fast != want).sum())


@pytest.mark.full
@needs_kernels
def test_tiles_and_the_order_of_slots_change_no_code(monkeypatch):
    from gpuzip.kernels.assign import Tile

    x, c = anisotropic(150, 20), anisotropic(40, 20, seed=3).view(40, 4, 5).transpose(0, 1).contiguous()
    want = kernel("assign")(x, c)
    for tile in (
        Tile(32, 16, 4, 1, 1),
        Tile(64, 32, 4, 3, 3),
        Tile(16, 64, 4, 1, 4),
        Tile(128, 128, 8, 2, 2),
    ):
        assert torch.equal(kernel("assign")(x, c, tile=tile), want)
    packed = kernel("encode")(x, c[:, :16])
    for tile in (Tile(32, 16, 4, 2, 1), Tile(64, 16, 4, 1, 3)):
        assert torch.equal(kernel("encode")(x, c[:, :16], tile=tile), packed)
    monkeypatch.setattr("gpuzip.kernels.assign._in_slots", lambda *_: True)
    assert torch.equal(kernel("assign")(x, c), want)
    assert torch.equal(kernel("encode")(x, c[:, :16]), packed)


@needs_kernels
def test_tiles_fit_their_sizes():
    from gpuzip.kernels.assign import Tile, _tile

    assert _tile(256, 8) == Tile(64, 256, 4, 8, 1)
    assert _tile(16, 4) == Tile(128, 16, 4, 1, 8)
    assert _tile(16, 4, per=2).columns == 4
    assert _tile(65536, 64) == Tile(64, 64, 4, 1, 1)
    assert _tile(256, 8, target="cuda 100").BK == _tile(256, 8, exact=True).BK == 128


@needs_kernels
def test_sums_have_the_digits_of_float32_in_any_range():
    """Rows 2**40 apart: a common scale would lose the small ones; parts of bfloat16 have float32's range."""
    centroids = torch.tensor([[[1.0, 1.0], [2.0**20, 0.0], [0.0, -(2.0**20)], [2.0**-20, 2.0**-20]]])
    x = centroids[0, torch.arange(400) % 4] * (1 + 1e-3 * torch.randn(400, 2, generator=generator()))
    sums, counts = kernel("kmeans_step")(x, centroids)
    assert counts.tolist() == [[100] * 4]
    want = torch.stack([x[i::4].double().sum(0) for i in range(4)])[None]
    torch.testing.assert_close(sums.double(), want, rtol=1e-6, atol=0)


@pytest.mark.full
@needs_kernels
def test_one_launch_reaches_the_objective_of_steps(real):
    x = real[:1000, :8].contiguous()
    start = x[:16].view(16, 2, 4).transpose(0, 1).contiguous()
    steps = start
    for i in range(4):
        steps = centroid_update(*kmeans_step(x, steps), 5 + i)
    errors = []
    for found in (steps, lloyd(x, start, 4, 5), kernel("lloyd")(x, start, 4, 5)):
        chosen = found[torch.arange(2), assign(x, found).long()]
        errors.append(float((x.view(-1, 2, 4) - chosen).square().sum()))
    assert errors == pytest.approx([errors[0]] * 3, rel=1e-5)


def test_encode_wants_a_power_of_two():
    with pytest.raises(GpuzipError, match=r"centroids per sub-space must be a power of two .*; got 6"):
        encode(torch.zeros(2, 4), torch.zeros(2, 6, 2))


def test_empty_cells_split_large_ones():
    sums = torch.tensor([[[0.0, 0.0], [80.0, 40.0], [0.0, 0.0], [3.0, 6.0]]])
    found = centroid_update(sums, torch.tensor([[0, 8, 0, 1]]).int(), 7)
    up = torch.tensor([1 + 1 / 1024, 1 - 1 / 1024])
    donor = torch.tensor([10.0, 5.0])  # the only cell with two rows; it gives twice or once and its half once
    assert torch.equal(found[0, 3], sums[0, 3])
    assert torch.equal(found[0, 0], donor * up) or torch.equal(found[0, 0], donor * up * (2 - up))
    assert len({tuple(row) for row in found[0].tolist()}) == 4
    assert torch.equal(found, centroid_update(sums, torch.tensor([[0, 8, 0, 1]]).int(), 7))
