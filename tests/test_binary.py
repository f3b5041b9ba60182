"""BinaryQuantizer: the bytes of numpy and FAISS, distances equal to FAISS's, and what a float query gains."""

import numpy as np
import pytest
import torch

from gpuzip import BinaryQuantizer, GpuzipError, ProductQuantizer, recall
from gpuzip.codecs.binary import mirrored
from gpuzip.ops import bits_above, bucketize_packed, use_loops
from tests.test_scalar import METRICS, exact


def test_mirrored_reverses_bits():
    every = torch.arange(256, dtype=torch.uint8)
    want = [int(f"{i:08b}"[::-1], 2) for i in range(256)]
    assert mirrored(every).tolist() == want


@pytest.mark.parametrize("d", [1, 7, 8, 13, 384])
@pytest.mark.parametrize("threshold", [0.0, 0.125, -3, "mean", "dim_mean", "median"])
def test_bytes_are_those_of_packbits(d, threshold):
    g = torch.Generator().manual_seed(d)
    x = (
        torch.randn(101, d, generator=g).mul(8).round().div(8)
    )  # many at the threshold, and zeros of both signs
    x[::5] *= -1
    at = {
        "mean": x.double().mean().float(),
        "dim_mean": x.double().mean(0).float(),
        "median": x.median(0).values,
    }.get(threshold, threshold)
    codes = BinaryQuantizer(threshold).fit(x).encode(x)
    assert np.array_equal(codes.data.numpy(), np.packbits((x > at).numpy(), axis=1))


def test_a_gpu_s_bytes_are_a_cpu_s(real):
    packed = mirrored(bucketize_packed(real, torch.zeros(1, 1), 1))
    assert torch.equal(packed, BinaryQuantizer().fit(real).encode(real).data)


@pytest.mark.parametrize("d", [5, 64])
def test_means_of_both_sides_are_decoded(d):
    x = torch.randn(200, d, generator=torch.Generator().manual_seed(0)) + 0.3
    x[:, 0] = x[:, 0].abs() + 0.1  # none at or below 0
    decoded = BinaryQuantizer().fit(x).encode(x).decode()
    for column in range(1, d):
        above = x[:, column] > 0
        torch.testing.assert_close(decoded[above, column], x[above, column].mean().expand(int(above.sum())))
        torch.testing.assert_close(
            decoded[~above, column], x[~above, column].mean().expand(int((~above).sum()))
        )
    torch.testing.assert_close(decoded[:, 0], x[:, 0].mean().expand(200))
    signs = BinaryQuantizer(levels="sign").fit(x).encode(x).decode()
    assert torch.equal(signs, torch.where(x > 0, 1.0, -1.0))


@pytest.mark.parametrize("threshold", [0.0, "median"])
def test_hamming_is_that_of_faiss(real, real_queries, threshold):
    faiss = pytest.importorskip("faiss")
    codec = BinaryQuantizer(threshold).fit(real)
    codes, queries = codec.encode(real), codec.encode(real_queries)
    index = faiss.IndexBinaryFlat(384)
    index.add(codes.data.numpy())
    want, theirs = index.search(queries.data.numpy(), 20)
    distances, ids = codes.search(real_queries, 20, "hamming")
    assert distances.dtype == torch.int32
    assert np.array_equal(distances.numpy(), want)
    for ours, other, row in zip(ids.tolist(), theirs.tolist(), distances.tolist(), strict=True):
        surely = [n for n, distance in zip(ours, row, strict=True) if distance < row[-1]]
        assert set(surely) <= set(other)  # all but the last distance, which more rows may have
    packed = codes.search(queries.data, 20, "hamming")
    assert torch.equal(packed[0], distances) and torch.equal(packed[1], ids)
    from_array = codes.search(queries.data.numpy(), 20, "hamming")
    assert torch.equal(from_array[1], ids)


def test_hamming_by_loops_any_k_and_ties():
    x = torch.randn(40, 13, generator=torch.Generator().manual_seed(1))
    codes = BinaryQuantizer().fit(x).encode(x)
    q = x[:4] + 0.1
    distances, ids = codes.search(q, 100, "hamming")
    assert distances.shape == (4, 40)
    for i in range(4):
        differ = [(int(((q[i] > 0) != (x[n] > 0)).sum()), n) for n in range(40)]
        assert list(zip(distances[i].tolist(), ids[i].tolist(), strict=True)) == sorted(differ)
    mask = torch.zeros(40, dtype=torch.bool)
    mask[[3, 9]] = True
    assert sorted(codes.search(q[0], 5, "hamming", mask)[1].tolist()) == [3, 9]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("d", "Q"), [(384, 3), (384, 150), (13, 3)])
@pytest.mark.parametrize("levels", ["means", "sign"])
def test_a_float_query_scores_the_decoded_rows(real, real_queries, metric, d, Q, levels):
    x, q = real[:, :d], real_queries[:Q, :d]
    codes = BinaryQuantizer("median", levels).fit(x).encode(x)
    values, ids = codes.search(q, 7, metric)
    decoded = codes.decode()[ids].double()
    want = {
        "l2": lambda: (decoded - q[:, None].double()).square().sum(-1),
        "ip": lambda: (decoded * q[:, None].double()).sum(-1),
        "cosine": lambda: torch.cosine_similarity(decoded, q[:, None].double(), dim=-1),
    }[metric]()
    torch.testing.assert_close(values.double(), want, rtol=1e-5, atol=1e-5)


def test_float_queries_find_more_than_bits_and_rescoring_more_again(real, real_queries):
    codes = BinaryQuantizer().fit(real).encode(real)
    truth = exact(real, real_queries, 10)
    hamming, asymmetric, rescored = (
        recall(codes.search(real_queries, 10, **how)[1], truth)
        for how in ({"metric": "hamming"}, {"metric": "cosine"}, {"rescore": real})
    )
    assert hamming < asymmetric - 0.05 < rescored - 0.2
    assert rescored >= 0.95


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("avg",), "threshold must be a finite number or one of mean, dim_mean, median; got 'avg'"),
        ((float("nan"),), "threshold must be .*; got nan"),
        ((float("inf"),), "threshold must be .*; got inf"),
        ((True,), r"threshold must be .*; got True"),
        ((0.0, "average"), "levels must be 'means' or 'sign'; got 'average'"),
    ],
)
def test_settings_are_checked(arguments, message):
    with pytest.raises(GpuzipError, match=message):
        BinaryQuantizer(*arguments)


def test_bad_input_is_refused(real):
    with pytest.raises(GpuzipError, match="x must have at least one row"):
        BinaryQuantizer().fit(real[:0])
    codes = BinaryQuantizer().fit(real).encode(real[:50])
    with pytest.raises(
        GpuzipError, match=r"queries must be \(N, 48\) uint8 like the codes, or floats; got \(2, 47\) uint8"
    ):
        codes.search(torch.zeros(2, 47, dtype=torch.uint8), 3, "hamming")
    with pytest.raises(GpuzipError, match="metric must be one of l2, ip, cosine; got 'hamming'"):
        ProductQuantizer(m=2, nbits=1).fit(real[:100], min_points_per_centroid=1).encode(real).search(
            real[:1], 1, "hamming"
        )
    with pytest.raises(GpuzipError, match=r"queries must be float16.*; got uint8"):
        codes.search(torch.zeros(2, 48, dtype=torch.uint8), 3, "cosine")


def test_one_row_and_none(real):
    codec = BinaryQuantizer("median").fit(real[:1])
    codes = codec.encode(real[:1])
    torch.testing.assert_close(codes.decode(), real[:1])
    assert codec.encode(real[:0]).search(real[:3], 5, "hamming")[0].shape == (3, 0)


LANES = [True, False]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("loops", LANES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_above_are_packbits_and_sum_the_squares(loops, dtype):
    for N, d in [(0, 5), (1, 1), (37, 7), (5, 8), (101, 13), (33, 64), (9, 384), (1031, 301)]:
        g = torch.Generator().manual_seed(d)
        x = torch.randn(N, d, generator=g).mul(8).round().div(8).to(dtype)  # many at the limits
        for limits in (torch.tensor([0.125]), torch.randn(d, generator=g).mul(8).round().div(8)):
            out = torch.empty((N, -(-d // 8)), dtype=torch.uint8)
            with use_loops(loops):
                squares = bits_above(x, limits, out)
            assert np.array_equal(out.numpy(), np.packbits((x.float() > limits).numpy(), axis=1))
            assert squares == pytest.approx(float(x.double().square().sum()), rel=1e-3)
