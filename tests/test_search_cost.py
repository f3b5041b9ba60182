"""What a search costs a GPU beside its scans: few launches a chunk of queries, few waits a search."""

import math
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import gpuzip
from gpuzip import ProductQuantizer
from gpuzip._core.matmul import products_are_float32
from gpuzip.codecs import from_spec
from gpuzip.codecs.pq import Codebook
from gpuzip.search import exact as exact_search
from gpuzip.search import memory, run
from gpuzip.search.packed import Searched
from gpuzip.search.scorers import rounding, tables
from tests.pretence import a_gpu, watched

METRICS = ("l2", "ip", "cosine")
GB = 1 << 30


@pytest.fixture(scope="module")
def rows():
    return torch.randn(20_000, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def codes(rows):
    return ProductQuantizer(8, 4).fit(rows).encode(rows)


def cost(codes, queries, metric, chunks=1, monkeypatch=None, **arguments):
    """What is seen of a second search, in so many chunks; its answer is that of a CPU."""
    want = codes.search(queries, 10, metric, **arguments)
    step = -(-len(queries) // chunks)
    if monkeypatch is not None:
        monkeypatch.setattr(run, "at_once", lambda queries, fit: step)
    with a_gpu(is_capturing=False):
        codes.search(queries, 10, metric, **arguments)
        with watched(may_wait=True) as watch:
            got = codes.search(queries, 10, metric, **arguments)
    # A GPU rotates, and sums, otherwise: a distance is the difference of squares of lengths of about 16.
    torch.testing.assert_close(got[0], want[0], rtol=1e-5, atol=2.0**-21 * 16**2)
    assert float((got[1] == want[1]).double().mean()) > 0.98
    return watch


@pytest.mark.parametrize("metric", METRICS)
def test_few_launches_a_chunk(codes, rows, metric, monkeypatch):
    queries = rows[:64] + 0.1
    one = cost(codes, queries, metric, 1, monkeypatch)
    four = cost(codes, queries, metric, 4, monkeypatch)
    assert one.launches["gpuzip::product_scan"] == 1 and four.launches["gpuzip::product_scan"] == 4
    tables = 25 if metric == "l2" else 8  # sub-spaces have 8 dimensions
    assert (four.launched - one.launched) / 3 <= tables + (24 if metric == "l2" else 18)


@pytest.mark.parametrize("metric", METRICS)
def test_few_launches_of_one_query(codes, rows, metric):
    tables = 25 if metric == "l2" else 8
    assert cost(codes, rows[:1] + 0.1, metric).launched <= tables + 15


@pytest.mark.parametrize("spec", ["PQ8x4", "SQ8", "SQ4", "SQfp16", "Binary", "LloydMax2", "RaBitQ2", "RQ2x4"])
@pytest.mark.parametrize("chunks", [pytest.param(1, marks=pytest.mark.full), 4])
def test_waits_do_not_grow_with_the_chunks(rows, spec, chunks, monkeypatch):
    """One for whether the queries are finite, and one for which of them are unsure."""
    codes = from_spec(spec).fit(rows).encode(rows)
    monkeypatch.setattr(exact_search, "_unsure", nobody(exact_search._unsure))
    for metric in codes.codec.metrics:
        if metric != "hamming":
            assert len(cost(codes, rows[:64] + 0.1, metric, chunks, monkeypatch).waits) <= 2, metric


@pytest.mark.parametrize(
    "spec", ["PQ8x4", "PCA32,PQ8x4", "SQ8", "SQ4", "SQfp16", "Binary", "RaBitQ2", "RQ2x4"]
)
def test_candidates_are_gathered_for_a_few_queries_at_a_time(rows, spec, monkeypatch):
    """The answer is the same to the bit; the scan is of all queries."""
    codes = from_spec(spec).fit(rows).encode(rows)
    for metric in codes.codec.metrics:
        with a_gpu(is_capturing=False):
            want = codes.search(rows[:50] + 0.1, 10, metric)
            with monkeypatch.context() as patch, watched(may_wait=True) as watch:
                patch.setattr(exact_search, "CANDIDATE_BYTES", 1 << 20)
                got = codes.search(rows[:50] + 0.1, 10, metric)
        assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])
        scans, topks = (
            sum(count for name, count in watch.launches.items() if name.endswith(end))
            for end in ("_scan", "topk")
        )
        assert topks > scans + 2, metric


def nobody(plain):
    """As `_unsure`, which waits, but of queries that nothing is unsure of."""
    return lambda found: None if (unsure := plain(found)) is None else unsure[:0]


@pytest.mark.parametrize("kind", ["tensor", "half", "codes"])
@pytest.mark.parametrize("chunks", [1, 4])
def test_rescoring_adds_no_wait(codes, rows, kind, chunks, monkeypatch):
    store = {
        "tensor": rows,
        "half": rows.half(),
        "codes": from_spec("SQ8").fit(rows).encode(rows),
    }
    found = cost(codes, rows[:64] + 0.1, "ip", chunks, monkeypatch, rescore=store[kind])
    assert len(found.waits) <= 2


def test_rows_that_are_not_finite_are_refused_on_a_gpu(codes, rows):
    """Only those that are read, and after all chunks."""
    bad = rows.clone()
    best = int(codes.search(rows[5:6], 1, "ip")[1])
    bad[best, 3] = float("nan")
    with a_gpu(is_capturing=False):
        for metric in METRICS:
            with pytest.raises(gpuzip.GpuzipError, match=rf"Codes.search: row {best} holds NaN or inf"):
                codes.search(rows[:40], 5, metric, rescore=bad, candidates="ip")
        huge = rows.clone()
        huge[best] = 2.0**63
        with pytest.raises(gpuzip.GpuzipError, match="a value too large"):
            codes.search(rows[:40], 5, "ip", rescore=huge)
        bad = rows[:40].clone()
        bad[7, 0] = float("inf")
        with pytest.raises(gpuzip.GpuzipError, match=r"Codes.search: row 7 holds NaN or inf"):
            codes.search(bad, 5)


@pytest.mark.parametrize("metric", METRICS)
def test_all_that_are_unsure_are_searched_again_at_once(codes, rows, metric, monkeypatch):
    """A wait for a path, however many chunks; the answer is exact."""
    monkeypatch.setattr(tables, "error_of", lambda *arguments: 1e9)
    assert 2 <= len(cost(codes, rows[:64] + 0.1, metric, 4, monkeypatch).waits) <= 3


def test_chunks_of_a_gpu_are_whole_tiles():
    codec = ProductQuantizer(48, fitted=Codebook(torch.empty(48, 256, 8), 384))
    with FakeTensorMode():
        codes = gpuzip.Codes(codec, torch.empty(10**8, 48, dtype=torch.uint8))
    for k in (10, 100):
        plan = run.Plan(Searched(codes.codec, codes.packed), k, k, len(codes), "ip", "ip", None, None)
        with a_gpu(is_capturing=False, memory=80 * GB):
            assert memory.workspace(codes.device) == 2 * GB
            assert run._steps(plan, 10_000, k)[0] % 128 == 0
            for asked in (1024, 1000, 144):  # padded once, in one chunk
                step, again = run._steps(plan, asked, k)
                assert step == asked and again >= 128
        with a_gpu(is_capturing=False, memory=8 * GB):
            assert memory.workspace(codes.device) == GB // 2


@pytest.mark.parametrize(
    ("queries", "fit", "step"),
    [(1, 10, 1), (0, 10, 1), (144, 200, 144), (144, 130, 128), (1024, 280, 256), (1000, 700, 512)]
    + [(300, 290, 256), (100, 40, 32), (100, 17, 16), (40, 7, 4), (5, 0, 1), (3, 1, 1)],
)
def test_even_chunks(queries, fit, step):
    assert memory.at_once(queries, fit) == step


def test_what_is_kept_is_one_column_a_metric(codes, rows):
    """Norms, and what a metric makes of them; the rest is of the codec."""
    fresh = codes[:]
    for metric in METRICS:
        for Q in (1, 64):
            fresh.search(rows[:Q], 10, metric)
    known = fresh.packed._remembered
    columns = [
        t
        for t in fresh.packed._remembered.values()
        if isinstance(t, torch.Tensor) and t.numel() >= len(fresh)
    ]
    assert sorted(known)
    assert len(columns) <= 3 and all(t.numel() == len(fresh) for t in columns)


OLD, NEW = ("allow_tf32", True), ("fp32_precision", "tf32")
SETTINGS = [
    ("cuda", "cuda.matmul", *OLD),
    ("cuda", "cuda.matmul", *NEW),
    ("cuda", "", *NEW),
    ("cpu", "mkldnn.matmul", "fp32_precision", "bf16"),
    ("cpu", "mkldnn.matmul", *NEW),
    ("cpu", "", *NEW),
]


@pytest.fixture
def restored():
    backends: list[Any] = [
        torch.backends,
        torch.backends.cuda.matmul,
        getattr(torch.backends.mkldnn, "matmul", None),
    ]
    backends = [backend for backend in backends if hasattr(backend, "fp32_precision")]
    before = [backend.fp32_precision for backend in backends]
    for backend in backends[1:]:  # what another test set here would hide what the first one says
        backend.fp32_precision = "none"
    yield
    for backend, value in zip(backends, before, strict=True):
        backend.fp32_precision = value
    if not backends:
        torch.backends.cuda.matmul.allow_tf32 = False


@pytest.mark.parametrize(("device", "path", "name", "value"), SETTINGS)
def test_settings_of_torch_are_read_whichever_way_they_are_made(restored, rows, device, path, name, value):
    backend: Any = torch.backends
    for part in path.split(".") if path else ():
        backend = getattr(backend, part)
    if not hasattr(backend, name):
        pytest.skip("this torch has no such setting")
    assert products_are_float32(torch.device(device))
    codes = from_spec("SQfp16").fit(rows).encode(rows)
    want = codes.search(rows[:20], 10)
    setattr(backend, name, value)
    assert not products_are_float32(torch.device(device))
    got = codes.search(rows[:20], 10)
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1])


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_the_older_switch_of_torch_is_read(precision):
    try:
        torch.set_float32_matmul_precision(precision)
        assert not products_are_float32(torch.device("cuda"))
        assert not products_are_float32(torch.device("cpu"))
    finally:
        torch.set_float32_matmul_precision("highest")
    assert products_are_float32(torch.device("cpu"))


def test_a_loose_setting_widens_the_bound(codes, rows, monkeypatch):
    monkeypatch.setattr(tables, "_product_dtype", lambda device: torch.float32)
    hidden = []
    for exact in (True, False):
        monkeypatch.setattr(rounding, "products_are_float32", lambda device, exact=exact: exact)
        scorer = tables.ProductScorer(codes.packed, codes.codec.centroids, rows[:3], "ip")
        hidden.append(float(scorer.ceiling(torch.zeros(3, 1)).max()))
    assert math.log2(hidden[1] / hidden[0]) > 8
