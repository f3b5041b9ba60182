"""Searches of few queries without compiled loops beside a scan and topk: the same bits."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gpuzip
from gpuzip._core import best
from gpuzip._core.best import in_order, places_of_best
from gpuzip.ops import adc_scan, counted_bits, hamming_scan, pair_sums, topk, walsh
from gpuzip.ops._dispatch import use_loops
from gpuzip.ops._samples import generator, random_codes
from gpuzip.ops.adc import RowTerms
from gpuzip.ops.one_pass import adc_topk, hamming_topk, tables_pay, turned
from gpuzip.search import packed as packed_module

NOTHING = RowTerms(None, None, None, None)


@pytest.fixture(autouse=True)
def _without_loops():
    with use_loops(False):
        yield


@pytest.fixture
def any_rows(monkeypatch):
    """Tables of pairs for any number of rows, in blocks of few."""
    monkeypatch.setattr(pair_sums, "_FEWEST_ROWS", 1)
    monkeypatch.setattr(pair_sums, "_LEAST_BLOCK", 64)
    monkeypatch.setattr(pair_sums, "_MOST_BLOCK", 64)


def codes_of(N, B, seed=0):
    return random_codes(N, B, 256, seed=seed).to(torch.uint8)


def tables_of(Q, M, K, seed=0):
    return torch.randn(Q, M, K, generator=generator(seed))


def terms_of(N, Q, E=2):
    g = generator(N)
    scale, extra = torch.rand(N, generator=g) - 0.2, torch.randn(N, E, generator=g)
    mask = torch.rand(N, generator=g) < 0.6
    mask[:64] = False  # a whole block
    return RowTerms(scale, mask, extra, torch.randn(Q, E, generator=g))


def check(planes, lut, k, terms=NOTHING, shift=None):
    scale, mask, extra, coef = terms
    scores = adc_scan(torch.cat(planes, 1), lut, scale, 1, mask, extra, coef)
    want = topk(scores if shift is None else scores + shift, k)
    for columns in (None, turned(planes)):
        found = adc_topk(planes, lut, k, terms, shift, columns)
        assert found is not None
        assert found[0].dtype == torch.float32
        assert torch.equal(found[0], want[0])
        assert torch.equal(found[1], want[1])


@pytest.mark.parametrize(("Q", "M", "K"), [(1, 48, 256), (2, 7, 256), (1, 96, 16), (3, 13, 4), (1, 60, 2)])
def test_one_plane(any_rows, Q, M, K):
    lut, B = tables_of(Q, M, K), -(-M * (K.bit_length() - 1) // 8)
    codes = codes_of(301, B)
    codes[200:] = codes[:101].clone()  # ties
    shift = torch.randn(Q, 1, generator=generator(2)) * 100
    for k in (1, 10, 70, 301):
        check([codes], lut, k)
    check([codes], lut, 10, terms_of(301, Q), shift)


@pytest.mark.parametrize("widths", [(3, 5), (4, 1, 2), (6, 6)])
def test_several_planes_and_strides(any_rows, widths):
    planes = [codes_of(200, 2 * width, seed=width)[:, :width] for width in widths]
    lut, terms = tables_of(2, sum(widths), 256), terms_of(200, 2)
    check(planes, lut, 5, terms)
    check([plane.T.contiguous().T for plane in planes], lut, 5, terms)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_tables(data):
    """Entries of very unequal size leave many rows that may be the best, or none to tell apart."""
    B, N, seed = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 150)), data.draw(st.integers(0, 99))
    k = data.draw(st.integers(1, N))
    sizes = data.draw(st.lists(st.sampled_from([0.0, 1e-41, 1e-20, 1.0, 1e6, 1e30]), min_size=B, max_size=B))
    lut = tables_of(1, B, 256, seed) * torch.tensor(sizes)[None, :, None]
    codes = codes_of(N, B, seed) & data.draw(st.sampled_from([0, 1, 255]))
    shift = torch.tensor([[data.draw(st.sampled_from([0.0, 1e5, -1e12]))]])
    scale = torch.rand(N, generator=generator(seed)) * data.draw(st.sampled_from([1e-30, 1.0, 1e8]))
    terms = RowTerms(data.draw(st.sampled_from([None, scale])), None, None, None)
    found = pair_sums.best_by_pairs([codes], lut, k, terms, shift, None)
    scores, rows = topk(adc_scan(codes, lut, terms.scale) + shift, k)
    if found is None:  # float32 holds no step of so small entries, or no bound
        assert max(sizes) == 1e-41 or max(sizes) * float(scale.max()) > 1e36
        return
    assert torch.equal(found[0], scores)
    assert torch.equal(found[1], rows)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 3e38])
def test_what_has_no_bound_is_left_to_a_scan(any_rows, bad):
    codes, lut = codes_of(100, 6), tables_of(1, 6, 256)
    lut[0, :, 7] = bad
    assert adc_topk([codes], lut * 2, 5, NOTHING) is None
    scale = torch.tensor([bad]).mul(2).expand(100)
    assert adc_topk([codes], tables_of(1, 6, 256), 5, RowTerms(scale, None, None, None)) is None
    scale = torch.ones(100).index_fill(0, torch.tensor([99]), math.nan)  # of the last block
    assert adc_topk([codes], tables_of(1, 6, 256), 5, RowTerms(scale, None, None, None)) is None


def test_too_few_and_too_many_rows_are_left_to_a_scan(any_rows, monkeypatch):
    codes, lut = codes_of(100, 6), tables_of(1, 6, 256)
    four = RowTerms(None, torch.arange(100) < 4, None, None)
    assert adc_topk([codes], lut, 5, four) is None
    check([codes], lut, 4, four)
    check([codes], lut, 2, four)
    monkeypatch.setattr(pair_sums, "_MOST_ENTRIES", 300)
    assert adc_topk([codes * 0], lut, 5, NOTHING) is None  # all are equal
    check([codes * 0], lut, 25)


def test_when_pairs_pay(monkeypatch):
    monkeypatch.setattr(pair_sums, "_FEWEST_ROWS", 10)
    for Q, N, B, pays in [(1, 10, 6, True), (1, 9, 6, False), (2, 39, 6, False), (2, 40, 6, True)]:
        assert tables_pay(codes_of(N, B), 16, Q) is pays
        assert (adc_topk([codes_of(N, B)], tables_of(Q, B, 256), 3, NOTHING) is not None) is pays
    assert not tables_pay(codes_of(1000, 6), 16, 5)
    assert not tables_pay(codes_of(1000, 6), 8, 1)
    assert turned([codes_of(9, 6)]) is None
    assert adc_topk([codes_of(1000, 1025)], tables_of(1, 1025, 256), 3, NOTHING) is None


@pytest.mark.skipif(not hasattr(np, "bitwise_count"), reason="numpy 1 does not count bits")
@pytest.mark.parametrize("B", [1, 7, 8, 13, 48, 128])
def test_counted_bits(monkeypatch, B):
    monkeypatch.setattr(counted_bits, "_AT_ONCE", 100)
    monkeypatch.setattr(counted_bits, "_LEAST_BLOCK", 128)
    monkeypatch.setattr(counted_bits, "_MOST_BLOCK", 128)
    queries, codes = codes_of(3, B, seed=1), codes_of(300, B)
    codes[150:] = codes[:150].clone()
    queries[0] = codes[4]
    mask = torch.rand(300, generator=generator(B)) < 0.5
    mask[:128] = False
    spread = codes_of(300, 2 * B)[:, :B]
    for data, allowed in [(codes, None), (codes, mask), (spread, mask)]:
        for k in (1, 10, 60):
            want = topk(hamming_scan(queries, data, allowed).float().neg_(), k)
            found = hamming_topk(queries, data, k, allowed)
            assert found is not None
            assert torch.equal(found[0], want[0])
            assert torch.equal(found[1], want[1])


def test_bits_that_are_left_to_a_scan(monkeypatch):
    queries, codes = codes_of(1, 8), codes_of(50, 8)
    assert hamming_topk(queries, codes, 5, torch.arange(50) < 4) is None
    assert hamming_topk(queries, codes, 51, None) is None
    assert hamming_topk(codes_of(5, 8), codes, 5, None) is None
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert hamming_topk(queries, codes, 5, None) is None


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_places_of_the_best(data):
    N, k = data.draw(st.integers(1, 300)), 0
    k = data.draw(st.integers(1, N))
    levels, slack = data.draw(st.sampled_from([1, 3, 1000])), data.draw(st.sampled_from([0.0, 1.5]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = rng.integers(0, levels, N).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(best, "_GROUPS", 4)
        places = places_of_best(values, k, slack)
    order = np.argsort(-values, kind="stable")
    assert (np.diff(places) > 0).all()
    assert set(places) >= set(np.flatnonzero(values >= values[order[k - 1]] - slack))
    assert np.array_equal(in_order(values, places, k), order[:k])


@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("D", [1, 2, 48, 384])
def test_a_transform_on_the_cpu_has_the_bits_of_torch(D, loops):
    x, signs = torch.randn(3, D, generator=generator(D)), torch.rand(2, D, generator=generator(1)) < 0.5
    x[1] = math.inf
    kept = x.clone()
    for transform in (walsh.walsh, walsh.walsh_back):
        with use_loops(loops):
            found = transform(x, signs)
        assert torch.equal(x, kept)
        with torch.no_grad():
            want = transform(x.clone().requires_grad_(), signs)  # which numpy does not read
        assert torch.equal(found.view(torch.int32)[[0, 2]], want.view(torch.int32)[[0, 2]])
        assert torch.equal(found.isnan(), want.isnan())


FITS = {
    "pq": lambda x: gpuzip.ProductQuantizer(9, nbits=8).fit(x, min_points_per_centroid=1),
    "nibbles": lambda x: gpuzip.ProductQuantizer(9, nbits=4).fit(x),
    "residual": lambda x: gpuzip.ResidualQuantizer(4, nbits=4).fit(x),
    "rabitq": lambda x: gpuzip.RaBitQuantizer(bits=1).fit(x),
    "planes": lambda x: gpuzip.RaBitQuantizer(bits=3).fit(x),
}


@pytest.mark.parametrize("name", FITS)
def test_searches_by_pairs_find_what_scans_find(monkeypatch, name):
    x = torch.randn(900, 36, generator=generator(3))
    codes = FITS[name](x).encode(x)
    queries, mask = x[:2] + 0.1, torch.arange(900) % 3 > 0
    asked: list[tuple[Any, Any]] = [*product(("ip", "l2", "cosine"), (None, mask))]
    want = [codes.search(queries, 5, metric, mask=rows) for metric, rows in asked]
    monkeypatch.setattr(pair_sums, "_FEWEST_ROWS", 1)
    seen: list[object] = []
    monkeypatch.setattr(pair_sums._Query, "best_of", _watched(pair_sums._Query.best_of, seen))
    for _ in range(3):  # the columns are kept from the second one on
        for (metric, rows), (values, ids) in zip(asked, want, strict=True):
            found = codes.search(queries, 5, metric, mask=rows)
            assert torch.equal(found[0], values)
            assert torch.equal(found[1], ids)
    assert len(seen) == 2 * 3 * len(asked)
    assert not codes.packed.prepared  # which needs loops


def _watched(function, seen):
    def run(*arguments):
        seen.append(arguments[1:])
        return function(*arguments)

    return run


def test_columns_of_pairs_are_kept_where_there_is_room(monkeypatch):
    x = torch.randn(5000, 16, generator=generator(3))
    codec = gpuzip.ProductQuantizer(8).fit(x, min_points_per_centroid=1)
    codes = codec.encode(x)
    data = codes.packed.data
    for _ in range(2):
        first = codes.packed.turned([data])
    assert first is not None
    assert (first.dtype, first.shape) == (torch.int64, (4, 5000))
    assert first.nbytes == 4 * data.nbytes
    assert torch.equal(first[1], data[:, 2].long() + 256 * data[:, 3].long())
    values, ids = codes.search(x[:1], 5, "ip")
    data[int(ids[0, 0])] = data[int(ids[0, -1])].clone()  # changed: turned again
    assert codes.packed.turned([data]) is None
    again = codes.search(x[:1], 5, "ip")
    assert again[0][0, 0] < values[0, 0]
    codes = codec.encode(x)
    monkeypatch.setattr(packed_module, "_MOST_TURNED", 4 * codes.packed.data.nbytes - 1)
    assert [codes.packed.turned([codes.packed.data]) for _ in range(3)] == [None] * 3
