"""Searches of many queries by codes of one byte in one call, beside searches of few by a longer way."""

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from gpuzip import GpuzipError, ScalarQuantizer
from gpuzip.ops import few
from gpuzip.ops._dispatch import loops_of, use_loops
from gpuzip.search.scorers import scalar

pytestmark = pytest.mark.skipif(
    not loops_of("_query_lanes").is_here(), reason="this CPU or numba has no AVX-512 VNNI"
)


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _lanes_for_any_number_of_queries(monkeypatch):
    monkeypatch.setattr(loops_of("scalar_topk"), "fastest_of_many", lambda: "lanes")


def drawn(rows, D, seed):
    return torch.randn(rows, D, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def proven(monkeypatch):
    """A list that grows by whether each search in one call found the answer."""
    found, search = [], few.searched

    def watched(*args):
        answer = search(*args)
        found.append(answer is not None)
        return answer

    monkeypatch.setattr(scalar, "searched", watched)
    return found


@pytest.mark.parametrize("metric", ["ip", "l2", "cosine"])
@pytest.mark.parametrize(("Q", "D"), [(17, 33), (64, 64), (100, 31), (300, 20)])
def test_many_queries_find_what_each_of_few_finds(threads, proven, metric, Q, D):
    codes, queries = ScalarQuantizer(8).fit(drawn(900, D, 1)).encode(drawn(900, D, 1)), drawn(Q, D, 2)
    every = torch.ones(900, dtype=torch.bool)  # a mask is left to another search
    for k in (1, 10, 300):
        found = codes.search(queries, k, metric)
        assert proven.pop()
        parts = [codes.search(some, k, metric, mask=every) for some in queries.split(3)]
        for mine, others in zip(found, zip(*parts, strict=True), strict=True):
            assert torch.equal(mine, torch.cat(others))


def test_equal_rows_are_left_to_a_search_that_proves_them(threads, proven):
    """Whose estimates cannot tell which are the best."""
    rows = drawn(8, 24, 1)[torch.arange(800) % 8]
    codes, queries = ScalarQuantizer(8).fit(rows).encode(rows), drawn(70, 24, 2)
    found = codes.search(queries, 5, "ip")
    assert not any(proven)
    with use_loops(False):
        expected = codes.search(queries, 5, "ip")
    assert torch.equal(found.ids, expected.ids)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_queries_that_are_no_numbers_are_refused(value):
    rows = drawn(300, 16, 1)
    codes, queries = ScalarQuantizer(8).fit(rows).encode(rows), drawn(40, 16, 2)
    queries[39, 3] = value
    with pytest.raises(GpuzipError, match="row 39 holds NaN or inf"):
        codes.search(queries, 3, "ip")
