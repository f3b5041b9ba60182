"""Readers of word2vec's binary format, gensim's KeyedVectors and dicts."""

import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpuzip.codecs import HalfQuantizer
from gpuzip.codecs.codes import Codes
from gpuzip.errors import DtypeError, GpuzipError
from gpuzip.words import WordVectors, binary
from gpuzip.words.binary import read_binary
from gpuzip.words.collector import Collector, Policy

EXACT = HalfQuantizer()  # of halves


def vectors(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def body(words: list[str], rows: np.ndarray, end: bytes = b"") -> bytes:
    header = f"{len(words)} {rows.shape[1]}\n".encode()
    parts = (w.encode() + b" " + r.astype("<f4").tobytes() + end for w, r in zip(words, rows, strict=True))
    return header + b"".join(parts)


def read(path: Path, policy: Policy | None = None, **kwargs: Any) -> tuple[list[str], np.ndarray]:
    with Collector(str(path), policy or Policy()) as collector:
        read_binary(path, collector, **kwargs)
        return list(collector.words()), np.array(collector.rows())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "v.bin"


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.text(st.characters(exclude_characters="\n ", exclude_categories=["Cs"])),
        min_size=1,
        max_size=20,
        unique=True,
    ),
    st.integers(1, 5),
    st.integers(1, 200),
    st.sampled_from([b"", b"\n"]),
)
def test_reads_any_words(tmp_path: Path, words: list[str], d: int, block: int, end: bytes):
    x = vectors(len(words), d)
    x.view(np.uint8)[0, :4] = [10, 32, 10, 32]  # line ends and spaces among the numbers
    path = tmp_path / "v.bin"
    path.write_bytes(body(words, x, end))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binary, "BLOCK_BYTES", block)
        found, rows = read(path)
    assert found == words and np.array_equal(rows, x)


def test_reads_and_writes_what_gensim_does(path: Path):
    gensim = pytest.importorskip("gensim.models")
    words, x = [f"w{i}é" for i in range(300)], vectors(300, 9)
    path.write_bytes(body(words, x, b"\n"))
    peer = gensim.KeyedVectors.load_word2vec_format(str(path), binary=True)
    found, rows = read(path)
    assert found == peer.index_to_key == words and np.array_equal(rows, peer.vectors)
    peer.save_word2vec_format(str(path), binary=True)
    assert np.array_equal(read(path)[1], x)
    limited = gensim.KeyedVectors.load_word2vec_format(str(path), binary=True, limit=7)
    assert read(path, limit=7)[0] == limited.index_to_key


X = vectors(3, 4)
GOOD = body(["a", "b", "c"], X)
NAN = np.where(np.arange(12).reshape(3, 4) == 5, np.nan, X)
WRONG = {
    "cut off in a vector": (GOOD[:-4], "must have at least 51 bytes for 3 rows of 4 numbers; it has"),
    "cut off after long words": (body(["a" * 60, "b", "c"], X)[:-3], "row 2 is incomplete"),
    "more than it says": (b"2 4" + GOOD[3:], "must end after the 2 rows of 4 numbers"),
    "fewer dimensions": (b"3 3" + GOOD[3:], "not UTF-8|must end after|NaN"),
    "a huge size": (
        b"999999999999 300" + GOOD[3:],
        "must have at least 1200999999998799 bytes for 999999999999 rows of 300",
    ),
    "wide rows": (b"1 99999999999999" + GOOD[3:], "for 1 rows of 99999999999999"),
    "no header": (b"the 0.1 0.2\n", r"must begin with .*; got b'the 0.1 0.2\\n'.*from_text"),
    "no dimensions": (b"3 0\n" + b"a b c ", "must begin with"),
    "nothing": (b"", "must begin with .*; got b''"),
    "no rows": (b"0 4\n", "must hold at least one word"),
    "NaN": (body(["a", "b", "c"], NAN), "row 1: numbers must be finite float32"),
    "not UTF-8": (GOOD.replace(b"b ", b"\xff "), r"row 1: the word b'\\xff' is not UTF-8"),
    "a word twice": (body(["a", "b", "a"], X), "row 2: the word 'a' is repeated"),
}


@pytest.mark.parametrize("block", [1, 1 << 20])
@pytest.mark.parametrize("wrong", WRONG)
def test_refuses_invalid_files(path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, block: int):
    monkeypatch.setattr(binary, "BLOCK_BYTES", block)
    data, message = WRONG[wrong]
    path.write_bytes(data)
    with pytest.raises(GpuzipError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_refuses_a_word_without_an_end_before_reading_it_whole(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(binary, "BLOCK_BYTES", 100)
    monkeypatch.setattr(binary, "WORD_LIMIT", 1000)
    path.write_bytes(b"2 4\n" + b"x" * 100_000)
    with pytest.raises(GpuzipError, match="row 0 has a word of more than 1000 bytes"):
        read(path)


def test_refuses_a_false_header_without_allocating_memory(path: Path):
    path.write_bytes(b"9999999 1000000\n" + b"x" * 1000)
    tracemalloc.start()
    try:
        with pytest.raises(GpuzipError, match="for 9999999 rows"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_limit_stops_reading(path: Path):
    path.write_bytes(body(["a", "b", "a"], X))
    assert read(path, limit=2)[0] == ["a", "b"]


def test_policies_handle_repeated_and_invalid_words(path: Path):
    path.write_bytes(body(["a", "b", "a"], X))
    words, rows = read(path, Policy(duplicates="last"))
    assert words == ["a", "b"] and np.array_equal(rows, X[[2, 1]])
    path.write_bytes(GOOD.replace(b"b ", b"\xff "))
    assert read(path, Policy(unicode_errors="replace"))[0] == ["a", "�", "c"]


def test_memory_does_not_grow_with_the_file(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(binary, "BLOCK_BYTES", 1 << 18)
    path.write_bytes(body([f"w{i}" for i in range(20_000)], vectors(20_000, 300)))
    told: list[tuple[int, int]] = []
    with Collector(str(path), Policy()) as collector:
        tracemalloc.start()
        try:
            read_binary(path, collector, progress=lambda done, total: told.append((done, total)))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 6 << 20 < path.stat().st_size // 3
    assert told[-1] == (path.stat().st_size,) * 2


def test_from_binary_matches_from_gensim(path: Path):
    words, x = [f"w{i}" for i in range(50)], vectors(50, 6)
    path.write_bytes(body(words, x))
    of_file = WordVectors.from_binary(path, bits=3)
    of_gensim = WordVectors.from_gensim(SimpleNamespace(index_to_key=words, vectors=x), bits=3)
    assert list(of_file) == list(of_gensim) == words
    assert torch.equal(of_file.query(words), of_gensim.query(words))
    assert isinstance(of_file.codes, Codes) and of_file.codes.codec.config()["bits"] == 3


def test_from_gensim_refuses_other_objects():
    gensim = pytest.importorskip("gensim.models")
    kv = gensim.KeyedVectors(5)
    kv.add_vectors(["a", "b"], vectors(2, 5))
    wv = WordVectors.from_gensim(kv, codec=EXACT)
    assert np.allclose(wv["b"].numpy(), kv["b"], atol=1e-3)
    with pytest.raises(GpuzipError, match=r"vectors must be KeyedVectors; got SimpleNamespace. Pass its .wv"):
        WordVectors.from_gensim(SimpleNamespace(wv=kv))
    with pytest.raises(GpuzipError, match=r"got \(2, 5\) for 3 words"):
        WordVectors.from_gensim(SimpleNamespace(index_to_key=["a", "b", "c"], vectors=kv.vectors))
    with pytest.raises(GpuzipError, match="'a' is in rows 0 and 1"):
        WordVectors.from_gensim(SimpleNamespace(index_to_key=["a", "a"], vectors=kv.vectors))
    with pytest.raises(GpuzipError, match="words must be str; got 7 for row 1"):
        WordVectors.from_gensim(SimpleNamespace(index_to_key=["a", 7], vectors=kv.vectors))
    with pytest.raises(GpuzipError, match="must hold at least one word"):
        WordVectors.from_gensim(SimpleNamespace(index_to_key=[], vectors=np.empty((0, 5), np.float32)))


def test_from_dict_takes_lists_arrays_and_tensors():
    wv = WordVectors.from_dict(
        {"a": [1, 2], "b": np.array([3.0, 4.0]), "ü": torch.tensor([5.0, 6.0])}, codec=EXACT
    )
    assert list(wv) == ["a", "b", "ü"] and wv.query(["ü", "a"]).tolist() == [[5, 6], [1, 2]]


@pytest.mark.parametrize(
    ("vectors", "error", "message"),
    [
        ({}, GpuzipError, "must hold at least one word"),
        (
            {"a": [1.0], "b": [1.0, 2.0]},
            GpuzipError,
            r"'b' must have shape \(1,\) as the others; got \(2,\)",
        ),
        ({"a": []}, GpuzipError, r"'a' must have shape .*; got \(0,\)"),
        ({"a": [[1.0]]}, GpuzipError, "'a' must have shape"),
        ({"a": ["x"]}, DtypeError, "'a' must hold numbers"),
        ({"a": [1.0, np.inf]}, GpuzipError, "'a' must be finite in float32"),
        ({"a": [1e39]}, GpuzipError, "'a' must be finite in float32"),
        ({"\ud800": [1.0, 2.0]}, GpuzipError, "holds a lone surrogate"),
        ({3: [1.0, 2.0]}, GpuzipError, "words must be str; got 3 for row 0"),
        ([("a", [1.0])], DtypeError, "must be a dict of vectors by word; got list"),
    ],
)
def test_from_dict_refuses_invalid_vectors(vectors: Any, error: type, message: str):
    with pytest.raises(error, match=message):
        WordVectors.from_dict(vectors)


def test_subwords_of_fasttext_that_are_left_out_are_said():
    x = vectors(3, 4)
    fast = SimpleNamespace(index_to_key=["a", "b", "c"], vectors=x, vectors_ngrams=vectors(9, 4))
    with pytest.warns(UserWarning, match="vectors of fastText's subwords are left out"):
        words = WordVectors.from_gensim(fast, codec=EXACT)
    assert list(words) == ["a", "b", "c"]
