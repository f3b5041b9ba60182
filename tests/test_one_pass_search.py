"""Searches of codes in one pass beside those by scans: every kind of code, metric and way to ask."""

import sys
import tracemalloc
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from gpuzip import LloydMaxQuantizer, RaBitQuantizer, ScalarQuantizer
from gpuzip.codecs import from_spec
from gpuzip.ops import _here
from gpuzip.ops._dispatch import loops_of, use_loops
from gpuzip.ops.one_pass import reads_nibbles
from gpuzip.search import memory

pytestmark = pytest.mark.filterwarnings("ignore:.*should have at least:UserWarning")

CODECS = {
    "PQ24x4": lambda: from_spec("PQ24x4"),
    "PQ24": lambda: from_spec("PQ24"),
    "OPQ24,PQ24x4": lambda: from_spec("OPQ24,PQ24x4"),
    "RQ4x4": lambda: from_spec("RQ4x4"),
    "LloydMax1": lambda: from_spec("LloydMax1"),
    "LloydMax2": lambda: from_spec("LloydMax2"),
    "LloydMax4": lambda: from_spec("LloydMax4"),
    "LloydMax3": lambda: from_spec("LloydMax3"),
    "LloydMax5 per dim": lambda: LloydMaxQuantizer(5, per="dim"),
    "LloydMax6 of blocks": lambda: LloydMaxQuantizer(6, block_len=2, per=48),
    "LloydMax8": lambda: from_spec("LloydMax8"),
    "MixedLloydMax2": lambda: from_spec("MixedLloydMax2"),
    "scalar-3": lambda: ScalarQuantizer(3),
    "scalar-5-signed": lambda: ScalarQuantizer(5, symmetric=True, signed=True),
    "scalar-1": lambda: ScalarQuantizer(1),
    "scalar-2": lambda: ScalarQuantizer(2),
    "scalar-4": lambda: ScalarQuantizer(4),
    "scalar-4-signed": lambda: ScalarQuantizer(4, symmetric=True, signed=True),
    "scalar-8": lambda: ScalarQuantizer(8),
    "scalar-8-signed": lambda: ScalarQuantizer(8, symmetric=True, signed=True),
    "SQfp16": lambda: from_spec("SQfp16"),
    "SQbf16": lambda: from_spec("SQbf16"),
    "Binary": lambda: from_spec("Binary"),
    "RaBitQ": RaBitQuantizer,
    "RaBitQ4": lambda: RaBitQuantizer(4),
    "RaBitQ8": lambda: RaBitQuantizer(8),
}
BY_SCANS = {
    "PCA48,PQ24x4": lambda: from_spec("PCA48,PQ24x4"),
}
FAST = {"LloydMax3", "MixedLloydMax2", "RaBitQ8", "PQ24x4", "PQ24", "LloydMax2", "SQfp16", "scalar-4"}
FAST |= {"Binary", "RaBitQ4", "RQ4x4", "scalar-8"}
EACH = [
    pytest.param(name, marks=() if name in FAST else pytest.mark.full) for name in sorted(CODECS | BY_SCANS)
]
HAS_AVX2 = reads_nibbles(torch.device("cpu"))
N, D = 4200, 96  # fewer rows of 8-bit scalar codes are looked up in tables


@pytest.fixture(scope="module")
def rows(real):
    return real[:N, :D].contiguous()


@pytest.fixture(scope="module")
def queries(real_queries):
    return real_queries[:20, :D].contiguous()


@pytest.fixture(scope="module", params=EACH)
def named(request, rows):
    return request.param, (CODECS | BY_SCANS)[request.param]().fit(rows[:600], seed=0).encode(rows)


def check(monkeypatch, search):
    """It finds the same without one pass."""
    found = search()
    with monkeypatch.context() as patch:
        patch.setattr(_here, "may_search", lambda *arguments: False)
        check_same(found, search())


def check_same(found, want):
    for one, other in zip(found, want, strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


WAYS = [(Q, k, masked) for Q, k in ((1, 10), (20, 10), (1, 1000), (20, 1000)) for masked in (False, True)]


def test_the_same_answers_as_by_scans(named, rows, queries, monkeypatch):
    """To the bit: few and many queries and neighbours, with a mask, and with candidates that are rescored."""
    _, codes = named
    mask = torch.rand(N, generator=torch.Generator().manual_seed(0)) < 0.4
    for metric in codes.codec.metrics:
        for Q, k, masked in WAYS:
            allowed = mask if masked else None
            check(monkeypatch, partial(codes.search, queries[:Q], k, metric, mask=allowed))
        if metric != "hamming":
            for Q in (1, 20):
                check(monkeypatch, partial(codes.search, queries[:Q], 10, metric, rescore=rows))


def test_candidates_of_other_kinds(rows, queries, monkeypatch):
    for codec, kinds in (
        (RaBitQuantizer(4), ("plane", "bound", "hamming")),
        (CODECS["Binary"](), ("hamming",)),
    ):
        codes = codec.fit(rows).encode(rows)
        for kind in kinds:
            for Q in (1, 20):
                check(monkeypatch, partial(codes.search, queries[:Q], 10, rescore=rows, candidates=kind))


def test_a_single_query_and_more_neighbours_than_are_allowed(rows, queries, monkeypatch):
    codes = CODECS["PQ24x4"]().fit(rows).encode(rows)
    mask = torch.zeros(N, dtype=torch.bool)
    mask[[5, N - 1]] = True
    for allowed in (None, mask, ~mask):
        for k in (1, 10, N, N + 1):
            check(monkeypatch, partial(codes.search, queries[0], k, mask=allowed))


def test_one_pass_is_taken_where_it_is_said_to_be(named, queries):
    """With AVX2: by every metric of these codecs, and by none of the others."""
    if not HAS_AVX2:
        pytest.skip("this CPU or numba has no AVX2")
    name, codes = named
    if name == "PQ24" and not loops_of("adc_topk").bytes_pay(1, 10_000):
        pytest.skip("this CPU looks up whole bytes faster")
    for metric in codes.codec.metrics:
        found = codes.codec.scorer(codes.packed, queries[:1], metric).one_pass(10)
        left_out = name in BY_SCANS and not (name.startswith("PCA") and metric == "ip")
        assert (found is None) == left_out, metric


def test_plain_torch_finds_the_same(named, queries):
    """To the bit, where a codec says so; else values within rounding, and ids of such scores."""
    _, codes = named
    for metric in codes.codec.metrics:
        if codes.codec.searches_alike:
            for Q, k in ((1, 10), (20, 1000)):
                found = codes.search(queries[:Q], k, metric)
                with use_loops(False):
                    check_same(codes.search(queries[:Q], k, metric), found)
            continue
        values, ids = codes.search(queries, N, metric)
        with use_loops(False):
            plain, plain_ids = codes.search(queries, 20, metric)
        torch.testing.assert_close(plain, values[:, :20], rtol=1e-5, atol=1e-5)
        by_id = torch.empty_like(values).scatter_(1, ids, values)
        torch.testing.assert_close(plain, by_id.gather(1, plain_ids), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["PQ24x4", "Binary"])
def test_many_neighbours_take_no_more_than_the_workspace(name, rows, queries, monkeypatch):
    """Beside the answer, 12 bytes per neighbour: queries go one by one where more would not fit."""
    codes = CODECS[name]().fit(rows[:600], seed=0).encode(rows[:600].repeat(100, 1))
    monkeypatch.setattr(memory, "WORKSPACE", 40 * len(codes))
    codes.search(queries[:16], len(codes))
    tracemalloc.start()  # of numpy's arrays
    try:
        codes.search(queries[:16], len(codes))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (16 * 12 + 40) * len(codes)


def test_threads_keep_no_more_than_the_rows(monkeypatch):
    blocks = pytest.importorskip("gpuzip.loops._blocks")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    for k in (1, 10, 1000, 10**5, 10**6):
        count = -(-(10**6) // blocks.rows_of_a_block(10**6, 10**4, k))
        assert count == max(1, min(64, 10**6 // (4 * k)))


def test_without_avx2_nothing_is_compiled_that_needs_it(rows, queries, monkeypatch):
    """LLVM would end the process."""
    names = [f"gpuzip.loops.{name}" for name in ("adc_topk", "adc_few", "nibble_few", "hamming_topk")]
    monkeypatch.setattr(loops_of("_vectors256"), "is_here", lambda: False)
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in ("PQ24", "PQ24x4", "Binary", "scalar-4"):
        codes = CODECS[name]().fit(rows[:600], seed=0).encode(rows)
        for metric in codes.codec.metrics:
            check_same(codes.search(queries, 10, metric), codes[:].search(queries, 10, metric))
    assert not set(names) & set(sys.modules)


# How much work is left


def summed_exactly(codes, tables, k, K):
    """How many rows of (N, M) codes are above the bound when they come, and sums of all."""
    loop = loops_of("adc_topk")
    M = len(tables)
    luts, lines = np.zeros((M + M % 2) * K, np.uint8), np.empty((1, 3))
    loop.round_tables(tables.reshape(-1), M, K, min(127, 65535 // (2 * M)), luts, lines)
    low, step, room = lines[0]
    rounded = luts.reshape(-1, K)[np.arange(M), codes].sum(1, dtype=np.int64)
    sums = tables[np.arange(M), codes].sum(1, dtype=np.float64)
    bounds = low + step * rounded + room
    assert (bounds >= sums).all()
    best: list[float] = []
    count, limit = 0, -np.inf
    for bound, score in zip(bounds, sums, strict=True):
        if bound > limit:
            count += 1
            best = sorted([*best, score])[-k:]
            limit = best[0] if len(best) == k else limit
    return count


@pytest.mark.parametrize("name", ["PQ24x4", "PQ24", "LloydMax4"])
def test_few_rows_are_summed_exactly(name, real, queries):
    """So a search costs its sums of bytes: of 20,000 rows some hundreds are looked up in float tables."""
    if not HAS_AVX2:
        pytest.skip("this CPU or numba has no AVX2")
    g = torch.Generator().manual_seed(0)
    some = real[torch.arange(20_000) % len(real), :D]
    x = some + 0.3 / D**0.5 * torch.randn(some.shape, generator=g)
    codes = CODECS[name]().fit(x[:1500], seed=0).encode(x)
    scorer: Any = codes.codec.scorer(codes.packed, queries, "ip")
    lut, data = scorer._lut.numpy(), codes.data.numpy()
    K = lut.shape[2]
    labels = np.stack([data % 16, data // 16], 2).reshape(len(data), -1) if K == 16 else data
    counts = [summed_exactly(labels, tables, 10, K) for tables in lut[:5]]
    assert max(counts) <= 500
