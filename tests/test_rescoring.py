"""Rescoring: whatever the store, the candidates' exact scores, and only their rows are read."""

import numpy as np
import pytest
import torch

from gpuzip import BinaryQuantizer, DtypeError, GpuzipError, HalfQuantizer, ScalarQuantizer
from gpuzip import open as open_codes
from gpuzip._core.rows import Rows
from tests.test_scalar import METRICS


@pytest.fixture(scope="module")
def bits(real):
    return BinaryQuantizer().fit(real).encode(real)


def by_hand(codes, x, queries, k, multiplier, metric, first):
    """Candidates by the codes, then exact scores of x, lowest id first among equals."""
    _, ids = codes.search(queries, k * multiplier, first)
    rows = x[ids].double()
    q = queries[:, None].double()
    scores = {
        "l2": lambda: -(rows - q).square().sum(-1),
        "ip": lambda: (rows * q).sum(-1),
        "cosine": lambda: torch.cosine_similarity(rows, q, dim=-1),
    }[metric]()
    best = scores.topk(k).values
    return (-best if metric == "l2" else best), ids


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("first", [None, "hamming"])
@pytest.mark.parametrize("kind", ["tensor", "float16", "float64", "array", "map", "codes", "file", "self"])
def test_every_store_gives_its_own_scores(bits, real, real_queries, tmp_path, metric, first, kind):
    if kind == "self" and first is None:
        pytest.skip("refused: these codes find the same again")
    q, x = real_queries[:30], real
    if kind == "map":
        np.save(tmp_path / "x.npy", real.numpy())
    int8 = ScalarQuantizer().fit(real).encode(real)
    if kind == "file":
        int8.save(tmp_path / "int8.ezip")
    store, values_of = {
        "tensor": lambda: (real, real),
        "float16": lambda: (real.half(), real.half()),
        "float64": lambda: (real.double(), real),
        "array": lambda: (real.numpy(), real),
        "map": lambda: (np.load(tmp_path / "x.npy", mmap_mode="r"), real),
        "codes": lambda: (int8, int8.decode()),
        "file": lambda: (open_codes(tmp_path / "int8.ezip"), int8.decode()),
        "self": lambda: (True, bits.decode()),
    }[kind]()
    x = values_of.float()
    values, ids = bits.search(q, 10, metric, rescore=store, rescore_multiplier=3, candidates=first)
    want, candidates = by_hand(bits, x, q, 10, 3, metric, first or metric)
    torch.testing.assert_close(values.double(), want, rtol=0, atol=2e-6)
    assert bool((ids[:, :, None] == candidates[:, None, :]).any(2).all())
    assert values.dtype == torch.float32


def test_only_the_candidates_are_read(bits, real, real_queries):
    read: list[int] = []

    class Watched(np.ndarray):
        def __getitem__(self, index):
            if isinstance(index, np.ndarray):
                read.extend(index.tolist())
            return super().__getitem__(index)

    store = real.numpy().view(Watched)
    bits.search(real_queries[:5], 10, rescore=store, rescore_multiplier=4)
    assert 40 <= len(read) <= 200
    assert len(set(read)) == len(read)  # each once


def test_all_rows_as_candidates_is_exact_search(bits, real, real_queries):
    q = real_queries[:20]
    values, ids = bits.search(q, 10, "ip", rescore=real, rescore_multiplier=800)
    best = (q.double() @ real.double().T).topk(10)
    torch.testing.assert_close(values.double(), best.values, rtol=0, atol=1e-6)
    assert float((ids == best.indices).double().mean()) > 0.99


def test_ties_go_to_the_lowest_id(bits, real, real_queries):
    same = real[:1].expand(8000, -1)
    _, ids = bits.search(real_queries[:9], 5, rescore=same, rescore_multiplier=4)
    _, candidates = bits.search(real_queries[:9], 20)
    assert torch.equal(ids, candidates.sort(1).values[:, :5])


def test_with_a_mask_and_few_rows(bits, real, real_queries):
    mask = torch.zeros(8000, dtype=torch.bool)
    mask[[5, 77, 4000]] = True
    values, ids = bits.search(real_queries[:4], 10, mask=mask, rescore=real)
    assert values.shape == (4, 3)
    assert all(sorted(row) == [5, 77, 4000] for row in ids.tolist())
    nobody = bits.search(real_queries[:4], 10, mask=torch.zeros(8000, dtype=torch.bool), rescore=real)
    assert nobody[0].shape == (4, 0)
    assert bits[:0].search(real_queries[:4], 10, rescore=real[:0])[1].shape == (4, 0)
    one = bits[:3].search(real_queries[0], 10, rescore=real[:3])
    assert one[0].shape == (3,)


def test_parts_of_queries_do_not_matter(bits, real, real_queries, monkeypatch):
    int8 = HalfQuantizer().fit(real).encode(real)
    want = bits.search(real_queries[:50], 10, rescore=int8)
    monkeypatch.setattr("gpuzip.search.memory.WORKSPACE", 384 * 4 * 40 * 7)  # seven queries at a time
    got = bits.search(real_queries[:50], 10, rescore=int8)
    assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])


def test_bad_stores_are_refused(bits, real, real_queries):
    q = real_queries[:3]
    for arguments, error, message in [
        ({"rescore": real[:10]}, GpuzipError, "rescore must have 8000 rows, one per code; got 10"),
        ({"rescore": real[:, :5]}, GpuzipError, "rescore must have 384 columns"),
        ({"rescore": real.to("meta")}, GpuzipError, "rescore must be on cpu like the codec; got meta"),
        ({"rescore": real.int()}, DtypeError, "rescore must be float16.*; got int32"),
        (
            {"rescore": "x.npy"},
            DtypeError,
            "rescore must be a torch tensor, a numpy array, or rows of numbers; got str",
        ),
        (
            {"rescore": bits[:7]},
            GpuzipError,
            r"rescore must be codes of \(8000, 384\) like these; got \(7, 384\)",
        ),
        (
            {"rescore": real, "rescore_multiplier": 0},
            GpuzipError,
            "rescore_multiplier must be a number of at least 1; got 0",
        ),
        (
            {"rescore": real, "metric": "hamming"},
            GpuzipError,
            r"metric must be one of l2, ip, cosine.*; got 'hamming'",
        ),
        ({"candidates": "hamming"}, GpuzipError, "candidates='hamming' must be given with rescore"),
        ({"rescore": real, "candidates": "dot"}, GpuzipError, "candidates must be one of"),
    ]:
        with pytest.raises(error, match=message):
            bits.search(q, 5, **arguments)
    for nothing in (np.full((8000, 384), np.nan, np.float32), torch.full((8000, 384), float("nan"))):
        with pytest.raises(GpuzipError, match="holds NaN or inf"):
            bits.search(q, 5, rescore=nothing)


def test_a_graph_records_rows_in_place(bits, real, real_queries, monkeypatch):
    """Under capture nothing asks which rows there are; a CPU stands in for the GPU."""
    want = bits.search(real_queries[:9], 10, rescore=real)
    monkeypatch.setattr(Rows, "rows", None)
    monkeypatch.setattr("gpuzip.search.rescore.is_capturing", lambda device: True)
    got = bits.search(real_queries[:9], 10, rescore=real)
    assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])
