"""A search over sharded codes is the search of one process: the same values, bit for bit, and ids."""

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gpuzip
from gpuzip.distributed.codec import packed
from tests.distributed import work
from tests.distributed.shards import Case, D, cases, rows_of

FEW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))

CODECS = {
    "pq": gpuzip.ProductQuantizer(m=4, nbits=4),
    "scalar": gpuzip.ScalarQuantizer(bits=8),
    "binary": gpuzip.BinaryQuantizer(),
    "rabitq": gpuzip.RaBitQuantizer(bits=2),
    "rotated": gpuzip.ProductQuantizer(m=4, nbits=4, rotation="pca"),
}


@cache
def fitted(name: str) -> Any:
    return CODECS[name].fit_quietly(rows_of(300, 1))


@st.composite
def searches(draw: Any, ranks: int, names: Any) -> Any:
    name = draw(st.sampled_from(names))
    codec, least = fitted(name), 64 if name == "scalar" else 1  # fewer rows are scored by tables
    metric = draw(st.sampled_from(codec.metrics))
    stored = metric != "hamming" and draw(st.booleans())
    queries = rows_of(draw(st.sampled_from([0, 1, 7])), draw(st.integers(0, 99)))
    return draw(cases(ranks, least)), codec, metric, draw(st.sampled_from([1, 5, 200])), stored, queries


def check_search(ranks: Any, drawn: Any) -> None:
    case, codec, metric, k, stored, queries = drawn
    if len(queries) and len(case.x):
        queries[0] = codec.encode(case.x[-1:]).decode()[0]  # of distance 0, and of many ties
    options = {"rescore": case.x, "rescore_multiplier": 2} if stored else {}
    codes = codec.encode(case.x)
    want = codes.search(queries, k, metric, case.mask, **options)
    arguments = [
        (packed(codec), x, queries, k, metric, {"mask": mask} | ({**options, "rescore": x} if stored else {}))
        for x, mask in zip(case.parts(), case.masks(), strict=True)
    ]
    for values, ids, _ in ranks.call(work.search, arguments):
        assert values.dtype == want.values.dtype and torch.equal(values, want.values)
        check_ids(ids, want, metric)


def check_ids(ids: Any, want: Any, metric: str) -> None:
    """The same, but that rows whose distance comes out at 0 or below come in the order of ids."""
    zero = want.values == 0 if metric == "l2" else torch.zeros_like(want.ids, dtype=torch.bool)
    assert torch.equal(ids[~zero], want.ids[~zero])
    for row, expected, at in zip(ids, want.ids, zero, strict=True):
        assert row[at].tolist() == sorted(expected[at].tolist())


@FEW
@given(searches(2, ["pq", "scalar", "binary"]))
def test_two_ranks_find_what_one_process_finds(two, drawn):
    check_search(two, drawn)


@pytest.mark.full
@pytest.mark.parametrize("ranks", [1, 2, 4])
@MANY
@given(data=st.data())
def test_ranks_find_what_one_process_finds(four, ranks, data):
    check_search(four, data.draw(searches(ranks, list(CODECS))))


def check_sharded(ranks: Any, sizes: list[int], stored: bool) -> None:
    """Each rank asks for itself; it gets what one process finds for its queries."""
    codec, x = fitted("pq"), rows_of(90, 5)
    parts = list(x.split([50, 40] if len(sizes) == 2 else [50, 0, 30, 10]))
    queries = [rows_of(n, 60 + n) for n in sizes]
    options: list[dict] = [{"rescore": part} if stored else {} for part in parts]
    found = ranks.call(
        work.search,
        [
            (packed(codec), part, own, 7, "ip", {"sharded_queries": True} | option)
            for part, own, option in zip(parts, queries, options, strict=True)
        ],
    )
    codes = codec.encode(x)
    for own, (values, ids, _) in zip(queries, found, strict=True):
        want = codes.search(own, 7, "ip", rescore=x if stored else None)
        assert torch.equal(values, want.values) and torch.equal(ids, want.ids)


@pytest.mark.parametrize("stored", [False, True])
def test_each_rank_asks_its_own_queries(two, stored):
    check_sharded(two, [3, 5], stored)
    check_sharded(two, [0, 4], stored)


@pytest.mark.full
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("sizes", [[1, 0, 0, 9], [4, 4, 4, 4], [0, 0, 0, 0]])
def test_four_ranks_ask_their_own_queries(four, sizes, stored):
    check_sharded(four, sizes, stored)


def test_among_equal_rows_the_lowest_id_comes_first(two):
    codec = fitted("scalar")
    case = Case(rows_of(1, 9).repeat(40, 1), None, [13, 27])
    arguments: list[tuple] = [(packed(codec), x, case.x[0], 40, "cosine", {}) for x in case.parts()]
    for values, ids, _ in two.call(work.search, arguments):
        assert ids.tolist() == list(range(40)) and values.shape == (40,)


@pytest.mark.parametrize("k", [1, 10])
def test_a_rank_receives_eight_bytes_per_query_row_and_other_rank(two, k):
    codec, counted = fitted("pq"), []
    for queries in (10, 30):
        arguments: list[tuple] = [
            (packed(codec), rows_of(50, n), rows_of(queries, 3), k, "l2", {}) for n in (1, 2)
        ]
        counted.append([received for _, _, received in two.call(work.search, arguments)])
    assert counted[1][0] - counted[0][0] == counted[1][1] - counted[0][1] == 20 * k * 8
    assert counted[0][0] < 10 * k * 8 + 200  # what the ranks agree on first


WRONG: dict[str, dict] = {
    "queries must have 16 columns": {"queries": torch.zeros(3, D + 1)},
    "k must be a whole number": {"k": 0},
    "mask must have shape": {"options": {"mask": torch.ones(3, dtype=torch.bool)}},
    "rescore must have 20 rows": {"options": {"rescore": torch.zeros(3, D)}},
    "holds NaN or inf": {"queries": torch.full((2, D), float("nan"))},
}


@pytest.mark.parametrize("match", WRONG)
def test_what_is_wrong_on_one_rank_is_an_error_on_all(two, match):
    names = ("codec", "x", "queries", "k", "metric", "options")
    right: dict[str, Any] = dict(
        zip(names, (packed(fitted("pq")), rows_of(20, 1), rows_of(3, 1), 2, "l2", {}), strict=True)
    )
    if "rescore" in match:
        right["options"] = {"rescore": right["x"]}
    wrong = right | WRONG[match]
    first, second = two.outcomes(work.search, [tuple(right.values()), tuple(wrong.values())])
    assert isinstance(second, gpuzip.GpuzipError) and match in str(second)
    assert isinstance(first, gpuzip.GpuzipError) and "rank 1 failed" in str(first) and match in str(first)


def test_what_differs_between_ranks_is_an_error_on_all(two):
    x, queries = rows_of(20, 1), rows_of(3, 1)
    same: tuple = (packed(fitted("pq")), x, queries, 2, "l2", {})
    for place, other, match in (
        (0, packed(fitted("scalar")), "codec must be the same"),
        (2, rows_of(3, 2), "queries must be the same"),
        (3, 5, "k, metric"),
        (4, "ip", "k, metric"),
    ):
        changed = (*same[:place], other, *same[place + 1 :])
        for outcome in two.outcomes(work.search, [same, changed]):
            assert isinstance(outcome, gpuzip.GpuzipError) and match in str(outcome)
