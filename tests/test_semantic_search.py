"""semantic_search in sentence-transformers' words: in the order of floats, of its arrays and of codes."""

from typing import Any

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip import DtypeError, GpuzipError
from tests.lazy import Lazy

theirs = Lazy("sentence_transformers.util.quantization")

SCALAR = ["int8", "uint8"]
BITS = ["binary", "ubinary"]


def ids_of(hits: Any) -> list[list[int]]:
    return [[hit["corpus_id"] for hit in row] for row in hits]


def scores_of(hits: Any) -> torch.Tensor:
    return torch.tensor([[hit["score"] for hit in row] for row in hits], dtype=torch.float64)


def recall(hits: Any, queries: torch.Tensor, real: torch.Tensor) -> float:
    want = (queries @ real.T).topk(10).indices
    found = torch.tensor(ids_of(hits))
    return float((found[:, :, None] == want[:, None]).any(2).double().mean())


@pytest.mark.full
def test_floats_are_searched_exactly(real, real_queries):
    for metric in ("ip", "cosine", "l2"):
        hits = gpuzip.semantic_search(real_queries, real, 10, metric=metric)
        x, y = real.double(), real_queries.double()
        if metric == "cosine":
            x, y = (torch.nn.functional.normalize(t) for t in (x, y))
        all_scores = y @ x.T if metric != "l2" else -torch.cdist(y, x).square()
        want = all_scores.topk(10)
        torch.testing.assert_close(scores_of(hits), want.values, rtol=1e-6, atol=1e-6)
        assert np.mean(np.array(ids_of(hits)) == want.indices.numpy()) > 0.999
    same_hits = theirs.semantic_search_faiss(real_queries.numpy(), real.numpy(), rescore=False)[0]
    assert ids_of(same_hits) == ids_of(gpuzip.semantic_search(real_queries, real))


@pytest.mark.full
@pytest.mark.parametrize("precision", SCALAR)
@pytest.mark.parametrize("rescore", [True, False])
def test_numbers_of_steps_keep_the_order_of_floats(real, real_queries, ranges, precision, rescore):
    array = theirs.quantize_embeddings(real, precision)
    hits = gpuzip.semantic_search(real_queries, array, ranges=ranges, rescore=rescore)
    assert recall(hits, real_queries, real) > 0.98
    chosen = torch.tensor(ids_of(hits))
    exact = (real_queries[:, None] * real[chosen]).sum(-1).double()
    torch.testing.assert_close(scores_of(hits), exact, rtol=0, atol=0.01)
    again = gpuzip.semantic_search(real_queries, array, calibration_embeddings=real, precision=precision)
    assert ids_of(again) == ids_of(hits)
    other = theirs.semantic_search_faiss if precision == "uint8" else theirs.semantic_search_usearch
    args = {"corpus_precision": precision, "ranges": ranges, "rescore": rescore}
    assert recall(hits, real_queries, real) >= recall(
        other(real_queries.numpy(), array, **args)[0], real_queries, real
    )


@pytest.mark.full
@pytest.mark.parametrize("precision", BITS)
def test_bits_are_rescored_as_theirs(real, real_queries, precision):
    array = theirs.quantize_embeddings(real, precision)
    hits = gpuzip.semantic_search(real_queries, array, 10, rescore_multiplier=4)
    search = theirs.semantic_search_faiss if precision == "ubinary" else theirs.semantic_search_usearch
    want = search(real_queries.numpy(), array, corpus_precision=precision, top_k=10, rescore_multiplier=4)[0]
    agreed = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(ids_of(hits), ids_of(want), strict=True)])
    assert agreed > 0.99  # ties at the last candidate are theirs to choose
    signs = torch.where(real > 0, 1.0, -1.0)[torch.tensor(ids_of(hits))]
    scores = (signs * real_queries[:, None]).sum(-1).double()
    torch.testing.assert_close(scores_of(hits), scores, rtol=1e-4, atol=1e-4)


@pytest.mark.full
def test_bits_alone_are_scored_by_the_share_that_is_equal(real, real_queries):
    array = theirs.quantize_embeddings(real, "ubinary")
    some = real_queries[:20]
    queries = theirs.quantize_embeddings(some, "ubinary")
    for asked in (some, queries, gpuzip.quantize_embeddings(some, "binary")):
        hits = gpuzip.semantic_search(asked, array, 10, rescore=False, precision="ubinary")
        differing = np.unpackbits(queries[:, None] ^ array[np.array(ids_of(hits))], axis=-1).sum(-1)
        np.testing.assert_allclose(scores_of(hits).numpy(), 1 - differing / 384)
        best = np.sort(np.unpackbits(queries[:, None] ^ array, axis=-1).sum(-1), 1)[:, :10]
        np.testing.assert_array_equal(differing, best)


def test_more_candidates_and_a_better_store_find_more(real, real_queries, tmp_path):
    codes = gpuzip.BinaryQuantizer().fit(real).encode(real)
    np.save(tmp_path / "x.npy", real.numpy())
    found = [
        recall(gpuzip.semantic_search(real_queries, codes, **named), real_queries, real)
        for named in (
            {"rescore": False},
            {"rescore": True, "rescore_multiplier": 4},
            {"rescore": np.load(tmp_path / "x.npy", mmap_mode="r"), "rescore_multiplier": 8},
        )
    ]
    assert found[0] < found[1] < found[2]
    pq = gpuzip.compress(real, 24)
    plain, refined = (
        gpuzip.semantic_search(real_queries, pq, rescore=store, rescore_multiplier=10)
        for store in (True, real)
    )
    assert recall(plain, real_queries, real) < recall(refined, real_queries, real)


@pytest.mark.parametrize("metric", ["ip", "cosine", "l2"])
def test_a_greater_score_is_better_by_every_metric(real, real_queries, metric):
    corpora = [
        real * 2,
        gpuzip.ScalarQuantizer().fit(real).encode(real),
        gpuzip.BinaryQuantizer().fit(real).encode(real),
    ]
    for corpus in corpora:
        scores = scores_of(gpuzip.semantic_search(real_queries[:20], corpus, 7, metric=metric))
        assert scores.shape == (20, 7)
        assert bool((scores.diff() <= 0).all())
        assert bool((scores <= 0).all()) == (metric == "l2")


@pytest.mark.parametrize(
    "codec", [gpuzip.ScalarQuantizer(), gpuzip.ScalarQuantizer(signed=True), gpuzip.BinaryQuantizer()]
)
def test_quantized_queries_are_decoded(real, real_queries, codec):
    codec = codec.fit(real)
    codes, asked = codec.encode(real), codec.encode(real_queries[:50])
    want = gpuzip.semantic_search(asked.decode(), codes)
    precisions = BITS if codec.id == "binary" else SCALAR
    for precision in precisions:
        queries = gpuzip.to_sentence_transformers(asked, precision)
        assert gpuzip.semantic_search(queries, codes) == want
        assert gpuzip.semantic_search(torch.from_numpy(queries), codes) == want


def test_one_query_lists_and_small_corpora(real, real_queries):
    codes = gpuzip.HalfQuantizer().fit(real).encode(real[:3])
    one = gpuzip.semantic_search(real_queries[0], codes)
    assert len(one) == 1 and len(one[0]) == 3
    assert gpuzip.semantic_search(list(real_queries[:2]), list(real[:3])) == gpuzip.semantic_search(
        real_queries[:2].numpy(), real[:3]
    )
    assert gpuzip.semantic_search(real_queries[:0], codes) == []
    empty = np.zeros((0, 48), np.uint8)
    for corpus in (codes[[]], real[:0], empty, torch.from_numpy(empty)):
        assert gpuzip.semantic_search(real_queries[:2], corpus) == [[], []]
        assert gpuzip.semantic_search(real_queries[:2], corpus, rescore=False) == [[], []]
    hits = gpuzip.semantic_search(real_queries[:1], real, 1)
    assert type(hits[0][0]["corpus_id"]) is int and type(hits[0][0]["score"]) is float


def test_a_width_that_is_no_multiple_of_eight(real, real_queries):
    x, queries = real[:500, :77], real_queries[:20, :77]
    hits = gpuzip.semantic_search(queries, gpuzip.quantize_embeddings(x, "binary"), 500, rescore=False)
    assert float(scores_of(hits).min()) > 0 and float(scores_of(hits).max()) < 1
    same_bits = ((x[None] > 0) == (queries[:, None] > 0)).double().mean(2)
    torch.testing.assert_close(scores_of(hits), same_bits.gather(1, torch.tensor(ids_of(hits))))


CANNOT_BE_SEARCHED: list[tuple[str, dict[str, Any]]] = [
    (r"top_k must be a whole number of at least 1.*; got 0", {"top_k": 0}),
    (r"top_k must be .*; got -1", {"top_k": -1}),
    (r"metric must be one of l2, ip, cosine.*; got 'dot'", {"metric": "dot"}),
    ("rescore_multiplier must be a number of at least 1; got 0.5", {"rescore_multiplier": 0.5}),
    ("corpus of uint8 cannot be decoded without ranges", {"corpus": np.zeros((3, 384), np.uint8)}),
    (
        "corpus must have 384 columns for int8 or 48 for binary, as d=384; got 7 columns of int8",
        {"corpus": np.zeros((3, 7), np.int8)},
    ),
    (
        "precision must be 'uint8' or 'ubinary' for corpus of uint8; got 'binary'",
        {"corpus": np.zeros((3, 48), np.uint8), "precision": "binary"},
    ),
    ("corpus must be int8 or uint8; got int32", {"corpus": np.zeros((3, 384), np.int32)}),
    ("corpus must be .*; got str", {"corpus": "text"}),
    ("query_embeddings must have 384 columns", {"query_embeddings": torch.zeros(2, 7)}),
    (r"query_embeddings must be .*; got \(2, 7\) uint8", {"query_embeddings": np.zeros((2, 7), np.uint8)}),
    (
        "rescore must be a bool for a float corpus, whose scores are exact",
        {"corpus": torch.zeros(3, 384), "rescore": torch.zeros(3, 384)},
    ),
    ("query_embeddings must have 2 columns", {"corpus": torch.zeros(3, 2)}),
    ("rescore must have 50 rows, one per code; got 2", {"rescore": torch.zeros(2, 384)}),
]


@pytest.mark.parametrize(("match", "changed"), CANNOT_BE_SEARCHED, ids=[m for m, _ in CANNOT_BE_SEARCHED])
def test_searches_that_cannot_be_are_refused(real, real_queries, match, changed):
    corpus = gpuzip.BinaryQuantizer().fit(real[:50]).encode(real[:50])
    arguments = {"query_embeddings": real_queries[:2], "corpus": corpus} | changed
    with pytest.raises(GpuzipError, match=match):
        gpuzip.semantic_search(**arguments)


def test_quantized_queries_need_codes_of_bytes(real):
    codes = gpuzip.ScalarQuantizer(4).fit(real).encode(real[:9])
    with pytest.raises(DtypeError, match=r"\(Q, 384\) floats.*; got \(1, 192\) uint8"):
        gpuzip.semantic_search(codes.data[:1], codes)
