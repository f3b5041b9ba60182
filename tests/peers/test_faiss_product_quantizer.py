"""FAISS's laws of product quantization, restated on ProductQuantizer, its rotations and Codes.search.

Peer: facebookresearch/faiss, commit 02dbb4e (2026-08-08); MIT. Cases that apply: all 14 of
test_product_quantizer.py, 6 of test_index_accuracy.py (IndexPQ, refinement, OPQ), 3 of test_refine.py, 1 of
test_fast_scan.py and 1 of test_index_binary.py. Those of these files that do not: inverted lists (IVF),
polysemous codes, SDC tables, `assign_index`, and the layout and rounding of FastScan. "Every SIMD level" is
here with and without compiled loops.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

import gpuzip
from gpuzip import GpuzipError, ProductQuantizer, from_spec
from gpuzip.ops import use_loops
from tests.peers.draws import decoded_error, hits, nearest, synthetic, uniform

pytestmark = pytest.mark.full

SHAPES = [(16, 2), (20, 5), (18, 2), (32, 4), (36, 4)]  # d, and columns of a sub-space


def fitted(x: Tensor, m: int, nbits: int = 8, n_iter: int = 4) -> ProductQuantizer:
    return ProductQuantizer(m, nbits).fit(x, n_iter=n_iter, min_points_per_centroid=1)


def of_codebook(centroids: Tensor) -> ProductQuantizer:
    """A codec of a given codebook, (M, K, S)."""
    M, K, S = centroids.shape
    config = {"m": M, "nbits": K.bit_length() - 1, "pad": False, "d": M * S, "seed": None}
    return ProductQuantizer.restore(config, {"centroids": centroids})


def test_more_centroids_lose_less():
    x = uniform(2000, 64)
    coarse, fine = fitted(x, 4, 8, 25), fitted(x, 4, 10, 25)
    assert (coarse.code_size, fine.code_size) == (4, 5)
    assert 5000 > decoded_error(coarse, x) > decoded_error(fine, x)


@pytest.mark.parametrize("nbits", range(1, 17))
def test_rows_of_centroids_are_kept(nbits):
    draw = np.random.default_rng(123)
    codec = of_codebook(torch.from_numpy(draw.random((2, 1 << nbits, 8), dtype=np.float32)))
    labels = torch.from_numpy(draw.integers(0, 1 << nbits, (100, 2)))
    x = torch.cat([codec.centroids[0][labels[:, 0]], codec.centroids[1][labels[:, 1]]], 1)
    codes = codec.encode(x)
    assert codes.data.shape == (100, -(-2 * nbits // 8)) and torch.equal(codes.decode(), x)


@pytest.mark.parametrize("nbits", [4, 6, 8])
def test_codes_are_the_same_with_and_without_compiled_loops(nbits):
    x = uniform(2000, 64)
    codec = fitted(x, 4, nbits)
    with use_loops(False):
        plain = codec.encode(x).data
    assert torch.equal(codec.encode(x).data, plain)


@pytest.mark.parametrize(("d", "width"), SHAPES)
def test_codes_are_those_of_the_nearest_centroids(d, width):
    x = torch.randn(1000, d, generator=torch.Generator().manual_seed(123))
    codec = fitted(x, d // width)
    parts = x.view(1000, -1, width).transpose(0, 1).double()
    want = torch.cdist(parts, codec.centroids.double()).argmin(2).T
    assert torch.equal(codec.encode(x).data, want.to(torch.uint8))


@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize(("d", "width", "nbits"), [*((d, width, 8) for d, width in SHAPES), (32, 4, 4)])
def test_scores_are_sums_over_the_table_of_each_sub_space(d, width, nbits, metric):
    x = torch.randn(1000, d, generator=torch.Generator().manual_seed(123))
    queries = torch.randn(100, d, generator=torch.Generator().manual_seed(555))
    codec = fitted(x, d // width, nbits)
    codes = codec.encode(x)
    values, ids = codes.search(queries, len(x), metric)
    parts = queries.view(100, -1, 1, width)
    each = parts * codec.centroids if metric == "ip" else (parts - codec.centroids).square()
    labels = gpuzip.ops.unpack_bits(codes.data, d // width, nbits).long()
    want = sum(table[:, labels[:, m]] for m, table in enumerate(each.sum(3).unbind(1)))
    assert isinstance(want, Tensor)
    torch.testing.assert_close(values, want.gather(1, ids), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_the_nearest_row_is_often_among_ten(metric):
    x = torch.nn.functional.normalize(uniform(10_000, 64) - 0.5)
    queries = torch.nn.functional.normalize(uniform(200, 64, 7) - 0.5)
    _, ids = fitted(x, 16).encode(x).search(queries, 10, metric)
    assert hits(ids, nearest(x, queries, 1)) > 0.2


def test_a_finer_store_and_more_candidates_find_no_less():
    x, queries = uniform(5000, 64), uniform(200, 64, 7)
    codes, want = fitted(x, 8).encode(x), nearest(x, queries, 1)
    shares = [hits(codes.search(queries, 10, "l2")[1], want)]
    for multiplier in (1, 4):
        _, ids = codes.search(queries, 10, "l2", rescore=x, rescore_multiplier=multiplier)
        shares.append(hits(ids, want))
    assert shares == sorted(shares) and shares[2] > shares[0]


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_rescored_scores_are_exact_and_hold_the_best_of_all_candidates(metric):
    split = synthetic(32, 2000, 1000, 200)
    codes = fitted(split.train, 4, 4).encode(split.base)
    want = nearest(split.base, split.queries, 1, metric)
    wide = codes.search(split.queries, 100, metric)[1]
    values, ids = codes.search(split.queries, 10, metric, rescore=split.base, rescore_multiplier=10)
    found = split.base[ids]
    each = found * split.queries[:, None] if metric == "ip" else (found - split.queries[:, None]).square()
    torch.testing.assert_close(values, each.sum(2), rtol=1e-5, atol=1e-4)
    assert hits(ids, want) == hits(wide, want)


def test_opq_finds_more_in_unbalanced_columns():
    scale = torch.cat([torch.full((20,), 2.0), torch.full((20,), 0.3)])
    x, queries = (uniform(5000, 40) - 0.5) * scale, (uniform(200, 40, 7) - 0.5) * scale
    shares = []
    for rotation in (None, "opq"):
        codec = ProductQuantizer(4, rotation=rotation).fit(x, min_points_per_centroid=1)
        codes = codec.encode(x)
        found = codes.search(queries, 100, "l2")[1]
        shares.append([hits(found[:, :k], nearest(x, queries, 1)) for k in (1, 10, 100)])
    assert all(opq > plain for plain, opq in zip(*shares, strict=True))


def test_four_bits_of_two_columns_find_most_nearest_rows_first():
    split = synthetic(32, 2000, 5000, 1000)
    codes = from_spec("PQ16x4").fit(split.train).encode(split.base)
    _, ids = codes.search(split.queries, 1, "l2")
    assert hits(ids, nearest(split.base, split.queries, 1)) > 0.6


@pytest.mark.parametrize("spec", ["PQ8x8", "PQ8x6np"])
@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_scores_are_those_of_decoded_rows(spec, metric):
    split = synthetic(32, 1000, 200, 20)
    codec = from_spec(spec)
    assert isinstance(codec, ProductQuantizer)
    codes = codec.fit(split.train, min_points_per_centroid=1).encode(split.base)
    values, ids = codes.search(split.queries, 10, metric)
    rows = codes.decode()[ids]
    each = rows * split.queries[:, None] if metric == "ip" else (rows - split.queries[:, None]).square()
    torch.testing.assert_close(values, each.sum(2), rtol=1e-5, atol=2e-5)


def test_a_codebook_of_signs_makes_bits_of_them():
    """Bytes of 8 signs as centroids: codes are the packed bits, and squared distances 4 times Hamming's."""
    bits = (torch.arange(256)[:, None] >> torch.arange(8)) & 1
    codec = of_codebook((2.0 * bits - 1).expand(32, 256, 8).contiguous())
    draw = np.random.default_rng(1)
    packed, asked = (torch.from_numpy(draw.integers(0, 256, (n, 32), dtype=np.uint8)) for n in (1500, 50))
    rows, queries = ((2.0 * bits - 1)[bytes_.long()].flatten(1) for bytes_ in (packed, asked))
    codes = codec.encode(rows)
    assert torch.equal(codes.data, packed)
    values, ids = codes.search(queries, 3, "l2")
    assert torch.equal(values, 4.0 * (queries[:, None] != rows[ids]).sum(2))


@pytest.mark.parametrize(
    "spec",
    [
        "PQ8x6np",
        "PQ6x8np",
        "PQ8np",
    ],
)
def test_np_at_the_end_of_a_spec_changes_nothing(spec):
    plain = spec.removesuffix("np")
    assert from_spec(spec).spec == from_spec(plain).spec


def test_a_layout_of_FAISS_alone_is_refused():
    with pytest.raises(GpuzipError, match="PQ16x4fs"):
        from_spec("PQ16x4fs")
