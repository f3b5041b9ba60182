"""Codes that were searched before beside codes that were not: the same answers, bit for bit."""

import pickle

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

import gpuzip
from gpuzip import GpuzipError
from gpuzip._core.few import unit_rows
from gpuzip.loops import _shares, _vectors256
from gpuzip.loops._blocks import Scratch
from gpuzip.ops._dispatch import use_loops
from gpuzip.ops.rabitq_query import coefficients, sign_tables
from gpuzip.search import packed as packed_module
from gpuzip.search.prepared import Prepared, nothing

pytestmark = pytest.mark.skipif(not _vectors256.is_here(), reason="this CPU or numba has no AVX2")

D = 72

CODECS = {
    "pq4": gpuzip.ProductQuantizer(12, 4),
    "pq8": gpuzip.ProductQuantizer(12, 8),
    "pq6": gpuzip.ProductQuantizer(12, 6),
    "lloyd-max": gpuzip.LloydMaxQuantizer(4, rotation="hadamard"),
    "lloyd-max5": gpuzip.LloydMaxQuantizer(5),
    "scalar3": gpuzip.ScalarQuantizer(bits=3),
    "nibbles": gpuzip.ScalarQuantizer(bits=4),
    "int8": gpuzip.ScalarQuantizer(bits=8),
    "half": gpuzip.HalfQuantizer(),
    "brain": gpuzip.HalfQuantizer("bfloat16", rotation="hadamard"),
    "bits": gpuzip.BinaryQuantizer(levels="sign"),
    "turned bits": gpuzip.BinaryQuantizer(rotation="hadamard"),
    "normalized bits": gpuzip.BinaryQuantizer(rotation=gpuzip.Rotation("random", normalize=True)),
    "rabitq1": gpuzip.RaBitQuantizer(1),
    "rabitq3": gpuzip.RaBitQuantizer(3),
}


@pytest.fixture(scope="module")
def x():
    rows = torch.randn(1100, D, generator=torch.Generator().manual_seed(0))
    rows[:40], rows[77] = rows[40:80].clone(), 0
    return rows


@pytest.fixture(scope="module")
def made(x):
    known = {}

    def codes(name):
        if name not in known:
            codec = CODECS[name]
            fit = codec.fit_quietly if name.startswith("pq") else codec.fit
            known[name] = fit(x).encode(x)
        return again(known[name])

    return codes


def again(codes):
    """The same codes, never searched."""
    return gpuzip.Codes(codes.codec, codes.packed.raw, codes.dtype)


def searched(codes, metric):
    """Codes whose third search is prepared."""
    for _ in range(2):
        codes.search(codes.data[500:501] if metric == "hamming" else codes.rows([500]), 1, metric)
    return codes


def asked(Q):
    queries = torch.randn(max(1, Q), D, generator=torch.Generator().manual_seed(Q))
    return queries if Q else queries[0]


def same(found, want):
    return all(
        torch.equal(mine, other) and mine.dtype == other.dtype
        for mine, other in zip(found, want, strict=True)
    )


CASES = [(name, metric) for name in CODECS if name != "normalized bits" for metric in ("ip", "cosine", "l2")]


@pytest.mark.parametrize(("name", "metric"), CASES)
def test_the_same_as_a_first_search(made, name, metric):
    codes = searched(made(name), metric)
    ready = codes.packed.prepared[metric]
    assert isinstance(ready, Prepared)
    for Q in (0, 1, 3, 16):
        queries = asked(Q)
        for k in (1, 10, 200, 500, 1000):
            want = again(codes).search(queries, k, metric)
            assert same(codes.search(queries, k, metric), want)
            if Q < 3 and (found := ready(queries, k)) is not None:
                assert same(found, want)


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("half", "l2"),
        ("brain", "cosine"),
        ("pq4", "cosine"),
        ("pq6", "l2"),
        ("lloyd-max5", "cosine"),
        ("int8", "l2"),
        ("rabitq1", "ip"),
    ],
)
def test_one_call_answers_one_query(made, name, metric):
    codes = searched(made(name), metric)
    assert codes.packed.prepared[metric](asked(1), 10) is not None


@pytest.mark.parametrize("name", ["pq4", "pq8", "bits", "rabitq1", "rabitq3"])
def test_threads_share_queries(made, name, monkeypatch):
    """As many rows as threads would share: each takes some queries, and finds what one finds for all."""
    metric = "hamming" if name == "bits" else "ip"
    codes, queries, before, shares = searched(made(name), metric), asked(13), torch.get_num_threads(), []
    want = again(codes).search(queries, 10, metric)

    def counted(*given):
        shares.append(given)
        return _shares.in_shares(*given)

    for module in ("adc_few", "nibble_few", "hamming_few", "rabitq_few", "grid_few"):
        is_lone = "rows_of_a_block" if module == "grid_few" else "is_lone"
        monkeypatch.setattr(f"gpuzip.loops.{module}.{is_lone}", lambda *sizes: 0)
        monkeypatch.setattr(f"gpuzip.loops.{module}.in_shares", counted)
    torch.set_num_threads(3)
    try:
        assert same(codes.packed.prepared[metric](queries, 10), want) and len(shares) == 1
        assert same(codes.search(queries[:11], 10, metric), (part[:11] for part in want))
        assert len(shares) == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["bits", "turned bits", "normalized bits", "rabitq1", "rabitq3"])
def test_hamming_distances_from_codes_and_from_floats(made, name):
    codes = searched(made(name), "hamming")
    ready = codes.packed.prepared["hamming"]
    for Q in (0, 1, 3, 16):
        floats = asked(Q)
        for queries in (floats, codes.codec.encode(floats).data[:]) if Q else (floats,):
            for k in (1, 10, 1000):
                want = again(codes).search(queries, k, "hamming")
                found = ready(queries, k)
                assert found is not None
                assert same(found, want)
                assert same(codes.search(queries, k, "hamming"), want)
    query = asked(1)
    left = (
        query * float("nan"),
        query * 2.0**70,
        query[:, 1:],
        query.double(),
        codes.data[:][0],
        codes.data[:][:2, 1:],
    )
    assert all(ready(queries, 1) is None for queries in left)
    for queries in (*left[:3], left[5]):
        with pytest.raises(GpuzipError):
            codes.search(queries, 1, "hamming")


@pytest.mark.parametrize("codec", [gpuzip.LloydMaxQuantizer(5), gpuzip.HalfQuantizer()])
def test_rows_that_products_do_not_prove_are_searched_in_general(x, codec):
    rows = torch.cat([x[:600], x[400:401].repeat(100, 1)])
    codes = searched(codec.fit(x).encode(rows), "l2")
    assert codes.packed.prepared["l2"](x[:1], 10) is not None
    assert codes.packed.prepared["l2"](x[400], 10) is None
    assert codes.search(x[400], 10, "l2").ids.tolist() == [400, *range(600, 609)]


def test_rows_without_estimates_are_left_to_a_general_search(made, x):
    codes = searched(made("int8"), "l2")
    ready = codes.packed.prepared["l2"]
    bias = ready._choice(1, 10)._coding[-1]
    bias[100:] = np.nan
    assert ready(x[0], 10) is not None
    bias[5:] = np.nan
    assert ready(x[0], 10) is None


def test_what_one_call_leaves_to_a_general_search(made, x):
    codes = searched(made("pq4"), "ip")
    ready, query = codes.packed.prepared["ip"], x[:1]
    assert ready(query, 5) is not None
    left = {
        "an array": query.numpy(),
        "float64": query.double(),
        "a gradient": query.clone().requires_grad_(),
        "other columns": query[:, :-1],
        "not of one row of memory": x[:1, :1].expand(17, D),
        "NaN": query * float("nan"),
        "too large": query * 2.0**70,
        "no queries": query[:0],
        "a number": query[0, 0],
        "minus what is in memory": torch._neg_view(query),
        "blocks": query[None],
        "many": x[:17],
    }
    for name, queries in left.items():
        assert ready(queries, 5) is None, name
    for k in (0, -1, 1101, True, 5.0):
        assert ready(query, k) is None
    with use_loops(False):
        assert ready(query, 5) is None
    for name in ("other columns", "NaN", "too large", "a number", "blocks"):
        with pytest.raises(GpuzipError):
            codes.search(left[name], 5, "ip")


def test_columns_that_are_padded_are_searched_in_general(x):
    codes = gpuzip.ProductQuantizer(8, 4, pad=True).fit_quietly(x[:, :15]).encode(x[:, :15])
    for _ in range(3):
        codes.search(x[:1, :15], 3, "ip")
    assert codes.packed.prepared == {"ip": nothing}
    with pytest.raises(GpuzipError, match="15"):
        codes.search(x[:1, :16], 3, "ip")


@pytest.mark.parametrize("name", ["pq4", "half"])
@pytest.mark.parametrize("Q", [1, 17])
def test_codes_that_change_are_searched_as_they_are(made, x, name, Q):
    first = made(name)
    codes = searched(gpuzip.Codes(first.codec, first.packed.raw.clone()), "ip")
    codes.search(x[:Q], 5, "ip")
    codes.data[700:800] = codes.data[0]
    want = gpuzip.Codes(codes.codec, codes.data.clone())
    for _ in range(4):
        assert same(codes.search(x[:Q], 150, "ip"), want.search(x[:Q], 150, "ip"))


def test_searches_of_one_size_share_no_memory():
    """Codes of several kinds, whose loops take other arrays for the same numbers."""
    memory = Scratch()
    one, other = (lambda *key: ["one", *key]), (lambda *key: ["other", *key])
    assert memory.kept((1, 2), one) == ["one", 1, 2]
    assert memory.kept((1, 2), other) == ["other", 1, 2]
    assert memory.kept((1, 2), one) is memory.kept((1, 2), one)


def test_columns_are_made_by_the_second_search_and_not_kept_in_a_pickle(made, x):
    codes = made("rabitq1")
    codes.search(x[:1], 5, "ip")
    assert codes.packed._remembered["turned"][1] is None
    codes.search(x[:1], 5, "ip")
    kept = codes.packed._remembered["turned"][1]
    assert kept is not None
    assert len(kept) >= 1100 * 9
    other = pickle.loads(pickle.dumps(codes))
    assert "turned" not in other.packed._remembered
    assert other.packed.prepared == {}
    assert same(other.search(x[:1], 5, "ip"), codes.search(x[:1], 5, "ip"))


def test_codes_of_many_bytes_keep_no_columns(made, x, monkeypatch):
    monkeypatch.setattr(packed_module, "_MOST_TURNED", 1100 * 6 - 1)
    codes = searched(made("pq4"), "ip")
    assert codes.packed.turned([codes.data]) is None
    assert same(codes.search(x[:1], 5, "ip"), again(codes).search(x[:1], 5, "ip"))


def test_a_codec_without_such_a_search(x):
    codes = gpuzip.ResidualQuantizer(4, nbits=4).fit_quietly(x).encode(x)
    for _ in range(3):
        found = codes.search(x[:1], 3, "ip")
    assert codes.packed.prepared == {"ip": nothing}
    assert found.ids[0, 0] == (x[:1] @ x.T).argmax()


@pytest.mark.parametrize("metric", ["ip", "cosine", "l2"])
@pytest.mark.parametrize("reach", [0.0, 2.0])
def test_coefficients_of_loops_and_of_numpy(x, metric, reach):
    center = x.mean(0)
    found = coefficients(x[:9], center, metric, reach)
    with use_loops(False):
        want = coefficients(x[:9], center, metric, reach)
    assert found is not None
    assert want is not None
    for mine, other in zip(found, want, strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("bits", [1, 4])
@pytest.mark.parametrize("columns", [72, 69])
def test_tables_of_signs_of_loops_and_of_numpy(x, bits, columns):
    found = sign_tables(x[:3, :columns].contiguous(), 9, bits)
    with use_loops(False):
        assert torch.equal(found, sign_tables(x[:3, :columns].contiguous(), 9, bits))


def test_unit_rows():
    rows = np.array([[3, 4], [0, 0], [1e-30, 0], [2.0**61, 0]], np.float32)
    assert np.allclose(unit_rows(rows), np.array([[0.6, 0.8], [0, 0], [1, 0], [1, 0]]))
