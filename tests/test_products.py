"""Searches by products of decoded tiles: their loops beside plain torch, and which searches take them."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from gpuzip import LloydMaxQuantizer, MixedLloydMaxQuantizer, RaBitQuantizer, ScalarQuantizer
from gpuzip.ops import OPS, adc_gather, candidates, one_pass, pack_bits, row_writers, scalar_decode
from gpuzip.ops._dispatch import loops_are_used, use_loops
from gpuzip.ops.lookup_tables import lookup_tables
from gpuzip.search.scorers import costs
from gpuzip.search.scorers.costs import product_pays

pytestmark = pytest.mark.skipif(not loops_are_used(), reason="loops need numba")
NONE = None, None, None


@pytest.fixture
def g():
    return torch.Generator().manual_seed(0)


def written(write, N, D):
    """Rows in tiles of seven."""
    rows = torch.full((N, D), float("nan"))
    for start in range(0, N, 7):
        write(start, min(start + 7, N), rows[start : start + 7])
    return rows


def as_given(rows):
    return lambda start, stop, out: out.copy_(rows[start:stop])


@pytest.mark.parametrize(
    ("N", "D", "Q", "k"), [(1, 1, 1, 1), (37, 5, 3, 37), (3000, 48, 70, 10), (700, 3, 2, 400)]
)
def test_the_best_products(N, D, Q, k, g):
    """Of whole numbers, which are exact: those that a stable sort of all products puts first."""
    rows, queries = (
        torch.randint(-3, 4, (N, D), generator=g).float(),
        torch.randint(-3, 4, (Q, D), generator=g),
    )
    scale, bias = (
        2.0 ** torch.randint(-2, 3, (N,), generator=g),
        torch.randint(-5, 5, (N,), generator=g).float(),
    )
    queries, mask = queries.float(), torch.rand(N, generator=g) < 0.5
    for of_rows in (NONE, (scale, bias, None), (None, None, mask)):
        scores = queries @ rows.T
        scores = scores if of_rows[0] is None else scores * scale + bias
        scores = scores if of_rows[2] is None else scores.masked_fill(~mask, float("-inf"))
        values, ids = scores.sort(dim=1, descending=True, stable=True)
        found = one_pass.product_topk(as_given(rows), N, queries, k, of_rows)
        assert found is not None
        assert torch.equal(found[0], values[:, :k])
        is_there = values[:, :k] > float("-inf")
        assert torch.equal(found[1][is_there], ids[:, :k][is_there])


def test_rows_that_are_no_numbers_are_left_out(g):
    rows, queries = torch.randn(600, 16, generator=g), torch.randn(9, 16, generator=g)
    rows[::3] = float("nan")
    found = one_pass.product_topk(as_given(rows), 600, queries, 20, NONE)
    want = (queries @ rows.T).nan_to_num(float("-inf")).topk(20)
    assert found is not None
    torch.testing.assert_close(found[0], want.values)
    assert bool((found[1] % 3 > 0).all())


@pytest.mark.parametrize("threads", [1, 2])
def test_blocks_of_several_threads(threads, g, monkeypatch):
    monkeypatch.setattr("gpuzip.loops._blocks._SHARE", 1)
    rows, queries = (
        torch.randint(-2, 3, (5000, 8), generator=g).float(),
        torch.randn(3, 8, generator=g).round(),
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = one_pass.product_topk(as_given(rows), 5000, queries, 50, NONE)
    finally:
        torch.set_num_threads(before)
    values, ids = (queries @ rows.T).sort(dim=1, descending=True, stable=True)
    assert found is not None
    assert torch.equal(found[0], values[:, :50])
    assert torch.equal(found[1], ids[:, :50])


SIZES = [
    (3, 48, 1),
    (4, 12, 4),
    (4, 11, 4),
    (5, 37, 1),
    (7, 9, 1),
    (8, 24, 1),
    (8, 6, 8),
    (6, 5, 9),
    (9, 7, 3),
]


@pytest.mark.parametrize(("nbits", "M", "S"), SIZES)
def test_sums_of_tables_that_are_not_made(nbits, M, S, g):
    """To the bit what `adc_gather` sums."""
    N, Q, K = 40, 3, 1 << nbits
    packed = pack_bits(torch.randint(0, K, (N, M), dtype=torch.int32, generator=g), nbits)
    centroids, queries = torch.randn(M, K, S, generator=g), torch.randn(Q, M * S, generator=g)
    ids = torch.randint(-2, N + 2, (Q, 9), generator=g)
    ids[0, :2] = N - 1
    scale, mask = torch.rand(N, generator=g), torch.rand(N, generator=g) < 0.5
    for is_l2 in (False, True):
        lut = lookup_tables(queries, centroids.permute(2, 0, 1).contiguous(), is_l2)
        for of_rows in ((None, None), (scale, mask)):
            found = candidates.table_sums((packed, centroids, queries, is_l2, *of_rows), ids)
            assert found is not None
            assert torch.equal(found, adc_gather(packed, lut, of_rows[0], ids, of_rows[1]))


@pytest.mark.parametrize("nbits", range(1, 9))
def test_codes_whose_centroids_are_single_floats(nbits, g):
    """One table or one per code, any row or some; the last rows end where memory does."""
    op = OPS["decode"]
    for N, M in ((1, 1), (1, 8), (3, 9), (70, 24), (5, 37)):
        packed = pack_bits(torch.randint(0, 1 << nbits, (N, M), dtype=torch.uint8, generator=g), nbits)
        ids = torch.randint(-1, N + 1, (11,), generator=g)
        for C, share in ((1, M), (M, 1)):
            table = torch.randn(C, 1 << nbits, 1, generator=g)
            for some in (None, ids):
                found = op.call(packed, table, some, share)
                assert torch.equal(found, op.reference(packed, table, some, share))


def test_rows_of_tables_of_any_stride(g):
    packed = pack_bits(torch.randint(0, 32, (40, 24), dtype=torch.uint8, generator=g), 5)
    table = torch.randn(1, 32, 1, generator=g)
    want = OPS["decode"].reference(packed, table, None, 24)
    for codes in (packed, packed.repeat(1, 2)[:, : packed.shape[1]]):
        assert torch.equal(written(row_writers.table_rows(codes, table, 24), 40, 24), want)


@pytest.mark.parametrize("bits", [0.4, 1, 2.5, 6])
def test_rows_of_several_widths(bits, real):
    codes = MixedLloydMaxQuantizer(bits).fit(real[:300]).encode(real[:29])
    codec: Any = codes.codec
    layout = codec._layout()
    order = torch.cat([codec.fitted.columns(width) for width in (1, 2, 4, 8, 0)])
    found = written(layout.writer(codes.data), 29, codec.width)
    assert torch.equal(found, codes.decode()[:, order])


@pytest.mark.parametrize(
    "settings", [{"bits": 3}, {"bits": 5, "per": "tensor"}, {"bits": 6, "symmetric": True}]
)
def test_rows_of_equal_steps(settings, real):
    signed = settings.get("symmetric", False)
    codes = ScalarQuantizer(**settings, signed=signed).fit(real[:300]).encode(real[:29])
    codec: Any = codes.codec
    found = written(codec._layout().writer(codes.data), 29, codec.width)
    assert torch.equal(found, codes.decode())


def test_rows_of_bytes(g):
    codes = torch.randint(0, 256, (29, 24), dtype=torch.uint8, generator=g)
    start, step = torch.randn(24, generator=g), torch.rand(24, generator=g)
    for flip in (0, 128):
        write = row_writers.step_rows(codes, start, step, flip)
        assert torch.equal(written(write, 29, 24), scalar_decode(codes, start, step, 8, flip))


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_rows_of_signs(bits, real):
    """Points of the grid: decoded rows less the center, over the step."""
    codes = RaBitQuantizer(bits, rotation=None).fit(real[:100]).encode(real[:20])
    codec: Any = codes.codec
    planes = [*codec._planes(codes.packed)[::2]]
    D, ones, extra = codec.width, torch.ones(20), torch.randn(20, 2)
    write = row_writers.sign_rows(planes, D, ones, extra)
    assert write is not None
    rows = written(write, 20, D + 2)
    assert torch.equal(rows[:, D:], extra)
    apart = codes.decode() - codec.center
    step = (apart * rows[:, :D]).sum(1, keepdim=True) / rows[:, :D].square().sum(1, keepdim=True)
    torch.testing.assert_close(step * rows[:, :D], apart, rtol=1e-4, atol=1e-6)


def closest(estimates, ceilings, scores, k):
    """Of rows in the order of their estimates, three of them not taken."""
    N, asked = len(scores) + 3, []

    def gather(rows):
        asked.append(rows.clone())
        return torch.cat([scores, torch.full((4,), float("-inf"))])[rows]

    rows = torch.arange(len(scores))[None]
    return candidates.closest(estimates[None], rows, ceilings[None], k, N, gather), asked


def test_no_more_candidates_are_scored_than_may_be_better():
    estimates = torch.tensor([5.0, 4.5, 4.0, 3.5, 3.4, 2.0, 1.0])
    scores = torch.tensor(
        [4.5, 3.9, 4.0, 3.1, 4.1, 1.0, 9.0]
    )  # the last is above its ceiling, so nobody looks
    (values, rows, unsure), asked = closest(estimates, estimates + 1, scores, 2)
    assert rows.tolist() == [[0, 4]]
    assert values.tolist() == [[4.5, scores[4]]]
    assert unsure is None
    assert [part.shape[1] for part in asked] == [4, 1]


def test_a_query_is_not_proven_if_rows_that_were_not_taken_may_be_better():
    estimates, scores = torch.tensor([5.0, 4.0]), torch.tensor([5.0, 4.0])
    for error, is_unsure in ((0.5, True), (0.0, True), (-0.5, False)):  # an equal row may have a lower number
        (_, _, unsure), _ = closest(estimates, estimates + error, scores, 2)
        assert (unsure is not None and bool(unsure[0])) is is_unsure
    estimates[1] = float("-inf")  # there is no other row
    (values, _, unsure), _ = closest(estimates, estimates + 0.5, scores, 2)
    assert values.tolist() == [[5.0, float("-inf")]]
    assert unsure is None


def test_few_rows_are_summed_exactly(real, real_queries, monkeypatch):
    """Beside the k best, only rows that float32 rounding may have moved among them."""
    codes, count, plain = LloydMaxQuantizer(5).fit(real[:500]).encode(real), [], candidates.closest_by_tables

    def counted(tables, found, ceilings, k):
        least = found[0][:, k - 1 : k]
        count.append(int((ceilings >= least).sum()))
        return plain(tables, found, ceilings, k)

    monkeypatch.setattr("gpuzip.search.scorers.tables.closest_by_tables", counted)
    codes.search(real_queries[:50], 10, "ip")
    assert sum(count) < 50 * 12


def test_where_products_pay(monkeypatch):
    monkeypatch.setattr(costs, "has_wide_tables", lambda: False)
    at = partial(product_pays, D=384)
    assert at(1, 10**6, 240, K=32)  # no loop has tables of 32 entries
    assert not at(1, 1000, 384, K=256)
    assert at(5, 10**6, 384, K=256)
    assert at(16, 1000, 48, K=256)
    assert not at(16, 10**5, 48, K=256)
    assert not at(256, 1000, 48, K=16)
    assert at(256, 1000, 192, K=16)
    assert not at(256, 10**5, 192, K=16)
    monkeypatch.setattr(costs, "has_wide_tables", lambda: True)
    assert not at(16, 1000, 48, K=256) and not at(256, 10**5, 48, K=256)
    assert at(256, 200, 48, K=256) and at(16, 10**5, 192, K=256)


def test_without_loops_there_are_no_products(real, real_queries):
    codes = LloydMaxQuantizer(3).fit(real[:500]).encode(real[:600])
    scorer = codes.codec.scorer(codes.packed, real_queries[:20], "ip")
    assert scorer.one_pass(10) is not None
    with use_loops(False):
        assert scorer.one_pass(10) is None


def test_ties_of_many_rows_are_searched_again(real, real_queries):
    """More equal rows than are taken: the lowest numbers win."""
    codes = LloydMaxQuantizer(3).fit(real[:500]).encode(real[:3].repeat(100, 1))
    values, ids = codes.search(real_queries[:7], 10, "ip")
    assert torch.equal(values, values[:, :1].expand(-1, 10))
    first = ids[:, :1]
    assert torch.equal(ids, first + 3 * torch.arange(10))
    assert np.array_equal(first[:, 0], (real_queries[:7] @ codes[:3].decode().T).argmax(1))
