"""sentence-transformers' tests of quantization, restated on quantize_embeddings and semantic_search.

Peer: huggingface/sentence-transformers, Apache-2.0: tests/util/test_quantization.py at cad2119 (6.1.0.dev0,
2026-08-21), at 164da7d and in a later revision that tests USearch; test_encode_quantization at 85ec645.
Cases: 107, of 27 functions. 105 apply; the 2 others ask FAISS for an approximate search (`exact=False`), and
a search here is exact. Their two searches are one here, which takes every precision.

By design the scores differ from theirs where nothing is rescored: with numbers of steps theirs are sums of
products of these numbers, here they are those of the decoded rows; with bits theirs are distances, here the
share of equal bits. Ranges must be those of the corpus; theirs takes the queries' where none are given.
"""

from typing import Any

import numpy as np
import pytest
import torch

import gpuzip
from tests.lazy import Lazy

pytestmark = pytest.mark.full

usearch = Lazy("usearch.index")

DTYPES = {"int8": np.int8, "uint8": np.uint8, "binary": np.int8, "ubinary": np.uint8}
SCALAR = ["int8", "uint8"]
BITS = ["binary", "ubinary"]
PRECISIONS = ["float32", *DTYPES]
D = 16

QUERIES = np.random.default_rng(1).standard_normal((2, D), dtype=np.float32)
CALIBRATION = np.random.default_rng(2).standard_normal((100, D), dtype=np.float32)


def array(rows: list[list[int]]) -> np.ndarray:
    return np.array(rows, np.float32)


def draw(n: int, d: int = D, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)


def corpus_of(n: int, precision: str, seed: int = 0) -> np.ndarray:
    found: np.ndarray = gpuzip.quantize_embeddings(
        draw(n, seed=seed), precision, calibration_embeddings=CALIBRATION
    )
    return found


def search(queries: Any, corpus: np.ndarray, precision: str, k: int, **options: Any) -> Any:
    named: Any = {} if precision == "float32" else {"precision": precision}
    scaled: Any = {"calibration_embeddings": CALIBRATION} if precision in SCALAR else {}
    return gpuzip.semantic_search(queries, corpus, k, **named, **scaled, **options)


def ids_of(hits: list[dict[str, Any]]) -> list[int]:
    return sorted(hit["corpus_id"] for hit in hits)


@pytest.mark.parametrize("precision", BITS)
@pytest.mark.parametrize(("n", "d"), [(4, 10), (3, 10), (5, 12), (4, 8), (2, 16), (3, 24)])
def test_bits_of_a_row_fill_whole_bytes(precision, n, d):
    bits = gpuzip.quantize_embeddings(draw(n, d), precision)
    assert bits.shape == (n, -(-d // 8)) and bits.dtype == DTYPES[precision]


@pytest.mark.parametrize(("precision", "high", "low"), [("binary", 127, -128), ("ubinary", 255, 0)])
def test_rows_of_bits_do_not_mix(precision, high, low):
    bits = gpuzip.quantize_embeddings(array([[1] * 8, [-1] * 8]), precision)
    assert bits.tolist() == [[high], [low]]


@pytest.mark.parametrize(("precision", "want"), [("int8", [-128, 42, 127]), ("uint8", [0, 170, 255])])
def test_values_outside_the_calibration_take_the_last_step(precision, want):
    calibration = array([[1, 20, -3], [4, 5, -60]])
    rows = array([[-1, 15, 1]])
    found = gpuzip.quantize_embeddings(rows, precision, calibration_embeddings=calibration)
    assert found.dtype == DTYPES[precision] and found.tolist() == [want]


@pytest.mark.filterwarnings("ignore:.*ranges for")
@pytest.mark.parametrize("precision", DTYPES)
def test_a_matrix_without_rows_keeps_its_shape(precision):
    width = 2 if precision in BITS else D
    some, none = gpuzip.quantize_embeddings([draw(10), draw(0)], precision)
    assert some.shape == (10, width) and none.shape == (0, width)
    assert some.dtype == none.dtype == DTYPES[precision]
    (alone,) = gpuzip.quantize_embeddings([draw(0)], precision)
    assert alone.shape == (0, width)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_empty_list_gives_an_empty_list(precision):
    assert gpuzip.quantize_embeddings([], precision) == []


@pytest.mark.filterwarnings("ignore:.*ranges for")
@pytest.mark.parametrize("precision", DTYPES)
def test_matrices_of_any_heights_stay_a_list(precision):
    width = 2 if precision in BITS else D
    found = gpuzip.quantize_embeddings([draw(3), draw(5)], precision)
    assert isinstance(found, list) and [one.shape for one in found] == [(3, width), (5, width)]
    assert all(one.dtype == DTYPES[precision] for one in found)


@pytest.mark.filterwarnings("ignore:.*ranges for")
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("precision", SCALAR)
def test_matrices_of_a_list_share_their_ranges(precision, given):
    matrices = [draw(3), draw(5, seed=1)]
    together = np.concatenate(matrices)
    ranges = np.stack([np.full(D, -3.0), np.full(D, 3.0)]).astype(np.float32) if given else None
    found = np.concatenate(gpuzip.quantize_embeddings(matrices, precision, ranges))
    assert np.array_equal(found, gpuzip.quantize_embeddings(together, precision, ranges))


def test_matrices_may_be_tensors():
    found = gpuzip.quantize_embeddings([torch.rand(3, D), torch.rand(5, D)], "binary")
    assert isinstance(found, list) and [tuple(one.shape) for one in found] == [(3, 2), (5, 2)]
    assert all(isinstance(one, torch.Tensor) for one in found)  # theirs are arrays


@pytest.mark.filterwarnings("ignore:.*ranges for")
def test_a_list_of_rows_becomes_one_matrix():
    found = gpuzip.quantize_embeddings(list(draw(4)), "int8")
    assert isinstance(found, np.ndarray) and found.shape == (4, D)


@pytest.mark.filterwarnings("ignore:.*ranges for")
@pytest.mark.parametrize("form", ["tensor", "array", "list of tensors", "list of arrays"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_type_of_what_comes_decides_the_type_of_what_goes(precision, form):
    """The forms that `encode(precision=)` hands on: for convert_to_tensor, convert_to_numpy, or neither."""
    x: Any = draw(2)
    x = torch.from_numpy(x) if "tensor" in form else x
    found = gpuzip.quantize_embeddings(list(x) if "list" in form else x, precision)
    assert isinstance(found, torch.Tensor if "tensor" in form else np.ndarray) and len(found) == 2
    assert str(found.dtype).removeprefix("torch.") == np.dtype(DTYPES.get(precision, np.float32)).name


@pytest.mark.parametrize("precision", ["error", None])
def test_an_unknown_precision_is_a_ValueError(precision):
    with pytest.raises(ValueError, match="precision"):
        gpuzip.quantize_embeddings(draw(2), precision)


@pytest.mark.parametrize("precision", ["int8", "binary", "float16"])
def test_a_search_by_a_precision_that_the_corpus_has_not_says_so(precision):
    with pytest.raises(ValueError, match="precision"):
        gpuzip.semantic_search(QUERIES, corpus_of(4, "uint8"), 2, precision=precision)


@pytest.mark.parametrize("precision", ["float32", "uint8"])
def test_products_decide_not_distances(precision):
    dtype = np.float32 if precision == "float32" else np.uint8
    queries, corpus = np.array([[1, 0], [1, 1]], dtype), np.array([[1, 0], [2, 0], [0, 3]], dtype)
    # With a step of 1 whose middle is the whole number, numbers of steps are the values themselves.
    ranges = [[-0.5] * 2, [254.5] * 2]
    scaled: Any = {} if precision == "float32" else {"precision": precision, "ranges": ranges}
    assert gpuzip.semantic_search(queries, corpus, 2, rescore=False, **scaled) == [
        [{"corpus_id": 1, "score": 2.0}, {"corpus_id": 0, "score": 1.0}],
        [{"corpus_id": 2, "score": 3.0}, {"corpus_id": 1, "score": 2.0}],
    ]


@pytest.mark.parametrize("rescore", [True, False])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_corpus_smaller_than_top_k_gives_each_of_its_rows_once(precision, n, rescore):
    corpus = corpus_of(n, precision)
    for queries in (QUERIES, QUERIES[:1], QUERIES[0]):
        hits = search(queries, corpus, precision, 5, rescore=rescore, rescore_multiplier=2)
        assert [ids_of(one) for one in hits] == [list(range(n))] * (len(queries) if queries.ndim == 2 else 1)
        assert not any(np.isnan(hit["score"]) for one in hits for hit in one)


@pytest.mark.parametrize("rescore", [True, False])
def test_an_empty_corpus_gives_empty_lists(rescore):
    empty = np.empty((0, 2), np.uint8)
    assert search(QUERIES, empty, "ubinary", 5, rescore=rescore, rescore_multiplier=2) == [[], []]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_large_corpus_gives_top_k_rows(precision):
    for one in search(QUERIES, corpus_of(50, precision, seed=3), precision, 5, rescore_multiplier=2):
        assert len(set(ids_of(one))) == 5 and set(ids_of(one)) <= set(range(50))


@pytest.mark.parametrize("precision", BITS)
def test_bits_that_fill_up_a_byte_have_no_score(precision):
    query, corpus = np.arange(1, 11, dtype=np.float32)[None], np.ones((1, 10), np.float32)
    bits = gpuzip.quantize_embeddings(corpus, precision)
    assert search(query, bits, precision, 1, rescore_multiplier=1) == [[{"corpus_id": 0, "score": 55.0}]]


def test_signed_bytes_of_bits_are_scored_as_bits():
    query = array([[10, 1, 1, 1, 1, 1, 1, 1]])
    corpus = array([[1] * 8, [-1, *[1] * 7]])
    bits = gpuzip.quantize_embeddings(corpus, "binary")
    assert search(query, bits, "binary", 1, rescore_multiplier=2) == [[{"corpus_id": 0, "score": 17.0}]]


@pytest.mark.parametrize("rescore", [True, False])
def test_signed_and_unsigned_bytes_of_bits_find_the_same(rescore):
    """Theirs may differ where Hamming distances tie; here the lowest id comes first."""
    both = [
        search(QUERIES, corpus_of(20, precision), precision, 4, rescore=rescore, rescore_multiplier=5)
        for precision in BITS
    ]
    assert both[0] == both[1] and all(len(one) == 4 for one in both[0])


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_queries_of_whole_numbers_are_values(dtype):
    queries = (QUERIES * 100).astype(dtype)
    hits = search(queries, corpus_of(3, "ubinary"), "ubinary", 5, rescore_multiplier=2)
    assert hits == search(queries.astype(np.float32), corpus_of(3, "ubinary"), "ubinary", 5)


@pytest.mark.parametrize("rescore", [True, False])
def test_an_index_of_large_keys_is_searched_in_their_order(rescore):
    """Theirs gives keys as corpus_id; here rows come in the order of keys, and a corpus_id is a row."""
    keys = np.array([2**64 - 2, 5, 2**63], np.uint64)
    index = usearch.Index(ndim=D, metric="ip", dtype="i8")
    index.add(keys, corpus_of(3, "int8"))
    codes = gpuzip.from_usearch(index)
    for one in gpuzip.semantic_search(QUERIES, codes, 5, rescore=rescore):
        assert ids_of(one) == [0, 1, 2]
    stored = (codes.decode() * 127).round().numpy()
    assert np.array_equal(stored, corpus_of(3, "int8")[[1, 2, 0]])
