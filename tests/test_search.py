"""Search is exact: whatever path it takes, values and ids are those of scoring every decoded row."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gpuzip
from gpuzip._core.device import is_capturing
from gpuzip.codecs.pq import Codebook
from gpuzip.ops import OPS, _here
from gpuzip.search import exact as search
from gpuzip.search.memory import group_size
from gpuzip.search.scorers import rounding, tables

METRICS = ["l2", "ip", "cosine"]


def brute_force(codes, queries, k, metric):
    """All scores in float64, best first, the lowest id first among equals."""
    rows, queries = codes.decode(torch.float64), queries.double()
    if metric == "cosine":
        rows, queries = (x / x.norm(dim=1, keepdim=True).clamp(min=1e-300) for x in (rows, queries))
    scores = queries @ rows.T
    if metric == "l2":
        scores = (queries[:, None] - rows).square().sum(-1)
    order = scores.sort(dim=1, descending=metric != "l2", stable=True)
    return order.values[:, :k], order.indices[:, :k]


def check(codes, queries, k, metric):
    values, ids = codes.search(queries, k, metric)
    want, want_ids = brute_force(codes, queries, k, metric)
    torch.testing.assert_close(values.double(), want, rtol=1e-5, atol=2e-6)
    assert all(len(set(row)) == len(row) for row in ids.tolist())
    differ = ids != want_ids  # allowed where float32 cannot tell two scores apart
    assert float(differ.double().mean()) <= 0.02
    return values, ids


@pytest.fixture(scope="module")
def codes(real):
    return gpuzip.ProductQuantizer(48, 8).fit(real[:3000], n_iter=4, min_points_per_centroid=1).encode(real)


@pytest.fixture(scope="module")
def small_codes(real):
    """4 bits, 30 rows of which repeat: many ties."""
    return gpuzip.compress(torch.cat([real[:700], real[:30]]), 48)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("Q", [1, 5, pytest.param(150, marks=pytest.mark.full)])
@pytest.mark.parametrize("k", [1, 10, 400])
def test_against_scoring_every_row(codes, real_queries, metric, Q, k):
    check(codes, real_queries[:Q], k, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_every_row_can_be_asked_for(small_codes, real_queries, metric):
    values, ids = small_codes.search(real_queries[:3], 730, metric)
    assert ids.sort(1).values.tolist() == [list(range(730))] * 3
    assert torch.equal(values, values.sort(1, descending=metric != "l2").values)


@pytest.mark.parametrize("metric", METRICS)
def test_the_lowest_id_wins_a_tie(small_codes, metric):
    """Row 700 + i is row i again."""
    _, ids = small_codes.search(small_codes.decode()[:30], 730, metric)
    place = torch.empty_like(ids).scatter_(1, ids, torch.arange(730).expand(30, -1).contiguous())
    assert bool((place[:, :30] + 1 == place[:, 700:]).all())


@pytest.mark.parametrize("Q", [3, 150])
@pytest.mark.parametrize("metric", METRICS)
def test_nothing_but_ties(codes, real_queries, metric, Q):
    same = codes[torch.zeros(9000, dtype=torch.int64)]
    values, ids = same.search(real_queries[:Q], 7, metric)
    assert ids.tolist() == [list(range(7))] * Q
    assert bool((values == values[:, :1]).all())


@pytest.mark.parametrize("metric", METRICS)
def test_both_paths_give_the_same_answer_to_the_bit(codes, real_queries, metric, monkeypatch):
    monkeypatch.setattr(tables, "_many_queries", lambda device: 1)
    values, ids = codes.search(real_queries, 10, metric)
    assert type(codes.codec.scorer(codes.packed, real_queries, metric)) is tables.ProductScorer
    monkeypatch.setattr(tables, "_many_queries", lambda device: 10**9)
    assert type(codes.codec.scorer(codes.packed, real_queries, metric)) is tables.LutScorer
    by_tables = codes.search(real_queries, 10, metric)
    assert torch.equal(values, by_tables[0])
    assert torch.equal(ids, by_tables[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("metric", METRICS)
def test_no_key_is_above_its_ceiling(codes, real_queries, metric, dtype, monkeypatch):
    monkeypatch.setattr(tables, "_product_dtype", lambda device: dtype)
    monkeypatch.setattr(tables, "_many_queries", lambda device: 1)
    fast = codes.codec.scorer(codes.packed, real_queries[:200], metric)
    ceiling, exact = fast.ceiling(fast.group_max(1)), fast.exact().group_max(1)
    assert bool((exact <= ceiling).all())
    assert float((ceiling - exact).max()) < 0.1 * float(exact.abs().max())  # nor is it far above


@pytest.mark.parametrize("metric", METRICS)
def test_a_bound_of_rounding_is_needed(codes, real_queries, metric, monkeypatch):
    """The estimates alone, scaled back, are no ceilings."""
    monkeypatch.setattr(tables, "_product_dtype", lambda device: torch.bfloat16)
    monkeypatch.setattr(tables, "_many_queries", lambda device: 1)
    monkeypatch.setattr(tables, "error_of", lambda *arguments: 0.0)
    fast = codes.codec.scorer(codes.packed, real_queries[:200], metric)
    assert bool((fast.exact().group_max(1) > fast.ceiling(fast.group_max(1))).any())


def test_unsure_queries_are_searched_again(codes, real_queries, monkeypatch):
    """With a ceiling that no candidate can beat, every query takes the exact path and nothing changes."""
    monkeypatch.setattr(tables, "_many_queries", lambda device: 1)
    want = codes.search(real_queries, 10, "ip")
    again, plain = [], tables.ProductScorer.exact

    def counted(self, queries=None):
        again.append(self.Q)
        return plain(self, queries)

    monkeypatch.setattr(tables.ProductScorer, "ceiling", lambda self, estimate: estimate + 1e9)
    monkeypatch.setattr(tables.ProductScorer, "exact", counted)
    values, ids = codes.search(real_queries, 10, "ip")
    assert sum(again) == len(real_queries)
    assert torch.equal(values, want[0])
    assert torch.equal(ids, want[1])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("workspace", [1, 1 << 23])
def test_an_answer_does_not_depend_on_the_other_queries(codes, real_queries, workspace, metric, monkeypatch):
    """A small workspace cuts the queries into other chunks, down to one at a time."""
    want = codes.search(real_queries[:199], 10, metric)
    monkeypatch.setattr("gpuzip.search.memory.WORKSPACE", workspace)
    got = codes.search(real_queries[:199], 10, metric)
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1])


def test_no_call_makes_a_score_for_every_row_and_query(codes, real_queries, monkeypatch):
    """Scans give group extrema; the largest thing they return is far smaller than Q x N."""
    sizes = []

    def measured(op):
        def call(*args):
            sizes.append((result := op(*args)).numel())
            return result

        return call

    monkeypatch.setattr(_here, "may_search", lambda *arguments: False)
    for name in ("adc_scan", "adc_gather"):
        monkeypatch.setattr(tables, name, measured(getattr(tables, name)))
    codes.search(real_queries[:50], 10, "ip")
    assert len(sizes) == 2
    assert max(sizes) < 0.25 * 50 * len(codes)


def test_one_query_gives_one_row_of_results(codes, real_queries):
    values, ids = codes.search(real_queries[0], 5)
    assert values.shape == ids.shape == (5,)
    assert torch.equal(ids, codes.search(real_queries[:1], 5)[1][0])


def test_numpy_and_half_queries(codes, real_queries):
    want = codes.search(real_queries[:4], 5)
    assert torch.equal(codes.search(real_queries[:4].numpy(), 5)[1], want[1])
    torch.testing.assert_close(codes.search(real_queries[:4].half(), 5)[0], want[0], rtol=0, atol=1e-3)


def test_no_queries(codes):
    values, ids = codes.search(torch.zeros(0, 384), 5)
    assert values.shape == ids.shape == (0, 5)


def test_zero_vectors_have_cosine_zero():
    codec = gpuzip.ProductQuantizer(2, 1, fitted=Codebook(torch.tensor([[[0.0], [1.0]], [[0.0], [1.0]]]), 2))
    codes = codec.encode(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    assert codes.search(torch.tensor([[0.0, 0.0], [2.0, 0.0]]), 2, "cosine")[0].tolist() == [[0, 0], [1, 0]]


def test_a_row_finds_itself_at_distance_zero(codes):
    values, ids = codes.search(codes.decode()[:50], 1, "l2")
    torch.testing.assert_close(values, torch.zeros(50, 1), rtol=0, atol=1e-12)
    assert torch.equal(codes.data[ids[:, 0]], codes.data[:50])


def test_defaults_are_ten_by_cosine(codes, real_queries):
    values, ids = codes.search(real_queries[:3])
    want = codes.search(real_queries[:3], 10, "cosine")
    assert torch.equal(values, want[0])
    assert torch.equal(ids, want[1])


def test_recall_on_real_text_is_that_of_float_search_on_decoded_rows(codes, real, real_queries):
    truth = (real_queries @ real.T).topk(10).indices
    ids = codes.search(real_queries, 10, "ip")[1]
    decoded = (real_queries @ codes.decode().T).topk(10).indices
    assert gpuzip.recall(ids, truth) == pytest.approx(gpuzip.recall(decoded, truth), abs=0.002)
    assert gpuzip.recall(ids, truth) > 0.65


@settings(max_examples=60, deadline=None)
@given(
    N=st.integers(1, 3000),
    Q=st.integers(1, 4),
    nbits=st.integers(1, 9),
    M=st.integers(1, 6),
    k=st.integers(1, 40),
    metric=st.sampled_from(METRICS),
    seed=st.integers(0, 99),
)
def test_any_shape(N, Q, nbits, M, k, metric, seed):
    """Centroids on a coarse grid: sums are exact in float32, so ties are true ties and ids must be equal."""
    g = torch.Generator().manual_seed(seed)
    centroids = torch.randint(-4, 5, (M, 1 << nbits, 2), generator=g).float()
    data = torch.randint(0, 256, (N, (M * nbits + 7) // 8), generator=g).byte()
    codes = gpuzip.Codes(gpuzip.ProductQuantizer(M, nbits, fitted=Codebook(centroids, 2 * M)), data)
    queries = torch.randint(-3, 4, (Q, 2 * M), generator=g).float()
    values, ids = codes.search(queries, k, metric)
    want, want_ids = brute_force(codes, queries, k, metric)
    torch.testing.assert_close(values.double(), want, rtol=1e-5, atol=1e-6)
    if metric != "cosine":
        assert torch.equal(ids, want_ids)


@settings(max_examples=60, deadline=None)
@given(
    N=st.integers(1, 9000),
    k=st.integers(1, 300),
    seed=st.integers(0, 99),
    levels=st.sampled_from([1, 2, 50, 10**6]),
)
def test_topk_of_any_shape(N, k, seed, levels):
    scores = torch.randint(-levels, levels + 1, (2, N), generator=torch.Generator().manual_seed(seed)).float()
    k = min(k, N)
    for got, want in zip(OPS["topk"].cpu(scores, k), OPS["topk"].reference(scores, k), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize(
    ("N", "k", "group"), [(10, 1, 2), (1000, 1, 16), (10**6, 10, 128), (10**9, 10, 1024), (50, 50, 1)]
)
def test_group_size(N, k, group):
    assert group_size(N, k) == group


def brute_force_masked(codes, queries, k, metric, mask):
    allowed = mask.nonzero().view(-1)
    values, ids = brute_force(codes[allowed], queries, k, metric)
    return values, allowed[ids]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("Q", [3, 150])
@pytest.mark.parametrize(
    "allowed", [0, 9, 4000, *(pytest.param(n, marks=pytest.mark.full) for n in (1, 10, 11))]
)
def test_masked_search_finds_the_best_of_the_allowed_rows(codes, real_queries, metric, Q, allowed):
    """Fewer allowed rows than k, as many, more; rows apart, so that most groups have none."""
    ids = torch.randperm(len(codes), generator=torch.Generator().manual_seed(allowed))[:allowed]
    mask = torch.zeros(len(codes), dtype=torch.bool)
    mask[ids] = True
    values, ids = codes.search(real_queries[:Q], 10, metric, mask)
    k = min(10, allowed)
    assert values.shape == ids.shape == (Q, k)
    assert bool(mask[ids].all())
    want, want_ids = brute_force_masked(codes, real_queries[:Q], k, metric, mask)
    torch.testing.assert_close(values.double(), want, rtol=1e-5, atol=2e-6)
    assert k == 0 or float((ids != want_ids).double().mean()) <= 0.02


@pytest.mark.parametrize("Q", [3, 150])
def test_whole_groups_masked_ties_and_all_allowed(codes, real_queries, Q):
    same = codes[torch.zeros(9000, dtype=torch.int64)]
    mask = torch.arange(9000) >= 5001  # whole groups, and part of one
    ids = same.search(real_queries[:Q], 7, "ip", mask)[1]
    assert ids.tolist() == [list(range(5001, 5008))] * Q
    everything = torch.ones(9000, dtype=torch.bool)
    plain = codes.search(real_queries[:Q], 7, "l2")
    for got, want in zip(
        codes.search(real_queries[:Q], 7, "l2", everything[: len(codes)]), plain, strict=True
    ):
        assert torch.equal(got, want)


def test_few_allowed_rows_are_no_reason_to_search_again(codes, real_queries, monkeypatch):
    """A group without allowed rows has the ceiling -inf, not NaN, which nothing is above."""
    monkeypatch.setattr(tables.ProductScorer, "exact", lambda self, queries: pytest.fail("searched again"))
    mask = torch.zeros(len(codes), dtype=torch.bool)
    mask[:: len(codes) // 12] = True
    ids = codes.search(real_queries[:150], 10, "ip", mask)[1]
    assert bool(mask[ids].all())


def test_a_mask_as_an_array_and_for_one_query(codes, real_queries):
    mask = torch.arange(len(codes)) % 3 == 0
    want = codes.search(real_queries[:1], 5, "cosine", mask)
    values, ids = codes.search(real_queries[0], 5, "cosine", mask.numpy())
    assert torch.equal(values, want[0][0])
    assert torch.equal(ids, want[1][0])


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ([True] * 730, gpuzip.DtypeError, "mask must be a torch tensor or numpy array; got list"),
        (torch.ones(730), gpuzip.DtypeError, "mask must be bool.*; got float32"),
        (torch.ones(730).numpy(), gpuzip.DtypeError, "mask must be bool.*; got float32"),
        (torch.ones(729, dtype=torch.bool), gpuzip.GpuzipError, r"shape \(730,\), one per row; got \(729,\)"),
        (
            torch.ones(730, 1, dtype=torch.bool),
            gpuzip.GpuzipError,
            r"shape \(730,\), one per row; got \(730, 1\)",
        ),
        (
            torch.ones(730, dtype=torch.bool, device="meta"),
            gpuzip.GpuzipError,
            "mask must be on cpu like the codes; got meta",
        ),
    ],
)
def test_a_wrong_mask_is_refused(small_codes, real_queries, mask, error, message):
    with pytest.raises(error, match=f"Codes.search: .*{message}"):
        small_codes.search(real_queries[:1], 5, "ip", mask)


@pytest.fixture
def capturing(monkeypatch):
    """Tensors that hold nothing, where asking one for a value raises, while a graph is said to be recorded.

    They say that they are on the CPU: a build of torch without CUDA makes no others.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    for module in ("gpuzip.search.packed", "gpuzip.search.scorers.tables"):
        monkeypatch.setattr(f"{module}.is_capturing", lambda device: True)
    with FakeTensorMode():
        yield monkeypatch


def primed(codes, monkeypatch):
    """With what a first search learns of codes and codec, which it waits for."""
    product = rounding.Product(codes.codec.centroids, 1.0, 0.0, 2.0**-24, 2.0**-24, 1.0)
    monkeypatch.setattr(tables, "product_of", lambda *arguments: product)
    codes.packed._remembered.update({"longest": 1.0, "largest inverse norm": 1.0})


def fake_codes(N=100_000, nbits=8):
    codec = gpuzip.ProductQuantizer(48, nbits, fitted=Codebook(torch.empty(48, 1 << nbits, 8), 384))
    return gpuzip.Codes(codec, torch.empty(N, 6 * nbits, dtype=torch.uint8))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("Q", [1, 200])
@pytest.mark.parametrize("masked", [False, True])
def test_a_cuda_graph_can_record_a_search(capturing, metric, Q, masked):
    codes = fake_codes()
    queries = torch.empty(Q, 384)
    mask = torch.empty(len(codes), dtype=torch.bool) if masked else None
    scorer = codes.codec.scorer(codes.packed, queries, metric, mask)
    values, ids = search.best(scorer, 10)
    assert values.shape == ids.shape == (Q, 10)
    assert codes.packed._remembered == {}  # norms made under capture are the graph's memory


def test_a_search_that_waits_for_the_gpu_is_seen(capturing):
    """The test above fails where it should: not under capture, a search asks which queries are unsure."""
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

    for module in ("gpuzip.search.packed", "gpuzip.search.scorers.tables"):
        capturing.setattr(f"{module}.is_capturing", lambda device: False)
    capturing.setattr(tables, "_many_queries", lambda device: 1)
    codes = fake_codes()
    primed(codes, capturing)
    scorer = codes.codec.scorer(codes.packed, torch.empty(200, 384), "ip")
    assert type(scorer) is tables.ProductScorer
    with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        search.best(scorer, 10)
    assert codes.norms is codes.norms


@pytest.mark.parametrize("is_recording", [False, True])
def test_only_a_gpu_is_asked_whether_it_records(monkeypatch, is_recording):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: is_recording)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert is_capturing(torch.device("cuda")) is is_recording
    assert is_capturing(torch.device("cpu")) is False


def test_places_that_no_row_takes_say_so_under_capture(codes, real_queries, monkeypatch):
    monkeypatch.setattr("gpuzip.search.run.is_capturing", lambda device: True)
    mask = torch.arange(len(codes)) < 3
    for metric, worst in (("l2", float("inf")), ("ip", float("-inf"))):
        values, ids = codes.search(real_queries[:5], 10, metric, mask)
        assert ids[:, :3].sort(1).values.tolist() == [[0, 1, 2]] * 5
        assert bool((ids[:, 3:] == -1).all())
        assert bool((values[:, 3:] == worst).all())
