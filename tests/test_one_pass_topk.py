"""Searches in one pass beside a scan and topk: the same rows and scores, bit for bit."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from gpuzip.loops import _blocks, _vectors256
from gpuzip.ops import OPS, adc_scan, hamming_scan, scalar_scan, topk
from gpuzip.ops._dispatch import loops_of, use_loops
from gpuzip.ops._samples import generator, random_codes
from gpuzip.ops.adc import RowTerms
from gpuzip.ops.few import adc_few, searched
from gpuzip.ops.hamming import ABSENT
from gpuzip.ops.lookup_tables import lookup_tables
from gpuzip.ops.one_pass import adc_topk, half_topk, hamming_topk, turned

pytestmark = pytest.mark.skipif(not _vectors256.is_here(), reason="this CPU or numba has no AVX2")
NOTHING = RowTerms(None, None, None, None)
FEW = settings(deadline=None, max_examples=60)


@pytest.fixture(autouse=True)
def _registers_for_every_table(monkeypatch):
    """Tables of 256 entries, too, for any number of queries and on any CPU with AVX2."""
    monkeypatch.setattr(importlib.import_module("gpuzip.loops.adc_topk"), "bytes_pay", lambda Q, N: True)


@pytest.fixture
def threads(monkeypatch):
    """Sets the number of threads, which share even a few rows."""
    before = torch.get_num_threads()
    monkeypatch.setattr(_blocks, "_SHARE", 1)
    yield torch.set_num_threads
    torch.set_num_threads(before)


def scanned(planes, lut, k, terms=NOTHING, shift=None):
    """What a scan and topk find; rows that are not allowed have the number 0."""
    scale, mask, extra, coef = terms
    scores = adc_scan(torch.cat(planes, 1), lut, scale, 1, mask, extra, coef)
    scores, rows = topk(scores if shift is None else scores + shift, k)
    return scores, rows.masked_fill_(scores.isneginf(), 0)


def check(planes, lut, k, terms=NOTHING, shift=None):
    want = scanned(planes, lut, k, terms, shift)
    for columns in (None, turned(planes)):
        found = adc_topk(planes, lut, k, terms, shift, columns)
        assert found is not None
        assert (found[0].dtype, found[1].dtype) == (torch.float32, torch.int64)
        assert torch.equal(found[0], want[0])
        assert torch.equal(found[1], want[1])


def codes_of(N, B):
    return random_codes(N, B, 256)


def tables_of(Q, B, K, seed=0):
    """Random tables for rows of B bytes."""
    return torch.randn(Q, B * 8 // (K.bit_length() - 1), K, generator=generator(seed))


def some_of(N):
    return sorted({1, min(10, N), max(1, N - 1), N})


# Each size once with its terms of rows and once without; `group` is of the scan alone.
SAMPLES = [sample for sample in OPS["adc_scan"].samples("cpu") if sample[4] in (1, 32)]


@pytest.mark.parametrize("number", range(len(SAMPLES)))
def test_samples_of_the_scan(number):
    packed, lut, scale, mask, _, *more = SAMPLES[number]
    terms = RowTerms(scale, mask, *(more or (None, None)))
    if lut.shape[2] not in (2, 4, 16, 256) or len(packed) == 0:
        assert adc_topk([packed], lut, 1, terms) is None
        return
    for k in some_of(len(packed)):
        check([packed], lut, k, terms)


@pytest.mark.parametrize("K", [2, 16, 256])
@pytest.mark.parametrize("N", [1, 31, 32, 33, 63, 64, 65, 2000])
def test_terms_of_rows_and_queries(K, N):
    """Factors of 0 and below 0, up to three columns, and what is added per query."""
    g = generator(N)
    codes, lut, shift = codes_of(N, 7), tables_of(3, 7, K), torch.randn(3, 1, generator=g)
    scale = torch.randn(N, generator=g)
    scale[::3] = 0
    for E in (0, 1, 2, 3):
        extra = torch.randn(N, E, generator=g) if E else None
        coef = torch.randn(3, E, generator=g) if E else None
        for factors in (None, scale, -scale.abs()):
            for added in (None, shift, 1e4 * shift):
                check([codes], lut, min(N, 9), RowTerms(factors, None, extra, coef), added)


@pytest.mark.parametrize("K", [16, 256])
@pytest.mark.parametrize("widths", [(5, 1, 17), (16, 16), (1, 1, 1), (33, 6)])
def test_planes_whose_rows_are_apart(K, widths):
    N, B = 333, sum(widths)
    wide = codes_of(N, B + 9)
    planes = [wide[:, 3:][:, at : at + w] for at, w in zip(np.cumsum((0, *widths)), widths, strict=False)]
    assert all(plane.stride(0) > plane.shape[1] for plane in planes)
    check(planes, tables_of(2, B, K), 10)


@pytest.mark.parametrize("K", [16, 256])
def test_rows_at_any_address(K):
    memory = codes_of(1, 8000)[0]
    for B in (1, 8, 15, 16, 17):
        for first in (1, 3, 7):
            check([memory[first : first + 100 * B].view(100, B)], tables_of(1, B, K), 10)
    check([codes_of(50, 32)[:, ::2]], tables_of(1, 16, K), 10)
    check([codes_of(1, 9).expand(100, -1)], tables_of(1, 9, K), 10)


@pytest.mark.parametrize("K", [16, 256])
@pytest.mark.parametrize("k", [1, 10, 700])
def test_ties_over_the_borders_of_blocks_and_threads(threads, K, k):
    """Four different rows: the lowest numbers win, for any number of threads."""
    codes, lut = codes_of(4, 6)[torch.randint(0, 4, (3000,), generator=generator())], tables_of(3, 6, K)
    mask = torch.rand(3000, generator=generator(1)) < 0.7
    for count in (1, 2, 3):
        threads(count)
        check([codes], lut, k)
        check([codes], lut, k, RowTerms(None, mask, None, None))
        check([codes], lut.mul(0), k)


@pytest.mark.parametrize("K", [16, 256])
def test_masks(threads, K):
    """None allowed, one allowed, whole tiles forbidden, and fewer allowed than are asked for."""
    N, lut = 6000, tables_of(2, 24, K)
    codes = codes_of(N, 24)
    scale = torch.rand(N, generator=generator())
    for allowed in ([], [0], [N - 1], [17, 4099, 5000], range(4096, 4100), range(0, N, 700)):
        mask = torch.zeros(N, dtype=torch.bool)
        mask[list(allowed)] = True
        for count in (1, 2):
            threads(count)
            check([codes], lut, 5, RowTerms(None, mask, None, None))
            check([codes], lut, 5, RowTerms(scale, mask, None, None))


def test_what_is_left_to_the_scan():
    codes, lut = codes_of(20, 6), tables_of(1, 6, 16)
    assert adc_topk([codes], lut, 0, NOTHING) is None
    assert adc_topk([codes], lut, 21, NOTHING) is None
    assert adc_topk([codes], lut[:0], 5, NOTHING) is None
    assert adc_topk([codes_of(20, 6)], torch.zeros(1, 16, 8), 5, NOTHING) is None
    assert adc_topk([codes_of(2, 1025)], tables_of(1, 1025, 16), 1, NOTHING) is None
    assert hamming_topk(codes[:1], codes, 5, None) is None  # fewer than 8 bytes
    with use_loops(False):
        assert adc_topk([codes], lut, 5, NOTHING) is None  # too few rows for tables of pairs
        assert (
            hamming_topk(codes_of(5, 8), codes_of(20, 8), 5, None) is None
        )  # too many queries to count bits


@pytest.mark.parametrize("K", [16, 256])
def test_the_widest_rows(K):
    codes = codes_of(200, 1024)
    codes[5] = 255
    lut = tables_of(2, 1024, K)
    lut[0, :, -1] = lut[0].amax()  # row 5 has the greatest sum of rounded entries that there can be
    check([codes], lut, 3)


# Adversarial tables


def flat(lut):
    """Some tables of equal entries."""
    lut = lut.clone()
    lut[:, ::2] = lut[:, ::2, :1]
    return lut


def one_huge(lut):
    lut = lut.clone()
    lut[:, 0, 3] = 1e9
    return lut


TABLES = {
    "flat": flat,
    "all flat": lambda lut: lut[:, :, :1].expand_as(lut).contiguous(),
    "zeros": torch.zeros_like,
    "one huge entry": one_huge,
    "halves": lambda lut: lut.mul(8).round().div(2),
    "both signs": lambda lut: lut.abs() * torch.tensor([1.0, -1]).repeat(lut.shape[2] // 2),
    "far from 0": lambda lut: lut + 1e5,
    "so far that sums lose digits": lambda lut: lut + 1e7,
    "cancelling": lambda lut: lut + 1e5 * torch.tensor([1.0, -1]).repeat(lut.shape[1] // 2)[:, None],
}
SIZES = [1e-45, 1e-42, 1e-38, 1e-31, 1e-30, 1e-10, 1e10, 1e30, 2.0**114, 2.0**120, 2.0**123]


@pytest.mark.parametrize("K", [16, 256])
@pytest.mark.parametrize("name", TABLES)
def test_tables_of_any_kind(name, K):
    lut = TABLES[name](tables_of(2, 12, K))
    for k in (1, 10, 399):
        check([codes_of(400, 12)], lut, k)


@pytest.mark.parametrize("K", [16, 256])
@pytest.mark.parametrize("size", SIZES)
def test_values_of_any_size(size, K):
    """Denormals, and sums up to the largest float."""
    N, g = 2000, generator()
    codes, lut = codes_of(N, 4), tables_of(2, 4, K) * size
    factors = torch.randn(N, generator=g)
    for k in (1, 10, 500):
        check([codes], lut, k)
        check([codes], lut.abs(), k)
        check([codes], -lut.abs(), k)
        check([codes], lut, k, RowTerms(factors, None, None, None))
        if size < 1e30:
            check([codes], lut, k, RowTerms(factors / size / 1e4, None, None, None))


@pytest.mark.parametrize("K", [16, 256])
def test_scores_that_underflow(K):
    N, g = 2000, generator()
    codes, lut = codes_of(N, 4), tables_of(1, 4, K) * 1e-22
    terms = RowTerms(
        torch.randn(N, generator=g) * 1e-22, None, torch.randn(N, 1, generator=g) * 1e-44, torch.ones(1, 1)
    )
    for k in (1, 10, 500, N):
        check([codes], lut, k, terms)
        check([codes], lut, k, terms._replace(extra=None, coef=None))


@pytest.mark.parametrize("K", [16, 256])
@pytest.mark.parametrize("factor", [3e38, -3e38, 1e37])
def test_a_factor_whose_bound_overflows(factor, K):
    """As of a row that is nearly nothing, beside rows of ordinary length."""
    N, g = 500, generator()
    codes, lut, scale = codes_of(N, 4), tables_of(1, 4, K) * 100, torch.rand(N, generator=g)
    codes[77], scale[77] = 0, factor
    lut[:, :, 0] = 1e-36
    extra, coef = torch.randn(N, 1, generator=g), torch.ones(1, 1)
    for k in (1, 10, N):
        check([codes], lut, k, RowTerms(scale, None, None, None))
        check([codes], lut, k, RowTerms(scale, None, extra, coef), torch.ones(1, 1))


@pytest.mark.parametrize("K", [16, 256])
@pytest.mark.parametrize("B", [2, 40, 256])
def test_errors_of_rounding_that_all_point_one_way(B, K):
    """A step is 1, and half of one is lost in each entry of the best row, which comes late.

    Other rows are nearly as good, so its bound is above their scores only with all that rounding may hide.
    """
    M, top = B * 8 // (K.bit_length() - 1), min(127, 65535 // (2 * B))
    lut = torch.zeros(1, M, K)
    lut[..., 1], lut[..., 2], lut[..., 15] = 1.4999, 1.4999 - 2.0**-10, top
    codes = torch.full((600, B), 17 if K == 16 else 1, dtype=torch.uint8)
    codes[torch.arange(600) != 400, 0] = 18 if K == 16 else 2
    for k in (1, 2, 100):
        check([codes], lut, k)


@FEW
@given(
    st.integers(0, 2**31),
    st.sampled_from([2, 4, 16, 256]),
    st.sampled_from([1, 2, 3, 8, 17, 48]),
    st.integers(1, 40),
    st.sampled_from(["steps", "uneven", "signs", "integers", "plain"]),
    st.booleans(),
)
def test_no_row_above_the_kth_best_is_missed(seed, K, B, k, kind, scaled):
    """Entries at half steps, one table that is 1000 times the others, signs that alternate, and ties."""
    g = generator(seed)
    lut = tables_of(2, B, K, seed)
    M = lut.shape[1]
    if kind == "steps":
        lut = (lut * 20).round().clamp(-60, 60) + 0.5 - 2.0**-20 * torch.rand(lut.shape, generator=g)
        lut[:, :, 0], lut[:, :, -1] = -63.5, 63.5
    elif kind == "uneven":
        lut[:, seed % M] *= 1000
    elif kind == "signs":
        lut = lut.abs() * torch.tensor([1.0, -1]).repeat(M)[:M, None]
    elif kind == "integers":
        lut = lut.round()
    terms = NOTHING
    if scaled:
        terms = RowTerms(
            torch.randn(700, generator=g),
            None,
            torch.randn(700, 1, generator=g),
            torch.randn(2, 1, generator=g),
        )
    check([codes_of(700, B)], lut, k, terms)


# Few queries in one compiled call


@pytest.mark.parametrize("K", [16, 256])
@pytest.mark.parametrize("is_l2", [False, True])
@pytest.mark.parametrize("S", [1, 3, 4])
def test_few_queries_in_one_call(K, is_l2, S):
    """Beside tables that are made first, also of equal centroids and in memory of an earlier search."""
    N, B, g = 900, 5, generator(S)
    codes, M = codes_of(N, B + 2)[:, 1 : B + 1], B * 8 // (K.bit_length() - 1)
    columns, queries = torch.randn(S, M, K, generator=g), torch.randn(3, M * S, generator=g)
    for centroids in (columns, columns * 0 + 1, columns * 1e-20, columns * 1e18):
        for scale in (None, torch.rand(N, generator=g)):
            for k in (1, 10, 256):
                lut = lookup_tables(queries, centroids, is_l2)
                want = scanned([codes], lut, k, RowTerms(scale, None, None, None))
                for columns_of_codes in (None, turned([codes])):
                    few = adc_few(codes, centroids, is_l2, scale, columns_of_codes)
                    assert few is not None
                    assert few.can_search(3, k)
                    found = searched(few, queries, 3, k)
                    if found is None:  # for which `adc_topk` is there
                        assert K == 16
                        assert columns_of_codes is not None
                        assert centroids is not columns
                        continue
                    assert torch.equal(found[0], want[0])
                    assert torch.equal(found[1], want[1])
    few = adc_few(codes, columns, is_l2, None, most=100.0)
    assert few is not None
    assert not few.can_search(3, 257)
    assert searched(few, torch.full((M * S,), 100.0), 1, 1) is None
    assert searched(few, torch.full((M * S,), torch.nan), 1, 1) is None


def test_threads_share_queries_of_one_call(monkeypatch):
    """As one thread finds; and none where there are too few queries to share."""
    N, M, S, g = 900, 6, 4, generator(0)
    codes, columns, queries = (
        codes_of(N, M),
        torch.randn(S, M, 256, generator=g),
        torch.randn(13, M * S, generator=g),
    )
    few = adc_few(codes, columns, True, None, turned([codes]))
    assert few is not None
    want = searched(few, queries, 13, 10)
    monkeypatch.setattr(importlib.import_module("gpuzip.loops.adc_few"), "is_lone", lambda *sizes: False)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert few.can_search(13, 10) and not few.can_search(11, 10)
        found = searched(few, queries, 13, 10)
    finally:
        torch.set_num_threads(before)
    assert want is not None and found is not None
    assert torch.equal(want[0], found[0]) and torch.equal(want[1], found[1])


# Hamming distances


def check_hamming(queries, codes, k, mask=None):
    found = hamming_topk(queries, codes, k, mask)
    distances = hamming_scan(queries, codes, mask)
    scores = -distances.float().masked_fill(distances == ABSENT, float("inf"))
    want, rows = topk(scores, k)
    assert found is not None
    assert (found[0].dtype, found[1].dtype) == (torch.float32, torch.int64)
    assert torch.equal(found[0], want)
    assert torch.equal(found[1], rows.masked_fill(want.isneginf(), 0))


@pytest.mark.parametrize("B", [*range(8, 41), 128])
def test_hamming(B):
    """Rows side by side and apart, at odd addresses, with near rows, ties and masks."""
    for N in (1, 31, 33, 700):
        wide = codes_of(N, B + 5)
        wide[N // 2 :] = wide[: N - N // 2].clone()
        queries = wide[:3, :B].contiguous()
        mask = torch.rand(N, generator=generator(N)) < 0.5
        for codes in (wide[:, :B].contiguous(), wide[:, :B], wide[:, 1 : B + 1]):
            for k in some_of(N):
                check_hamming(queries, codes, k)
                check_hamming(queries, codes, k, mask)


def test_samples_of_the_hamming_scan():
    for queries, codes, mask, _ in OPS["hamming_scan"].samples("cpu"):
        if len(codes) and len(queries) and codes.shape[1] >= 8:
            for k in some_of(len(codes)):
                check_hamming(queries, codes, k, mask)


@pytest.mark.parametrize("k", [1, 10, 700])
def test_hamming_ties_over_the_borders_of_blocks_and_threads(threads, k):
    same = codes_of(1, 24).expand(3000, -1)
    few = codes_of(4, 24)[torch.randint(0, 4, (3000,), generator=generator())]
    mask = torch.zeros(3000, dtype=torch.bool)
    mask[2900:] = True
    for count in (1, 2, 3):
        threads(count)
        for codes in (same, few):
            check_hamming(few[:3], codes, k)
            check_hamming(few[:3], codes, k, mask)


def test_hamming_of_all_bits():
    codes = torch.cat([torch.full((40, 1024), 255), torch.zeros(2, 1024)]).to(torch.uint8)
    check_hamming(torch.zeros(1, 1024, dtype=torch.uint8), codes, 5)
    check_hamming(torch.zeros(1, 1024, dtype=torch.uint8), codes[:40], 5)


# Products of bytes


def check_scalar(codes, queries, k, flip=0, of_rows=(None, None, None)):
    found = loops_of("scalar_topk").best_estimates(codes.contiguous(), queries, of_rows, k, flip)
    whole, unit, offset = queries
    scale, bias, mask = of_rows
    want, rows = topk(scalar_scan(codes ^ flip, whole, unit, offset, scale, bias, mask, 8, 1), k)
    assert np.array_equal(found[0], want)
    assert np.array_equal(found[1], rows.masked_fill(want.isneginf(), 0))


def int8_queries(Q, D):
    g = generator(D)
    whole = torch.randint(-127, 128, (Q, D), generator=g).to(torch.int8)
    return whole, torch.rand(Q, generator=g), torch.randn(Q, generator=g)


@pytest.mark.parametrize("D", [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 384])
@pytest.mark.parametrize("Q", [1, 9, 17, 48])
def test_int8_products(D, Q):
    for N in (1, 2, 7, 8, 9, 41, 700):
        wide, g = codes_of(N, D + 3), generator(N)
        of_rows = torch.rand(N, generator=g), torch.randn(N, generator=g), torch.rand(N, generator=g) < 0.5
        for k in some_of(N):
            check_scalar(wide[:, :D].contiguous(), int8_queries(Q, D), k)
            check_scalar(wide[:, 1 : D + 1], int8_queries(Q, D), k, 128, of_rows)


@pytest.mark.parametrize("Q", [3, 20, 40])
@pytest.mark.parametrize("k", [1, 10, 700])
def test_int8_ties_over_the_borders_of_blocks_and_threads(threads, k, Q):
    codes = codes_of(4, 24)[torch.randint(0, 4, (3000,), generator=generator())]
    mask = torch.zeros(3000, dtype=torch.bool)
    mask[2900:] = True
    for count in (1, 2, 3):
        threads(count)
        for allowed in (None, mask):
            check_scalar(codes, int8_queries(Q, 24), k, 0, (None, None, allowed))


INT8_ROWS = 2000


def int8_terms(first):
    """A term of each row, of the first ones near this, and a mask that allows few of those."""
    g = generator(3)
    terms, mask = torch.rand(INT8_ROWS, generator=g), torch.rand(INT8_ROWS, generator=g) < 0.5
    terms[:512], mask[:500] = terms[:512] * 0.1 + first, False
    return terms, mask


@pytest.mark.parametrize("first", [0.0, 1.0, 1e6, -1e6])
def test_int8_limits_that_the_first_rows_raise(first):
    """Their scores are above or below those of all others, or those of no allowed row."""
    codes, (terms, mask) = codes_of(INT8_ROWS, 12), int8_terms(first)
    for of_rows in ((terms, None, None), (None, terms, None), (None, terms, mask)):
        for k in (1, 52, 256, 257):
            check_scalar(codes, int8_queries(33, 12), k, 0, of_rows)


@pytest.mark.parametrize("first", [np.nan, -np.inf])
def test_int8_rows_without_a_score_raise_no_limit(first):
    codes, (terms, mask) = codes_of(INT8_ROWS, 12), int8_terms(first)
    best, asked = loops_of("scalar_topk").best_estimates, int8_queries(33, 12)
    for allowed in (None, mask):
        without = terms.isfinite() if allowed is None else mask & terms.isfinite()
        found, others = (best(codes, asked, (None, terms, x), 52, 0) for x in (allowed, without))
        assert all(map(np.array_equal, found, others))


@pytest.mark.parametrize(
    ("own", "registers", "fastest", "most"),
    [
        ("avx2", True, "tiles", 300),
        ("avxvnni", True, "bytes", 4),
        ("avx512vnni", True, "lanes", 300),
        ("avx512vnni", True, "bytes", 16),
        ("", False, "tiles", 4),
    ],
)
def test_many_queries_of_int8_are_left_to_instructions_for_them(monkeypatch, own, registers, fastest, most):
    loops = loops_of("scalar_topk")
    monkeypatch.setattr(loops, "has_features", lambda *names: own in names)
    monkeypatch.setattr(loops._query_lanes, "is_here", lambda: own == "avx512vnni")
    monkeypatch.setattr(loops, "is_here", lambda: registers)
    monkeypatch.setattr(loops, "fastest_of_many", lambda: fastest)
    assert [Q for Q in (1, 4, 5, 16, 17, 300) if loops.can_search(Q)] == [
        Q for Q in (1, 4, 5, 16, 17, 300) if most >= Q
    ]


# 16-bit floats


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("D", [1, 7, 8, 33, 384])
def test_products_of_16_bit_floats(dtype, D):
    """Estimates are within the rounding of D products of sums in float64, and no better row is left out."""
    if not loops_of("half_topk").can_search(1):
        pytest.skip("this CPU or numba converts no 16-bit floats")
    for N in (1, 9, 700):
        g = generator(N + D)
        store, queries = torch.randn(N, D, generator=g).to(dtype), torch.randn(3, D, generator=g)
        scale, bias, mask = (
            torch.rand(N, generator=g),
            torch.randn(N, generator=g),
            torch.rand(N, generator=g) < 0.7,
        )
        store[N // 2, 0] = float("nan")
        exact = queries.double() @ store.double().T * scale.double() + bias.double()
        sizes = queries.double().abs() @ store.double().abs().T + bias.abs() + 1
        allowed = mask & ~store.isnan().any(1)
        exact = exact.masked_fill(~allowed, float("-inf"))
        for k in some_of(N):
            both = half_topk(store, queries, k, (scale, bias, mask))
            assert both is not None
            scores, rows = both
            found = ~scores.isneginf()
            assert torch.equal(found.sum(1), allowed.sum().clamp(max=k).expand(3))
            error = (D + 2) * 2.0**-23 * sizes
            assert ((scores - exact.gather(1, rows)).abs() <= error.gather(1, rows))[found].all()
            best = exact.topk(k).values
            assert ((scores - best).abs() <= error.nan_to_num(0).amax(1, keepdim=True))[found].all()
            assert torch.equal(scores, scores.sort(1, descending=True).values)


def test_many_queries_of_floats_are_left_to_matrix_products():
    store = torch.randn(20, 8, generator=generator())
    assert half_topk(store.half(), torch.ones(9, 8), 1, (None, None, None)) is None
    assert half_topk(store, torch.ones(1, 8), 1, (None, None, None)) is None


# No byte behind the last row is read


GUARDED = """
import ctypes, mmap, torch
from gpuzip.loops import adc_topk as loop
from gpuzip.ops._samples import generator
from gpuzip.ops._dispatch import loops_of
from gpuzip.ops.adc import RowTerms
from gpuzip.ops import OPS
from gpuzip.ops.candidates import table_sums
from gpuzip.ops.one_pass import adc_topk, hamming_topk

loop.bytes_pay = lambda Q, N: True
torch.set_num_threads(1)
libc, PAGE = ctypes.CDLL(None, use_errno=True), mmap.PAGESIZE
libc.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int


class Guarded:
    def __init__(self):
        self.memory = mmap.mmap(-1, 5 * PAGE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        assert libc.mprotect(address + 4 * PAGE, PAGE, 0) == 0

    def last(self, values, stride=0):
        "The values at the end of the memory, rows apart or not."
        kind, size = values.dtype, values.element_size()
        if values.ndim == 1:
            count = len(values)
            into = torch.frombuffer(self.memory, dtype=kind, count=count, offset=4 * PAGE - count * size)
        else:
            N, B = values.shape
            count = (N - 1) * stride + B
            into = torch.frombuffer(self.memory, dtype=kind, count=count, offset=4 * PAGE - count)
            into = into.as_strided((N, B), (stride, 1))
        return into.copy_(values)


def same(one, other):
    return torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


codes_end, scale_end, mask_end, g = Guarded(), Guarded(), Guarded(), generator()
for N in (1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 95, 96, 97, 100):
    scale, mask = torch.rand(N, generator=g), torch.rand(N, generator=g) < 0.7
    terms = RowTerms(scale, mask, None, None)
    guarded = RowTerms(scale_end.last(scale), mask_end.last(mask), None, None)
    for B in range(1, 71):
        print(f"{N} rows of {B} bytes", flush=True)
        codes = torch.randint(0, 256, (N, B), generator=g).to(torch.uint8)
        stride = B if B % 3 else B + 5
        last = codes_end.last(codes, stride)
        for K in (16, 256):
            lut = torch.randn(1, 2 * B if K == 16 else B, K, generator=g)
            assert same(adc_topk([last], lut, 1, guarded), adc_topk([codes], lut, 1, terms))
        if B >= 8:
            query = codes[:1]
            assert same(hamming_topk(query, last, 1, guarded.mask), hamming_topk(query, codes, 1, mask))
        last, best = codes_end.last(codes, B), loops_of("scalar_topk").best_estimates
        for Q in (1, 17):
            whole = torch.randint(-127, 128, (Q, B), generator=g).to(torch.int8)
            asked, of_rows = (whole, torch.rand(Q, generator=g), None), (guarded.scale, None, guarded.mask)
            found = [map(torch.from_numpy, best(x, asked, of_rows, 1, 0)) for x in (last, codes.clone())]
            assert same(*map(list, found))
        for nbits in (3, 5, 8):
            M = 8 * B // nbits
            table, ids = torch.randn(M, 1 << nbits, 1, generator=g), torch.arange(N)[None]
            assert torch.equal(*(OPS["decode"].call(some, table, None, 1) for some in (last, codes)))
            of_codes = table, torch.randn(1, M, generator=g), False, None, None
            assert torch.equal(*(table_sums((some, *of_codes), ids) for some in (last, codes)))
print("done", flush=True)
torch.frombuffer(codes_end.memory, dtype=torch.uint8)[4 * PAGE].item()
print("what is guarded can be read")
"""


@pytest.mark.full
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mprotect is called as on Linux")
def test_nothing_behind_the_last_row_is_read():
    """A read of the page behind it ends the process, as the last one of the program shows."""
    run = subprocess.run(
        [sys.executable, "-c", GUARDED], cwd=Path(__file__).parents[1], capture_output=True, text=True
    )
    last = run.stdout.strip().rpartition("\n")[2]
    assert last == "done", f"{last}\n{run.stderr[-2000:]}"
    assert run.returncode < 0
