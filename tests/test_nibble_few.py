"""Searches of few queries by tables of 16 entries in one compiled call, beside scans of the same codes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("numba")

from gpuzip.loops import _vectors256
from gpuzip.ops.adc import RowTerms
from gpuzip.ops.few import Few, adc_few, searched
from gpuzip.ops.lookup_tables import lookup_tables
from gpuzip.ops.one_pass import adc_topk, turned

pytestmark = pytest.mark.skipif(not _vectors256.is_here(), reason="this CPU or numba has no AVX2")


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def codes_of(N: int, B: int) -> Tensor:
    return torch.randint(256, (N, B), generator=drawn(N + B), dtype=torch.uint8)


def centroids_of(B: int, S: int = 2) -> Tensor:
    return torch.randn(S, 2 * B, 16, generator=drawn(B))


def few_of(
    codes: Tensor,
    centroids: Tensor,
    scale: Tensor | None = None,
    *,
    is_l2: bool = False,
    most: float = np.inf,
) -> Few:
    few = adc_few(codes, centroids, is_l2, scale, turned([codes]), most=most)
    assert few is not None
    return few


def check(
    codes: Tensor,
    centroids: Tensor,
    Q: int,
    k: int,
    scale: Tensor | None = None,
    kinds: Sequence[bool] = (False, True),
) -> None:
    """Values and rows are those of `adc_topk`, bit for bit."""
    queries = torch.randn(Q, centroids.shape[0] * centroids.shape[1], generator=drawn(Q))
    for is_l2 in kinds:
        few = few_of(codes, centroids, scale, is_l2=is_l2)
        assert few.can_search(Q, k)
        found = searched(few, queries, Q, k)
        assert found is not None
        terms = RowTerms(scale, None, None, None)
        want = adc_topk([codes], lookup_tables(queries, centroids, is_l2), k, terms)
        assert want is not None
        for mine, other in zip(found, want, strict=True):
            assert torch.equal(mine, other)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("N", [7, 33, 1000])
@pytest.mark.parametrize("B", [1, 5, 24])
@pytest.mark.parametrize("is_scaled", [False, True])
def test_the_same_as_a_scan(N: int, B: int, is_scaled: bool) -> None:
    scale = torch.rand(N, generator=drawn(N)) if is_scaled else None
    if scale is not None:
        scale[3] = 0
    for Q in (1, 4, 6, 18):
        for k in sorted({1, 5, min(N, 200), N}):
            check(codes_of(N, B), centroids_of(B), Q, k, scale)


def test_codes_whose_rows_lie_apart() -> None:
    check(codes_of(500, 9)[:, 2:8], centroids_of(6), 5, 70)


def test_rows_of_which_each_is_better_than_those_before() -> None:
    """All of them are candidates when they come, and have to leave later."""
    codes, centroids = codes_of(20_000, 8), centroids_of(8)
    queries = torch.randn(1, 32, generator=drawn(1))
    found = adc_topk(
        [codes], lookup_tables(queries, centroids, False), 20_000, RowTerms(None, None, None, None)
    )
    assert found is not None
    check(codes[found[1][0].flip(0)], centroids, 1, 5)


def test_bounds_that_are_so_wide_that_scores_make_room() -> None:
    """One table sets the step of all others, so that most rows are candidates until some are scored."""
    codes, centroids = codes_of(20_000, 200), centroids_of(200, 1)
    codes[:, 0], centroids[:, :2] = 0, centroids[:, :2] * 6
    with threads(1):
        check(codes, centroids, 2, 3, kinds=[False])


def test_factors_of_very_different_size() -> None:
    scale = torch.rand(3000, generator=drawn(0)) * 10.0 ** torch.arange(3000).remainder(9)
    check(codes_of(3000, 8), centroids_of(8), 4, 60, scale)


def test_too_many_equal_rows_are_left_to_a_general_search() -> None:
    codes = codes_of(1, 8).expand(20_000, 8).contiguous()
    assert searched(few_of(codes, centroids_of(8)), torch.ones(32), 1, 1) is None
    few = few_of(codes[:9000], centroids_of(8))
    found = searched(few, torch.ones(32), 1, 100)
    assert found is not None
    assert found[1][0].tolist() == list(range(100))


def test_threads_share_queries() -> None:
    codes, centroids = codes_of(50_000, 24), centroids_of(24)
    with threads(2):
        few = few_of(codes, centroids)
        assert not few.can_search(7, 10)  # whose rows threads share
        check(codes, centroids, 17, 10)


@pytest.mark.parametrize("bad", [-1.0, float("inf"), float("nan"), 2.0**-70])
def test_factors_for_which_bounds_do_not_hold(bad: float) -> None:
    scale = torch.ones(50)
    scale[20] = bad
    assert not few_of(codes_of(50, 4), centroids_of(4), scale).can_search(1, 1)


def test_what_is_not_sound() -> None:
    codes, centroids = codes_of(300, 4), centroids_of(4)
    few = few_of(codes, centroids, most=100.0)
    assert searched(few, torch.ones(16), 1, 3) is not None
    for value in (100, np.nan, np.inf):
        assert searched(few, torch.full((16,), float(value)), 1, 3) is None
    assert not few.can_search(1, 5000)
    for spoiled in (float("nan"), float("inf")):
        centroids[1, 3] = spoiled
        assert searched(few_of(codes, centroids), torch.ones(16), 1, 3) is None
    assert searched(few_of(codes, centroids * 0), torch.ones(16), 1, 3) is None
