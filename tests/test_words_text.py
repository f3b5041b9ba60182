"""Reader of word vectors in text: equal to gensim, in bounded memory, with errors that name the line."""

import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpuzip.errors import GpuzipError
from gpuzip.words import WordVectors, text
from gpuzip.words.collector import Collector, Policy
from gpuzip.words.text import read_text

WORDS = ["the", ",", "日本", "naïve", "1", "-2.5", "nan", "a\tb", "", "x\u00a0y", "</s>"]


def vectors(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def lines(words: list[str], rows: np.ndarray) -> list[str]:
    return [" ".join([word, *map(repr, row.tolist())]) for word, row in zip(words, rows, strict=True)]


def write(path: Path, body: str | bytes) -> Path:
    path.write_bytes(body if isinstance(body, bytes) else body.encode())
    return path


def read(path: Path, policy: Policy | None = None, **kwargs: Any) -> tuple[list[str], np.ndarray]:
    with Collector(str(path), policy or Policy()) as collector:
        read_text(path, collector, **kwargs)
        return list(collector.words()), np.array(collector.rows())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "v.txt"


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", " \n", "\t\n"])
@pytest.mark.parametrize("last", ["", "\n", "\n\n \n"])
def test_reads_every_line_format(
    path: Path, monkeypatch: pytest.MonkeyPatch, block: int, header: bool, end: str, last: str
):
    monkeypatch.setattr(text, "BLOCK_BYTES", block)
    x = vectors(len(WORDS), 3)
    first = [f"{len(WORDS)} 3"] if header else []
    write(path, end.join(first + lines(WORDS, x)) + last)
    words, rows = read(path)
    assert words == WORDS and np.array_equal(rows, x)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # gensim leaves it open
@pytest.mark.parametrize("header", [True, False])
def test_reads_the_same_as_gensim(path: Path, header: bool):
    gensim = pytest.importorskip("gensim.models")
    words, x = [f"w{i}é" for i in range(200)], vectors(200, 7) * 1e-3
    body = [f"{word} " + " ".join(f"{v:.6g}" for v in row) for word, row in zip(words, x, strict=True)]
    write(path, "\n".join(([f"{len(words)} 7"] if header else []) + body) + "\n")
    peer = gensim.KeyedVectors.load_word2vec_format(str(path), binary=False, no_header=not header)
    found, rows = read(path)
    assert found == peer.index_to_key and np.array_equal(rows, peer.vectors)
    assert read(path, limit=5)[0] == found[:5]


def test_reads_what_gensim_writes(path: Path):
    gensim = pytest.importorskip("gensim.models")
    peer = gensim.KeyedVectors(5)
    peer.add_vectors(words := [f"w{i}" for i in range(30)], vectors(30, 5))
    peer.save_word2vec_format(str(path))
    found, rows = read(path)
    assert found == words and np.array_equal(rows, peer.vectors)


word = st.text(st.characters(exclude_characters="\n\r\t ", exclude_categories=["Cs"]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(word, min_size=1, max_size=20, unique=True), st.integers(1, 4), st.integers(1, 99))
def test_reads_any_word_without_spaces(tmp_path: Path, words: list[str], d: int, block: int):
    x = vectors(len(words), d)
    path = write(tmp_path / "v.txt", "\n".join(lines(words, x)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "BLOCK_BYTES", block)
        found, rows = read(path, header=False)
    assert found == words and np.array_equal(rows, x)


def test_reads_words_with_spaces(path: Path):
    words = ["the", ". . .", "at name@domain.com", "no 1 here", "last"]
    x = vectors(5, 4)
    write(path, "\n".join(lines(words, x)))
    found, rows = read(path)
    assert found == words and np.array_equal(rows, x)


def test_reads_a_first_word_with_spaces(path: Path):
    write(path, ". . 1.5 2\na 3 4\n")
    assert read(path)[0] == [". .", "a"]


SPELLINGS = {
    "tabs": "a\t1\t2\t3\nb\t4\t5\t6\n",
    "a tab after the word": "a\t1 2 3\nb\t4 5 6\n",
    "tabs in some lines": "a 1 2 3\nb\t4 5 6",
    "a header with tabs": "2\t3\na\t1\t2\t3\nb\t4\t5\t6\n",
    "a byte-order mark": "\ufeffa 1 2 3\nb 4 5 6\n",
    "a byte-order mark before a header": "\ufeff2 3\na 1 2 3\nb 4 5 6\n",
    "CR": "a 1 2 3\rb 4 5 6\r",
    "CR and LF": "a 1 2 3\rb 4 5 6\n\n",
    "CRLF": "a 1 2 3\r\nb 4 5 6\r\n\r\n",
}


@pytest.mark.parametrize("block", [1, 8, 1 << 20])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_separator_and_line_end_gives_the_same_rows(
    path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str, block: int
):
    monkeypatch.setattr(text, "BLOCK_BYTES", block)
    words, rows = read(write(path, SPELLINGS[spelling]))
    assert words == ["a", "b"] and rows.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_with_a_header_a_word_may_end_with_a_number(path: Path):
    words = ["route 66", "a\tb", "area\t51", "7", "x"]
    x = vectors(5, 3)
    write(path, "\n".join(["5 3", *lines(words, x)]))
    found, rows = read(path)
    assert found == words and np.array_equal(rows, x)


def test_reads_words_that_look_like_a_header(path: Path):
    write(path, "3 1\n44 2.5\n")
    assert read(path, header=False)[0] == ["3", "44"]
    with pytest.raises(GpuzipError, match="must have 3 rows, as in its header; it has 1"):
        read(path)


@pytest.mark.parametrize("number", ["1e-3", "+1", ".5", "5.", "-0", "1E5"])
def test_reads_every_number_format(path: Path, number: str):
    write(path, f"a {number} 2\n")
    assert read(path)[1].tolist() == [[np.float32(number), 2]]


WRONG: dict[str, tuple[str | bytes, str]] = {
    "too few numbers": ("a 1 2 3\nb 1 2\n", "line 2: must have 3 numbers, as the lines before; got 2"),
    "one number": ("a 1 2 3\nb 1\n", "line 2: must have 3 numbers, as the lines before; got 1"),
    "no numbers": ("a 1 2 3\nb\n", "line 2: must have 3 numbers, as the lines before; got 0"),
    "too many numbers": ("a 1 2 3\nb 1 2 3 4\n", "line 2: must have 3 numbers, as the lines before; got 4"),
    "no number": ("a 1 2 3\nb 1 x 3\n", "line 2: must have 3 numbers after the word; got 'x'"),
    "an underscore": ("a 1 2 3\nb 1 1_0 3\n", "line 2: must have 3 numbers after the word; got '1_0'"),
    "hexadecimal": ("a 1 2 3\nb 1 0x1 3\n", "line 2: must have 3 numbers after the word; got '0x1'"),
    "two spaces": ("a 1 2 3\nb 1  3\n", "line 2: must have 3 numbers after the word; got ''"),
    "two spaces first": ("a 1 2 3\nb  1 2 3\n", "line 2: must have one space"),
    "tabs": ("a 1 2 3\nb 1\t2 3 4\n", "line 2: must have 3 numbers, as the lines before; got 4"),
    "two tabs": ("a 1 2 3\nb 1\t\t3\n", "line 2: must have 3 numbers after the word; got ''"),
    "a zero byte": (b"a 1 2 3\nb 1 \x002 3\n", "line 2: must have 3 numbers after the word; got '.x002'"),
    "UTF-16": ("a 1 2 3\n".encode("utf-16"), "line 1: begins with the byte-order mark of UTF-16"),
    "errors that add up": ("a 1 2 3\nb 1\t2 3  4\nc 1 2\n", "line 2"),
    "nan": ("a 1 2 3\nb 1 nan 3\n", "line 2: numbers must be finite float32"),
    "inf": ("a 1 2 3\nb 1 -inf 3\n", "line 2: numbers must be finite"),
    "beyond float32": ("a 1 2 3\nb 1 1e39 3\n", "line 2: numbers must be finite"),
    "an empty line": ("a 1 2 3\n\nb 1 2 3\n", "line 2: is empty"),
    "a first line without numbers": ("abc\n", "line 1: must be a word and numbers; got 'abc'"),
    "a header of too many rows": ("3 2\na 1 2\nb 1 2\n", "must have 3 rows, as in its header; it has 2"),
    "a header of too few rows": ("1 2\na 1 2\nb 1 2\n", "line 3: the header says 1 rows, this is one more"),
    "a header of fewer numbers": (
        "2 2\na 1 2 3\nb 1 2 3\n",
        "line 2: must have 2 numbers, as the header says; got 3",
    ),
    "a header of more numbers": (
        "2 3\na 1 2\nb 1 2\n",
        "line 2: must have 3 numbers, as the lines before; got 2",
    ),
    "a header of no dimensions": ("2 0\na\nb\n", "line 1: the header says 0 dimensions"),
    "a header of a huge size": (
        "999999999999 300\na 1 2\n",
        "line 1: the header says 999999999999 rows of 300",
    ),
    "a header of wide rows": ("1 999999999999\na 1 2\n", "line 1: .* the file has 21 bytes"),
    "not UTF-8": (b"a 1 2\n\xff\xfe 1 2\n", r"line 2: the word b'\\xff\\xfe' is not UTF-8.*replace"),
    "a word twice": ("a 1 2\nb 1 2\na 3 4\n", "line 3: the word 'a' is repeated.*first"),
    "nothing": ("", "must hold at least one word"),
    "empty lines alone": ("\n\n", "must hold at least one word"),
    "a header alone": ("0 5\n", "must hold at least one word"),
}


@pytest.mark.parametrize("block", [5, 1 << 20])
@pytest.mark.parametrize("wrong", WRONG)
def test_refuses_invalid_files_and_names_the_line(
    path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, block: int
):
    monkeypatch.setattr(text, "BLOCK_BYTES", block)
    body, message = WRONG[wrong]
    with pytest.raises(GpuzipError, match=message) as caught:
        read(write(path, body))
    assert str(path) in str(caught.value)


def test_line_numbers_count_all_blocks(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text, "BLOCK_BYTES", 100)
    body = ["500 4", *lines([f"w{i}" for i in range(500)], vectors(500, 4))]
    body[321] = "word 1 2 oh 4"
    with pytest.raises(GpuzipError, match=r"line 322: .*; got 'oh'"):
        read(write(path, "\n".join(body)))


def test_refuses_a_missing_header_if_header_is_true(path: Path):
    with pytest.raises(GpuzipError, match="line 1: must be a header of two whole numbers; got 'a 1 2'"):
        read(write(path, "a 1 2\n"), header=True)


def test_refuses_a_file_without_lines_before_reading_it_whole(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(text, "LINE_LIMIT", 5000)
    with pytest.raises(GpuzipError, match="lines must have at most 5000 bytes"):
        read(write(path, "a" + " 1" * 10_000))


def test_limit_stops_reading(path: Path):
    body = "4 2\na 1 2\nb 3 4\nc is wrong\nd 1 2\n"
    assert read(write(path, body), limit=2)[0] == ["a", "b"]
    with pytest.raises(GpuzipError, match="line 4"):
        read(path, limit=3)


@pytest.mark.parametrize(("errors", "words"), [("replace", ["a", "b�"]), ("ignore", ["a", "b"])])
def test_decodes_invalid_utf8_as_gensim_does(path: Path, errors: str, words: list[str]):
    write(path, b"2 2\na 1 2\nb\xff 3 4\n")
    assert read(path, Policy(unicode_errors=errors))[0] == words
    gensim = pytest.importorskip("gensim.models")
    peer = gensim.KeyedVectors.load_word2vec_format(str(path), binary=False, unicode_errors=errors)
    assert peer.index_to_key == words


@pytest.mark.parametrize("block", [5, 1 << 20])
@pytest.mark.parametrize(("duplicates", "a"), [("first", 1), ("last", 3)])
def test_duplicates_keeps_the_first_or_the_last_vector(
    path: Path, monkeypatch: pytest.MonkeyPatch, duplicates: str, a: int, block: int
):
    monkeypatch.setattr(text, "BLOCK_BYTES", block)
    write(path, "4 1\na 1\na 2\nb 9\na 3\n")
    words, rows = read(path, Policy(duplicates=duplicates))
    assert words == ["a", "b"] and rows.tolist() == [[a], [9]]


@pytest.mark.parametrize("policy", [{"unicode_errors": "maybe"}, {"duplicates": "no"}])
def test_refuses_an_unknown_policy(policy: dict):
    with pytest.raises(GpuzipError, match="one of"):
        Policy(**policy)


def test_progress_reports_bytes(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text, "BLOCK_BYTES", 500)
    write(path, "\n".join(lines([f"w{i}" for i in range(100)], vectors(100, 4))))
    told: list[tuple[int, int]] = []
    read(path, progress=lambda done, total: told.append((done, total)))
    size = path.stat().st_size
    assert len(told) > 5 and told == sorted(told) and told[-1] == (size, size)


def test_a_bar_is_shown_with_rich_and_without(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    write(path, "a 1 2\n")
    pytest.importorskip("rich")
    assert read(path, progress=True)[0] == ["a"]
    assert "v.txt" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    assert read(path, progress=True)[0] == ["a"]
    assert "B of" in capsys.readouterr().err
    with pytest.raises(GpuzipError, match=r"progress must be .*; got 3"):
        read(path, progress=3)


def test_refuses_a_path_that_is_not_a_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        read(tmp_path)


def test_temporary_file_is_in_tmp_dir_and_removed(path: Path, tmp_path: Path):
    write(path, "a 1 2\nb 1 oh\n")
    folder = tmp_path / "tmp"
    folder.mkdir()
    with pytest.raises(GpuzipError):
        WordVectors.from_text(path, tmp_dir=folder)
    write(path, "a 1 2\nb 1 3\n")
    assert len(WordVectors.from_text(path, tmp_dir=folder)) == 2
    assert list(folder.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        WordVectors.from_text(path, tmp_dir=tmp_path / "none")


def test_memory_does_not_grow_with_the_file(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text, "BLOCK_BYTES", 1 << 18)
    body = " ".join(f"{v:.4f}" for v in vectors(1, 300)[0])
    with open(path, "w") as file:
        file.writelines(f"w{i} {body}\n" for i in range(8000))
    size = path.stat().st_size
    assert size > 16 << 20
    with Collector(str(path), Policy()) as collector:
        tracemalloc.start()
        try:
            read_text(path, collector)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert collector.rows().shape == (8000, 300)
    assert peak < 4 << 20  # the words alone take 1 MB of it
