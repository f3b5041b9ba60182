"""Sums of codewords searched by products with kept rows, beside a search by tables."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("numba")

from typing import Any

from gpuzip import Codes, ResidualQuantizer
from gpuzip._core.checks import SearchMetric
from gpuzip.ops.few import searched
from gpuzip.search.scorers import sums

METRICS: list[SearchMetric] = ["ip", "cosine", "l2"]


def normal(N: int, D: int, seed: int = 0) -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(seed))


def fitted(N: int = 300, D: int = 24, nbits: int = 8, nsplits: int = 1) -> Codes:
    x = normal(N, D)
    x[N // 2 : N // 2 + 9] = x[:9]  # equal rows
    return ResidualQuantizer(m=3, nbits=nbits, nsplits=nsplits).fit_quietly(x).encode(x)


def few_of(codes: Codes, metric: SearchMetric, *, normalize: bool) -> Any:
    codec: Any = codes.codec
    return sums._few(codes.packed, codec.codebooks, codec._decode, metric, normalize=normalize)


def by_tables(codes: Codes, queries: Tensor, k: int, metric: SearchMetric) -> tuple[Tensor, Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sums, "_few", lambda *of_codes, normalize: None)
        patch.setattr(sums.SumsScorer, "_by_estimates", lambda self, k, taken: None)
        again = codes[:]
        return again.search(queries, k, metric)


def check(codes: Codes, queries: Tensor, k: int, metric: SearchMetric) -> None:
    few = few_of(codes, metric, normalize=metric == "cosine")
    assert few is not None and few.can_search(len(queries), k)
    found = searched(few, queries, len(queries), k, metric == "l2")
    assert found is not None
    expected = by_tables(codes, queries, k, metric)
    first, second = (codes.search(queries, k, metric) for _ in range(2))
    for values, ids in (found, first, second):
        assert torch.equal(values, expected[0])
        assert torch.equal(ids, expected[1])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("nsplits", [1, 2])
def test_the_same_bits_as_by_tables(metric: SearchMetric, nsplits: int):
    codes = fitted(nsplits=nsplits)
    for Q, k in ((1, 1), (3, 10), (7, 40), (40, 10)):
        check(codes, normal(Q, 24, seed=Q), k, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_entries_beside_the_middle_of_two_numbers(metric: SearchMetric):
    """Queries whose products with codewords are such that float64 rounds their sums to a middle."""
    codec: Any = fitted().codec
    words = torch.zeros_like(codec.codebooks)
    words[..., 0] = 1 + torch.arange(256) / 256
    words[:, ::2, :, 1], words[..., 2] = 2.0**-12, 2.0**-14
    x = normal(300, 24, seed=3)
    codes = codec._restore(codec._config(), {"codebooks": words.half()}).encode(x)
    queries = torch.zeros(4, 24)
    queries[:, 0], queries[:, 1] = 1, 2.0**-12
    queries[1, 2], queries[2, 2], queries[3, 0] = 2.0**-60, -(2.0**-60), -1
    expected = by_tables(codes, queries, 10, metric)
    for _ in range(3):
        found = codes.search(queries, 10, metric)
        assert torch.equal(found.values, expected[0]) and torch.equal(found.ids, expected[1])


def test_codes_that_change_in_place_are_searched_anew():
    codes = fitted()
    queries = normal(2, 24, seed=5)
    codes.search(queries, 5, "ip")
    codes.packed.data[:] = codes.packed.data.flip(0).clone()
    expected = Codes(codes.codec, codes.packed.data.clone()).search(queries, 5, "ip")
    found = codes.search(queries, 5, "ip")
    assert torch.equal(found.values, expected.values) and torch.equal(found.ids, expected.ids)


def test_codes_of_fewer_bits_and_many_rows_are_left_to_tables():
    for codes in (fitted(nbits=4), fitted(N=300, D=24)[:0]):
        assert few_of(codes, "ip", normalize=False) is None


def test_a_search_by_tables_answers_where_candidates_are_too_close():
    x = normal(1, 24).expand(400, -1) + 1e-7 * normal(400, 24)
    codes = fitted().codec.encode(x)
    queries = normal(3, 24, seed=1)
    expected = by_tables(codes, queries, 10, "ip")
    found = codes.search(queries, 10, "ip")
    assert torch.equal(found.values, expected[0]) and torch.equal(found.ids, expected[1])


# Many rows, by tables of float32 whose best are scored exactly


def scorer_of(codes: Codes, queries: Tensor, metric: SearchMetric, mask: Tensor | None = None) -> Any:
    return codes.codec._scorer(codes.packed, queries, metric, mask)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("nsplits", [1, 2])
def test_the_same_bits_by_estimates(metric: SearchMetric, nsplits: int):
    codes = fitted(3000, nsplits=nsplits)
    mask = torch.rand(len(codes), generator=torch.Generator().manual_seed(1)) < 0.3
    for allowed in (None, mask):
        for Q, k in ((1, 1), (3, 10), (40, 10), (5, 80)):
            scorer = scorer_of(codes, normal(Q, 24, seed=Q), metric, allowed)
            close = scorer._by_estimates(k, k + 40)
            assert close is not None and close[2] is None
            expected = scorer._best_by_tables(scorer._lut, k)
            assert torch.equal(close[0], expected[0]) and torch.equal(close[1], expected[1])


@pytest.mark.parametrize("metric", METRICS)
def test_no_score_is_above_its_ceiling(metric: SearchMetric):
    """Nor is a ceiling far above; and some scores are above the estimates alone."""
    codes = fitted(2000)
    scorer = scorer_of(codes, normal(50, 24, seed=1), metric)
    estimated, exact = (
        scorer._best_by_tables(lut, len(codes))
        for lut in (sums._estimated_tables(scorer._queries * scorer._factor, scorer._codebooks), scorer._lut)
    )
    by_row = [torch.zeros(50, len(codes)).scatter_(1, found[1], found[0]) for found in (estimated, exact)]
    above = by_row[1] - by_row[0]
    assert bool((above <= scorer._error()[:, None]).all()) and bool((above > 0).any())
    assert float(scorer._error().max()) < 1e-3 * float(exact[0].abs().max())


@pytest.mark.parametrize("metric", METRICS)
def test_entries_that_all_but_cancel(metric: SearchMetric):
    """Sums of products that float64 leaves few digits, or none, have the bits of exact tables."""
    codec: Any = fitted().codec
    words = normal(3 * 256, 24, seed=2).view(1, 3, 256, 24).half().float()
    words[0, 0, ::2, 1] = -words[0, 0, ::2, 0]  # with equal columns of the query, all that is left is small
    words[0, 0, ::2, 2:] *= 2.0**-12
    words[0, 1, ::3, :] = 0
    codes = codec._restore(codec._config(), {"codebooks": words.half()}).encode(normal(600, 24, seed=3))
    codes.packed.data[:, 0] = torch.arange(600).mul(2).remainder(256).byte()
    queries = normal(20, 24, seed=4)
    queries[:, 1] = queries[:, 0] * (1 + torch.arange(20) % 3 * 2.0**-22)
    queries[:4, 2:] = 0
    scorer = scorer_of(codes, queries, metric)
    close = scorer._by_estimates(10, 128)
    assert close is not None and close[2] is None
    expected = scorer._best_by_tables(scorer._lut, 10)
    assert torch.equal(close[0], expected[0]) and torch.equal(close[1], expected[1])


def test_what_no_entry_tells_is_left_to_exact_tables():
    """Sums in the middle of two numbers so small that the next one is not where it usually is."""
    codec: Any = fitted().codec
    words = torch.zeros(1, 3, 256, 24)
    words[..., 0] = (2 * torch.arange(256) + 1) * 2.0**-24
    codes = codec._restore(codec._config(), {"codebooks": words.half()}).encode(normal(600, 24, seed=3))
    queries = torch.zeros(2, 24)
    queries[:, 0] = 2.0**-126
    assert scorer_of(codes, queries, "ip")._by_estimates(10, 50) is None
    expected = by_tables(codes, queries, 10, "ip")
    found = codes.search(queries, 10, "ip")
    assert torch.equal(found.values, expected[0]) and torch.equal(found.ids, expected[1])


def test_bounds_follow_codes_that_change_in_place():
    """Rows of zeros become long ones: a bound of the errors that was kept would be far too small."""
    codec: Any = fitted().codec
    words = normal(3 * 256, 24, seed=2).view(1, 3, 256, 24).half()
    words[:, :, 0] = 0
    codes = codec._restore(codec._config(), {"codebooks": words}).encode(normal(600, 24, seed=3))
    kept = codes.packed.data.clone()
    codes.packed.data[:] = 0
    scorer = scorer_of(codes, normal(5, 24, seed=1), "ip")
    before = scorer._error().max()
    codes.packed.data[:] = kept
    assert float(before) < 1e-30 < float(scorer._error().min())
