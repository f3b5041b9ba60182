"""Word vectors in word2vec's binary form, and those of gensim and of dicts."""

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
def test_any_words_come_back(tmp_path: Path, words: list[str], d: int, block: int, end: bytes):
    x = vectors(len(words), d)
    x.view(np.uint8)[0, :4] = [10, 32, 10, 32]  # line ends and spaces among the numbers
    path = tmp_path / "v.bin"
    path.write_bytes(body(words, x, end))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binary, "BLOCK_BYTES", block)
        found, rows = read(path)
    assert found == words and np.array_equal(rows, x)


def test_gensim_reads_and_writes_the_same(path: Path):
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
    "cut off in a vector": (GOOD[:-4], "its header says 3 rows of 4 numbers, 51 bytes at least; it has"),
    "cut off after long words": (body(["a" * 60, "b", "c"], X)[:-3], "row 2 is cut off"),
    "more than it says": (b"2 4" + GOOD[3:], "says 2 rows of 4 numbers, there is more after"),
    "fewer dimensions": (b"3 3" + GOOD[3:], "not UTF-8|more after|NaN"),
    "the sea": (b"999999999999 300" + GOOD[3:], "says 999999999999 rows of 300 numbers, 1200999"),
    "wide rows": (b"1 99999999999999" + GOOD[3:], "says 1 rows of 99999999999999"),
    "no header": (b"the 0.1 0.2\n", r"begins with b'the 0.1 0.2\\n'.*from_text"),
    "no dimensions": (b"3 0\n" + b"a b c ", "begins with"),
    "nothing": (b"", "begins with b''"),
    "no rows": (b"0 4\n", "must hold at least one word"),
    "NaN": (body(["a", "b", "c"], NAN), "row 1: NaN"),
    "not UTF-8": (GOOD.replace(b"b ", b"\xff "), r"row 1: the word b'\\xff' is not UTF-8"),
    "a word twice": (body(["a", "b", "a"], X), "row 2: the word 'a' is repeated"),
}


@pytest.mark.parametrize("block", [1, 1 << 20])
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, block: int):
    monkeypatch.setattr(binary, "BLOCK_BYTES", block)
    data, message = WRONG[wrong]
    path.write_bytes(data)
    with pytest.raises(GpuzipError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_a_word_without_an_end_is_refused_before_it_is_in_memory(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(binary, "BLOCK_BYTES", 100)
    monkeypatch.setattr(binary, "WORD_LIMIT", 1000)
    path.write_bytes(b"2 4\n" + b"x" * 100_000)
    with pytest.raises(GpuzipError, match="row 0 has a word of more than 1000 bytes"):
        read(path)


def test_a_header_that_lies_costs_no_memory(path: Path):
    path.write_bytes(b"9999999 1000000\n" + b"x" * 1000)
    tracemalloc.start()
    try:
        with pytest.raises(GpuzipError, match="says 9999999 rows"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_limit_leaves_the_rest_unread(path: Path):
    path.write_bytes(body(["a", "b", "a"], X))
    assert read(path, limit=2)[0] == ["a", "b"]


def test_policies(path: Path):
    path.write_bytes(body(["a", "b", "a"], X))
    words, rows = read(path, Policy(duplicates="last"))
    assert words == ["a", "b"] and np.array_equal(rows, X[[2, 1]])
    path.write_bytes(GOOD.replace(b"b ", b"\xff "))
    assert read(path, Policy(unicode_errors="replace"))[0] == ["a", "�", "c"]


def test_memory_is_bounded_by_blocks(path: Path, monkeypatch: pytest.MonkeyPatch):
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


def test_from_binary_and_from_gensim_are_the_same(path: Path):
    words, x = [f"w{i}" for i in range(50)], vectors(50, 6)
    path.write_bytes(body(words, x))
    of_file = WordVectors.from_binary(path, bits=3)
    of_gensim = WordVectors.from_gensim(SimpleNamespace(index_to_key=words, vectors=x), bits=3)
    assert list(of_file) == list(of_gensim) == words
    assert torch.equal(of_file.query(words), of_gensim.query(words))
    assert isinstance(of_file.codes, Codes) and of_file.codes.codec.config()["bits"] == 3


def test_from_gensim_takes_keyed_vectors_alone():
    gensim = pytest.importorskip("gensim.models")
    kv = gensim.KeyedVectors(5)
    kv.add_vectors(["a", "b"], vectors(2, 5))
    wv = WordVectors.from_gensim(kv, codec=EXACT)
    assert np.allclose(wv["b"].numpy(), kv["b"], atol=1e-3)
    with pytest.raises(GpuzipError, match=r"vectors must be KeyedVectors; got SimpleNamespace. Pass its .wv"):
        WordVectors.from_gensim(SimpleNamespace(wv=kv))
    with pytest.raises(GpuzipError, match=r"got \(2, 5\) for 3 words"):
        WordVectors.from_gensim(SimpleNamespace(index_to_key=["a", "b", "c"], vectors=kv.vectors))
    with pytest.raises(GpuzipError, match="'a' is the word of rows 0 and 1"):
        WordVectors.from_gensim(SimpleNamespace(index_to_key=["a", "a"], vectors=kv.vectors))
    with pytest.raises(GpuzipError, match="row 1 has the word 7, a str"):
        WordVectors.from_gensim(SimpleNamespace(index_to_key=["a", 7], vectors=kv.vectors))
    with pytest.raises(GpuzipError, match="must hold at least one word"):
        WordVectors.from_gensim(SimpleNamespace(index_to_key=[], vectors=np.empty((0, 5), np.float32)))


def test_from_dict():
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
            r"'b' must have shape \(1,\) like those before; got \(2,\)",
        ),
        ({"a": []}, GpuzipError, r"'a' must have shape .*; got \(0,\)"),
        ({"a": [[1.0]]}, GpuzipError, "'a' must have shape"),
        ({"a": ["x"]}, DtypeError, "'a' is not of numbers"),
        ({"a": [1.0, np.inf]}, GpuzipError, "'a' holds NaN, inf"),
        ({"a": [1e39]}, GpuzipError, "'a' holds NaN, inf"),
        ({"\ud800": [1.0, 2.0]}, GpuzipError, "half a character"),
        ({3: [1.0, 2.0]}, GpuzipError, "every word must be a str; got 3 for row 0"),
        ([("a", [1.0])], DtypeError, "must be a dict of vectors by word; got list"),
    ],
)
def test_a_dict_that_is_wrong(vectors: Any, error: type, message: str):
    with pytest.raises(error, match=message):
        WordVectors.from_dict(vectors)
