"""ScalarQuantizer against plain loops, FAISS, exact search, and the ranges it is asked for."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from gpuzip import GpuzipError, ScalarQuantizer, recall
from gpuzip._core.checks import SearchMetric
from gpuzip.search import exact as exact_search
from gpuzip.search import run
from gpuzip.search.scorer import Exhaustive
from gpuzip.search.scorers.scalar import ScalarScorer

METRICS: list[SearchMetric] = ["l2", "ip", "cosine"]


def exact(x: Tensor, q: Tensor, k: int) -> Tensor:
    x, q = (torch.nn.functional.normalize(t.double()) for t in (x, q))
    return (q @ x.T).topk(k).indices


def mse(codec: ScalarQuantizer, x: Tensor) -> float:
    quality = codec.fit(x).encode(x).quality(x)
    assert quality is not None
    return quality.mse


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("per", ["dim", "tensor"])
def test_by_loops(bits, per):
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(bits))
    codec = ScalarQuantizer(bits=bits, per=per).fit(x)
    codes = codec.encode(x)
    decoded = codes.decode()
    assert codes.data.shape[1] == -(-3 * bits // 8)
    for d in range(3):
        column = x[:, d] if per == "dim" else x
        low, high = column.min().item(), column.max().item()
        width = (high - low) / 2**bits
        for n in range(50):
            cell = min(int((x[n, d].item() - low) / width), 2**bits - 1)
            assert decoded[n, d].item() == pytest.approx(low + (cell + 0.5) * width, abs=1e-5 + width * 1e-3)
            assert abs(decoded[n, d] - x[n, d]) <= width * 0.5001


def test_more_bits_are_more_exact(real):
    errors = [mse(ScalarQuantizer(bits=bits), real[:2000]) for bits in range(1, 9)]
    assert all(b < a / 2.5 for a, b in itertools.pairwise(errors))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_range_of_least_error_has_the_least_error(real, bits):
    errors = {
        range: mse(ScalarQuantizer(bits=bits, range=range), real[:2000])
        for range in ("minmax", "quantile", "mse")
    }
    assert errors["mse"] == min(errors.values())


def test_quantiles_leave_outliers_out():
    x = torch.randn(10_000, 4, generator=torch.Generator().manual_seed(0))
    x[0] = 1000
    codec = ScalarQuantizer(range="quantile", tail=0.01).fit(x)
    low, high = x.quantile(0.01, dim=0), x.quantile(0.99, dim=0)
    start, step = codec.state()["start"], codec.state()["step"]
    torch.testing.assert_close(start, low, rtol=0, atol=0.02)
    torch.testing.assert_close(start + 256 * step, high, rtol=0, atol=0.02)
    assert float(codec.encode(x).decode()[0, 0]) < 4  # the nearest code


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_symmetric_ranges_keep_zero_and_signs(real, bits):
    codec = ScalarQuantizer(bits=bits, symmetric=True).fit(real)
    decoded = codec.encode(real[:200]).decode()
    low = codec.centroids.amin((1, 2))
    if bits > 1:
        zero = ScalarQuantizer(bits=bits, symmetric=True, signed=True).fit(real).encode(torch.zeros(1, 384))
        assert not zero.data.any()
        assert bool((codec.encode(torch.zeros(1, 384)).decode().abs() <= 1e-7).all())
    largest = 0.999 * real.abs().amax(0, keepdim=True)
    top = codec.encode(largest).decode()
    torch.testing.assert_close(codec.encode(-largest).decode(), -top)
    assert bool((low <= -top[0] + 1e-6).all())
    assert bool((decoded * real[:200] >= -1e-9).all())


@pytest.mark.parametrize("bits", [1, 3, 4, 8])
def test_signed_codes_are_twos_complement(real, bits):
    plain, signed = (ScalarQuantizer(bits=bits, signed=s).fit(real) for s in (False, True))
    a, b = plain.encode(real[:300]), signed.encode(real[:300])
    assert torch.equal(a.decode(), b.decode())
    if bits == 8:
        assert torch.equal(a.data.int() - 128, b.data.view(torch.int8).int())
    q = real[300:310]
    for metric in METRICS:
        for one, other in zip(a.search(q, 5, metric), b.search(q, 5, metric), strict=True):
            torch.testing.assert_close(one, other)


def test_the_fixed_map_of_the_notebook(real):
    codec = ScalarQuantizer(range=(-1, 1), steps=254).fit(real)
    x = torch.cat([real[:500], torch.rand(500, 384, generator=torch.Generator().manual_seed(0)) * 2 - 1])
    notebook = (np.clip(x.numpy() + 1, 0, 2) * 127).astype(np.uint8)
    differ = codec.encode(x).data.numpy() != notebook
    assert differ.mean() < 1e-4  # x + 1 divided by a step of 1/127 instead of times 127: a rounding
    assert np.abs(codec.encode(x).data.numpy().astype(int) - notebook).max() <= 1


@pytest.mark.parametrize(("bits", "name"), [(8, "QT_8bit"), (4, "QT_4bit"), (8, "QT_8bit_uniform")])
def test_codes_are_within_one_step_of_faiss(real, bits, name):
    faiss = pytest.importorskip("faiss")
    theirs = faiss.ScalarQuantizer(384, getattr(faiss.ScalarQuantizer, name))
    theirs.train(real.numpy())
    per = "tensor" if name.endswith("uniform") else "dim"
    ours = ScalarQuantizer(bits=bits, per=per).fit(real).encode(real)
    a = ours.data if bits == 8 else torch.stack([ours.data & 15, ours.data >> 4], 2).flatten(1)
    b = torch.from_numpy(theirs.compute_codes(real.numpy()))
    b = b if bits == 8 else torch.stack([b & 15, b >> 4], 2).flatten(1)
    assert int((a.int() - b.int()).abs().max()) <= 1
    error = float(
        (torch.from_numpy(theirs.decode(theirs.compute_codes(real.numpy()))) - real).square().mean()
    )
    quality = ours.quality(real)
    assert quality is not None and quality.mse < 1.02 * error


def test_recall_of_eight_bits(real, real_queries):
    codes = ScalarQuantizer().fit(real).encode(real)
    assert recall(codes.search(real_queries, 10)[1], exact(real, real_queries, 10)) >= 0.985


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("bits", "Q"), [(8, 1), (8, 70), (4, 70), (3, 3)])
def test_search_is_exact_over_decoded_rows(real, real_queries, metric, bits, Q):
    codes = ScalarQuantizer(bits=bits).fit(real).encode(real)
    queries, decoded = real_queries[:Q], codes.decode()
    values, ids = codes.search(queries, 10, metric)
    scores = {
        "l2": lambda: torch.cdist(queries.double(), decoded.double()).square(),
        "ip": lambda: queries.double() @ decoded.double().T,
        "cosine": lambda: (
            torch.nn.functional.normalize(queries.double())
            @ torch.nn.functional.normalize(decoded.double()).T
        ),
    }[metric]()
    best = scores.topk(10, largest=metric != "l2").values
    torch.testing.assert_close(values.double(), best, rtol=0, atol=1e-5)
    torch.testing.assert_close(scores.gather(1, ids), best, rtol=0, atol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_estimates_never_hide_a_better_row(metric, offset):
    """Rows that differ by less than the rounding of queries, with short rows and a long way from 0."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 24, generator=g) + torch.randn(5000, 24, generator=g) * 0.01 + offset
    x[::7] *= 1e-3
    x[3] = 0
    x[:, 5] = 2.0
    q = torch.randn(9, 24, generator=g)
    codes = ScalarQuantizer().fit(x).encode(x)
    scorer = codes.codec.scorer(codes.packed, q, metric)
    assert isinstance(scorer, ScalarScorer)
    values, ids = codes.search(q, 20, metric)
    every = torch.arange(len(x)).expand(len(q), -1)
    keys = scorer.gather(every)
    best = keys.topk(20).values
    torch.testing.assert_close(values if metric != "l2" else -values, best, rtol=0, atol=0)
    estimate = scorer.group_max(1)
    assert bool((scorer.ceiling(estimate) >= keys).all())
    assert torch.equal(keys.gather(1, ids), best)


def test_doubtful_queries_look_wider_before_they_look_everywhere(monkeypatch):
    """400 rows as near as the rounding of the query: more than the first candidates, fewer than the next."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 64, generator=g)
    x[5000:5400] = x[5000] + 0.02 * torch.randn(400, 64, generator=g)
    codes = ScalarQuantizer().fit(x).encode(x)
    everywhere: list[int] = []
    monkeypatch.setattr(Exhaustive, "group_max", lambda self, group: everywhere.append(self.Q))
    wider: list[tuple[int, int]] = []
    monkeypatch.setattr(run, "attempt", noting(exact_search.attempt, wider))
    values, _ = codes.search(x[[5000, 7]], 5, "ip")
    scores = x[[5000, 7]].double() @ codes.decode().double().T
    torch.testing.assert_close(values.double(), scores.topk(5).values, rtol=0, atol=1e-4)
    assert wider == [(exact_search.FIRST, 2), (exact_search.WIDER, 1)] and not everywhere


def noting(function, seen):
    def noted(scorer, k, path):
        seen.append((path, scorer.Q))
        return function(scorer, k, path)

    return noted


def test_ties_go_to_the_lowest_id():
    x = torch.randn(3, 16, generator=torch.Generator().manual_seed(0)).repeat(3000, 1)
    codes = ScalarQuantizer().fit(x).encode(x)
    _, ids = codes.search(x[:3], 4, "ip")
    assert bool((ids.diff() == 3).all())
    assert bool((ids[:, 0] < 3).all())


def test_constant_dimensions_are_kept():
    x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    x[:, 1], x[:, 2] = 7.25, 0
    decoded = ScalarQuantizer().fit(x).encode(x).decode()
    assert torch.equal(decoded[:, 1:3], x[:, 1:3])
    all_same = torch.full((5, 3), -2.5)
    for range in ("minmax", "quantile", "mse"):
        assert torch.equal(ScalarQuantizer(range=range).fit(all_same).encode(all_same).decode(), all_same)


def test_a_map_is_read_in_blocks(real, tmp_path):
    np.save(tmp_path / "x.npy", real.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    codec = ScalarQuantizer().fit(mapped)
    assert codec.same_as(ScalarQuantizer().fit(real))
    assert torch.equal(codec.encode(mapped).data, codec.encode(real).data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 0}, r"ScalarQuantizer: bits must be a whole number from 1 to 8; got 0"),
        ({"bits": 9}, r"bits must be .*; got 9"),
        ({"range": "max"}, r"range must be one of minmax, quantile, mse or \(low, high\); got 'max'"),
        ({"range": "given"}, r"range must be .*; got 'given'"),
        ({"range": (1, -1)}, "with low <= high; got"),
        ({"range": (0, float("nan"))}, "with low <= high; got"),
        ({"range": (1, 2, 3)}, r"range must be \(low, high\); got 3 entries"),
        ({"range": np.zeros((2, 3, 4))}, "with low <= high; got"),
        ({"per": "row"}, "per must be 'dim' or 'tensor'; got 'row'"),
        ({"steps": 300}, r"steps must be .*; got 300"),
        ({"tail": 0.5}, r"tail must be .*; got 0.5"),
    ],
)
def test_settings_are_checked(arguments, message):
    with pytest.raises(GpuzipError, match=message):
        ScalarQuantizer(**arguments)


def test_training_sets_are_checked(real):
    with pytest.raises(GpuzipError, match=r"x must have at least 2 rows to find a range, better 100; got 1"):
        ScalarQuantizer().fit(real[:1])
    with pytest.raises(GpuzipError, match="range must have 1 entry, or 384 like the columns of x; got 3"):
        ScalarQuantizer(range=np.array([[0, 0, 0], [1, 1, 1]])).fit(real)
    with pytest.raises(GpuzipError, match="row 7 holds NaN or inf"):
        ScalarQuantizer().fit(real.index_fill(0, torch.tensor([7]), float("nan")))
    one = ScalarQuantizer(range=(-1, 1)).fit(real[:1])
    assert one.encode(real).data.shape == (8000, 384)
