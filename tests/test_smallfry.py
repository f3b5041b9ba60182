"""smallfry's functions and file formats: bit strings, most significant bit first."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gpuzip.codecs import lloyd_max, lloyd_max_mixed
from gpuzip.codecs.mixed import MixedCodes
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.interop import smallfry
from gpuzip.words import WordVectors, legacy

V, DIM = 50, 7
WORDS = [f"w{i}é" for i in range(V)]


def bit_file(path: Path, codes: np.ndarray, bits: int) -> None:
    """Write codes one after the other as 0s and 1s, padded to a byte at the end."""
    text = "".join(format(code, f"0{bits}b") for code in codes.reshape(-1).tolist())
    text += "0" * (-len(text) % 8)
    path.write_bytes(bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8)))


def write_folder(
    folder: Path,
    allots: list[int],
    starts: list[int],
    words: str = "list",
    dim: int = DIM,
    pickled: bool = False,
) -> np.ndarray:
    """Write a folder of version 0. Return the rows that it stands for, (V, dim)."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    codebooks, rows = [], []
    for i, (bits, start, stop) in enumerate(zip(allots, starts, [*starts[1:], V], strict=True)):
        codebook = draw.standard_normal((1 << bits, 1))  # in no order, as k-means leaves it
        codes = draw.integers(0, 1 << bits, (stop - start, dim))
        if bits:
            bit_file(folder / f"submat{i}", codes, bits)
        else:
            (folder / f"submat{i}").touch()
        codebooks.append(codebook)
        rows.append(codebook[codes, 0])
    if pickled:
        array = np.empty(len(codebooks), object)
        array[:] = codebooks
        np.save(folder / "codebks.npy", array, allow_pickle=True)
    elif len(set(allots)) == 1:
        np.save(folder / "codebks.npy", np.array(codebooks))
    else:
        (folder / "codebks.json").write_text(json.dumps([codebook.tolist() for codebook in codebooks]))
    (folder / "metadata").write_text(json.dumps({"allots": allots, "dim": dim, "allot_indices": starts}))
    write_words(folder, words)
    return np.concatenate(rows).astype(np.float32)


def write_words(folder: Path, words: str) -> None:
    if words == "list":
        (folder / "words.list.txt").write_text("\n".join(WORDS), encoding="utf-8")
    elif words == "trie":
        marisa_trie = pytest.importorskip("marisa_trie")
        numbers = [(i,) for i in range(V)]
        marisa_trie.RecordTrie("I", zip(WORDS, numbers, strict=True)).save(str(folder / "words.trie.marisa"))
    elif words == "dict":
        pickled = np.array({word: i for i, word in enumerate(WORDS)}, object)
        np.save(folder / "words.dict.npy", pickled, allow_pickle=True)


@pytest.fixture(autouse=True)
def _levels_in_no_time(monkeypatch: pytest.MonkeyPatch):
    """Replace the search for the best levels, which has its own tests, by quantiles."""

    def quantiles(values: Tensor, K: int) -> Tensor:
        return values.float().quantile((torch.arange(K) + 0.5) / K, dim=1).T.contiguous()

    for module in (lloyd_max, lloyd_max_mixed):
        monkeypatch.setattr(module, "optimal_levels", quantiles)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "old.sfry"


@pytest.mark.parametrize("block", [1, 1 << 20])
@pytest.mark.parametrize("words", ["list", "trie"])
@pytest.mark.parametrize("bits", range(9))
def test_reads_a_folder_of_one_part(
    path: Path, monkeypatch: pytest.MonkeyPatch, bits: int, words: str, block: int
):
    monkeypatch.setattr(legacy, "BLOCK_BYTES", block)
    rows = write_folder(path, [bits], [0], words)
    wv = smallfry.load(path)
    assert list(wv) == WORDS and np.array_equal(wv.query(WORDS).numpy(), rows)
    assert np.array_equal(wv.query_idx(7).numpy(), rows[7])


@pytest.mark.parametrize("words", ["list", "trie"])
def test_reads_a_folder_whose_parts_differ_in_bits(path: Path, words: str, tmp_path: Path):
    pytest.importorskip("pyarrow")
    rows = write_folder(path, [8, 5, 3, 3, 1, 0], [0, 3, 10, 21, 30, 44], words)
    wv = smallfry.load(path)
    assert isinstance(wv.codes, MixedCodes) and len(wv.codes.parts) == 6
    assert np.array_equal(wv.query(WORDS).numpy(), rows)
    nearest = wv.most_similar(torch.from_numpy(rows[2]), topn=1)
    assert nearest[0][0] == WORDS[2]
    wv.save(tmp_path / "new.sfry")
    again = smallfry.load(tmp_path / "new.sfry")
    assert list(again) == WORDS and torch.equal(again.query(WORDS), wv.query(WORDS))


def test_reads_every_plain_array_as_codebooks(path: Path):
    rows = write_folder(path, [2, 2], [0, 20])
    codebooks = np.load(path / "codebks.npy", allow_pickle=False)
    for form in (np.asfortranarray(codebooks), codebooks.astype(">f8"), codebooks.astype(np.float32)):
        np.save(path / "codebks.npy", form)
        assert np.allclose(smallfry.load(path).query(WORDS).numpy(), rows)


NPY_HEADERS = [
    b"",
    b"{",
    b"(" * 9000,
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -2, 1), }",
    b"{'descr': '<f8', 'fortran_order': False, 'shape': ('a',), }",
    b"{'descr': 7, 'fortran_order': False, 'shape': (1,), }",
    b"{'descr': ('<f8', ()), 'fortran_order': False, 'shape': (1,), }",
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (10" + b"0" * 300 + b",), }",
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (), }",
    b'"' * 3,
    b"\xff\xfe",
]


@pytest.mark.parametrize("header", NPY_HEADERS, ids=lambda header: header[:60])
@pytest.mark.parametrize("version", [1, 2, 3, 9])
def test_a_forged_array_raises_nothing_but_a_format_error(path: Path, header: bytes, version: int):
    write_folder(path, [1], [0])
    size = len(header).to_bytes(2 if version == 1 else 4, "little")
    (path / "codebks.npy").write_bytes(b"\x93NUMPY" + bytes([version, 0]) + size + header + bytes(16))
    with pytest.raises(FormatError, match=r"codebks\.npy"):
        smallfry.load(path)


def test_pickles_are_refused_with_a_way_out(path: Path, tmp_path: Path):
    rows = write_folder(path, [4, 1], [0, 20], "dict", pickled=True)
    with pytest.raises(FormatError, match=r"words\.dict\.npy: is a pickle.*words\.list\.txt"):
        smallfry.load(path)
    word2idx = {word: i for i, word in enumerate(WORDS)}
    with pytest.raises(FormatError, match=r"codebks\.npy: is a pickle.*codebks\.json"):
        smallfry.load(path, word2idx)
    advised(legacy._TO_JSON, path)
    assert np.array_equal(smallfry.load(path, word2idx).query(WORDS).numpy(), rows)
    advised(smallfry._TO_LIST, path)
    assert list(smallfry.load(path)) == WORDS


def advised(advice: str, folder: Path) -> None:
    """Run the command that a message advises in a shell."""
    command = advice[advice.index("python -c") :].replace("python", sys.executable, 1)
    subprocess.run(command, shell=True, cwd=folder, check=True)


def test_load_takes_words_from_the_caller(path: Path):
    rows = write_folder(path, [3], [0], words="none")
    with pytest.raises(FormatError, match=r"has no words\. Pass word2idx"):
        smallfry.load(path)
    shuffled = dict(sorted({word: i for i, word in enumerate(WORDS)}.items(), key=lambda item: item[0]))
    for words in (shuffled, WORDS, tuple(WORDS), {word: np.int64(i) for word, i in shuffled.items()}):
        assert np.array_equal(smallfry.load(path, words).query(WORDS).numpy(), rows)
    for wrong in ({"a": 0, "b": 0}, {"a": 1}, {"a": -1}, {"a": "0"}):
        with pytest.raises(FormatError, match=r"word2idx: words must have the rows 0, 1, "):
            smallfry.load(path, wrong)


def metadata(**changes: Any) -> Any:
    def change(folder: Path) -> None:
        old = json.loads((folder / "metadata").read_text())
        (folder / "metadata").write_text(json.dumps(old | changes))

    return change


def file(name: str, data: bytes | None) -> Any:
    def change(folder: Path) -> None:
        (folder / name).unlink() if data is None else (folder / name).write_bytes(data)

    return change


LIES = {
    "no metadata": (file("metadata", None), "metadata: is missing"),
    "metadata in no JSON": (file("metadata", b"{"), "metadata: must be JSON"),
    "metadata of others": (file("metadata", b"[]"), "metadata: must hold allots, allot_indices, dim"),
    "more dimensions": (metadata(dim=8), r"submat0: must have 30 bytes for its rows; it has 27"),
    "a huge size": (metadata(dim=1 << 60), "metadata: must divide the 50 words"),
    "no dimensions": (metadata(dim=0), "metadata: must divide"),
    "other bits": (metadata(allots=[3, 3]), "submat1: must have 105 bytes"),
    "nine bits": (metadata(allots=[9, 2]), "metadata: must divide"),
    "a part more": (
        metadata(allots=[3, 2, 1], allot_indices=[0, 10, 20]),
        "must have one codebook per part; it has 2 for 3 parts",
    ),
    "parts out of order": (metadata(allot_indices=[10, 0]), "metadata: must divide"),
    "parts beyond the words": (metadata(allot_indices=[0, 50]), "metadata: must divide"),
    "a part cut off": (file("submat1", b"\0"), "submat1: must have 70 bytes for its rows; it has 1"),
    "a part missing": (file("submat1", None), "submat1: is missing"),
    "no codebooks": (file("codebks.json", None), r"codebks\.npy: is missing"),
    "codebooks of few levels": (
        file("codebks.json", b"[[1,2],[1,2]]"),
        r"must have 8 levels; it has shape \(2, 1\)",
    ),
    "codebooks of NaN": (
        file("codebks.json", b"[[1,NaN],[1,2]]"),
        r"codebks\.json: a codebook must be 2-D and finite",
    ),
    "codebooks of text": (
        file("codebks.json", b'[["a"],[1]]'),
        r"codebks\.json: a codebook must hold numbers",
    ),
    "codebooks of nothing": (file("codebks.json", b"{}"), r"codebks\.json: must hold a list"),
    "fewer words": (file("words.list.txt", b"a\nb"), "metadata: must divide the 2 words"),
    "words twice": (file("words.list.txt", b"\n".join([b"a"] * V)), "'a' is in rows 0 and 1"),
    "words in no UTF-8": (file("words.list.txt", b"\xff"), r"words\.list\.txt: must be UTF-8"),
}


@pytest.mark.parametrize("lie", LIES)
def test_refuses_a_false_folder(path: Path, lie: str):
    write_folder(path, [3, 2], [0, 10])
    change, message = LIES[lie]
    change(path)
    with pytest.raises(GpuzipError, match=message):
        smallfry.load(path)


def test_refuses_a_false_numpy_file(path: Path):
    write_folder(path, [2], [0])
    data = (path / "codebks.npy").read_bytes()
    for wrong in (data[:-1], data[:20], b"", data.replace(b"(1, 4, 1)", b"(9, 4, 1)"), data + b"\0"):
        (path / "codebks.npy").write_bytes(wrong)
        with pytest.raises(FormatError, match=r"codebks\.npy"):
            smallfry.load(path)
    with open(path / "codebks.npy", "wb") as sparse:
        sparse.truncate(legacy.SMALL_FILE + 1)
    with pytest.raises(FormatError, match="must have at most"):
        smallfry.load(path)


def test_refuses_an_invalid_trie(path: Path):
    pytest.importorskip("marisa_trie")
    write_folder(path, [2], [0], words="none")
    (path / "words.trie.marisa").write_bytes(b"no trie")
    with pytest.raises(FormatError, match=r"words\.trie\.marisa: cannot be read as a trie"):
        smallfry.load(path)


def write_pair(path: Path, bits: int, block_len: int, dim: int, n: int = 33) -> np.ndarray:
    """Write both files of version 1. Return the rows that they stand for."""
    draw = np.random.default_rng(1)
    codebook = draw.standard_normal((1 << bits, block_len))
    codes = draw.integers(0, 1 << bits, (n, dim // block_len))
    bit_file(path, codes, bits)
    path.with_name(path.name + ".meta").write_text(json.dumps([codebook.tolist(), dim]))
    return codebook[codes].reshape(n, dim).astype(np.float32)


@pytest.mark.parametrize("block", [1, 1 << 20])
@pytest.mark.parametrize(
    ("bits", "block_len", "dim"), [(1, 1, 9), (3, 1, 7), (4, 2, 10), (5, 3, 9), (8, 1, 5)]
)
def test_reads_a_pair_of_files(
    path: Path, monkeypatch: pytest.MonkeyPatch, bits: int, block_len: int, dim: int, block: int
):
    monkeypatch.setattr(legacy, "BLOCK_BYTES", block)
    rows = write_pair(path, bits, block_len, dim)
    wv = smallfry.load(path)
    assert list(wv) == [str(i) for i in range(33)]
    assert np.array_equal(wv.query_idx(range(33)).numpy(), rows)
    assert np.array_equal(wv["30"].numpy(), rows[30])
    named = smallfry.load(path, WORDS[:33])
    assert np.array_equal(named.query(WORDS[:33]).numpy(), rows)


def test_needs_words_if_rows_are_shorter_than_a_byte(path: Path):
    write_pair(path, 1, 1, 7, n=1)
    assert len(smallfry.load(path)) == 1
    rows = write_pair(path, 1, 1, 2, n=3)  # 6 bits of 8, and room for a fourth
    with pytest.raises(FormatError, match=r"may hold 4 rows of 2 bits or fewer.*Pass word2idx"):
        smallfry.load(path)
    assert np.array_equal(smallfry.load(path, "abc").query(list("abc")).numpy(), rows)


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (b"[[[1],[2],[3]], 4]", "3 points of 1 dimensions"),
        (b"[[[1]], 4]", "1 points"),
        (b"[[[1,2],[2,3]], 3]", "2 points of 2 dimensions for rows of 3"),
        (b"[[[1],[2,3]], 3]", "must hold numbers"),
        (b"[[[1],[Infinity]], 3]", "must be 2-D and finite"),
        (b"[[[1],[2]], -3]", "a codebook and a number of dimensions"),
        (b"[[[1],[2]], 1e3]", "a codebook and a number of dimensions"),
        (b"{}", "a codebook and a number of dimensions"),
        (b"nonsense", "must be JSON"),
    ],
)
def test_refuses_a_false_pair_of_files(path: Path, meta: bytes, message: str):
    write_pair(path, 1, 1, 8)
    path.with_name(path.name + ".meta").write_bytes(meta)
    with pytest.raises(FormatError, match=message):
        smallfry.load(path)


def test_refuses_a_pair_of_the_wrong_size(path: Path):
    write_pair(path, 1, 1, 30)
    for n in (32, 34):
        with pytest.raises(FormatError, match=r"old\.sfry: must have 1.. bytes for its rows; it has 124"):
            smallfry.load(path, [str(i) for i in range(n)])
    path.with_name(path.name + ".meta").unlink()
    with pytest.raises(FormatError, match=r"\.meta: is missing"):
        smallfry.load(path)
    with pytest.raises(FileNotFoundError):
        smallfry.load(path / "none")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    x = np.random.default_rng(0).standard_normal((V, DIM))
    lines = (f"{word} {' '.join(map(str, row))}" for word, row in zip(WORDS, x, strict=True))
    (tmp_path / "glove.txt").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "glove.txt"


def prior(path: Path, form: str) -> Path:
    counts = {word: 10**6 // (i + 1) ** 3 + 1 for i, word in enumerate(WORDS[:30])}
    if form == "json":
        path.write_text(json.dumps(counts))
    else:
        end = "\t" if form == "tabs" else " "
        path.write_text("\n".join(f"{word}{end}{n}" for word, n in counts.items()) + "\n\n")
    return path


@pytest.mark.parametrize(("word_rep", "kind"), [("trie", "trie"), ("dict", "arrow"), ("list", "arrow")])
@pytest.mark.parametrize("R", [1, 2, 8])
def test_compress_uses_R_bits_per_value(source: Path, path: Path, word_rep: str, kind: str, R: int):
    pytest.importorskip("marisa_trie" if kind == "trie" else "pyarrow")
    wv = smallfry.compress(source, path, R=R, word_rep=word_rep)
    assert wv.words.kind == kind and list(wv) == WORDS and bits(wv) == [R]
    assert torch.equal(smallfry.load(path).query(WORDS), wv.query(WORDS))


@pytest.mark.parametrize("form", ["json", "lines", "tabs"])
def test_compress_gives_frequent_words_more_bits(source: Path, path: Path, tmp_path: Path, form: str):
    wv = smallfry.compress(source, path, prior(tmp_path / "p", form), R=2)
    assert isinstance(wv.codes, MixedCodes) and len(wv.codes.parts) > 1
    assert set(list(wv)[: len(wv.codes.parts[0])]) < set(WORDS[:10]) and set(wv) == set(WORDS)


def test_compress_keeps_max_bitrate(source: Path, path: Path, tmp_path: Path):
    frequencies = prior(tmp_path / "p", "json")
    free = smallfry.compress(source, path, frequencies, R=2)
    bound = smallfry.compress(source, tmp_path / "b", frequencies, R=2, max_bitrate=3)
    assert max(bits(free)) > 3 >= max(bits(bound))
    assert max(bits(smallfry.compress(source, tmp_path / "c", R=5, max_bitrate=3))) <= 3


def bits(wv: WordVectors) -> list[int]:
    parts = wv.codes.parts if isinstance(wv.codes, MixedCodes) else [wv.codes]
    return [part.codec.config()["bits"] for part in parts]


def test_compress_keeps_mem_budget(source: Path, path: Path, tmp_path: Path):
    assert smallfry.compress(source, path, mem_budget=2800).codes.nbytes <= 1300
    smallfry.compress(source, tmp_path / "w", prior(tmp_path / "p", "json"), mem_budget=30_000)
    assert sum(file.stat().st_size for file in (tmp_path / "w").glob("part-*")) <= 30_000


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_and_a_byte_order_mark_are_read(path: Path, tmp_path: Path, end: str):
    (tmp_path / "p").write_bytes(f"\ufeffa 1{end}b\t2{end}".encode())
    assert smallfry.read_prior(tmp_path / "p") == {"a": 1, "b": 2}
    write_folder(path, [1], [0])
    (path / "words.list.txt").write_bytes(("\ufeff" + end.join(WORDS)).encode())
    assert list(smallfry.load(path)) == WORDS


def test_refuses_invalid_arguments(source: Path, path: Path, tmp_path: Path):
    with pytest.raises(GpuzipError, match=r"word_rep must be .*; got 'pickle'"):
        smallfry.compress(source, path, word_rep="pickle")
    path.mkdir()
    with pytest.raises(FileExistsError, match="must not exist"):
        smallfry.compress(source, path)
    np.save(tmp_path / "prior.npy", np.array({"a": 1}, object), allow_pickle=True)
    with pytest.raises(FormatError, match=r"is a pickle.*prior\.json"):
        smallfry.read_prior(tmp_path / "prior.npy")
    for wrong in ("a b\n", "a 1\nb\n", '{"a": "x"}', '{"a": [1]}', "", "{}", "\n"):
        (tmp_path / "p").write_text(wrong)
        with pytest.raises(FormatError, match="p: "):
            smallfry.read_prior(tmp_path / "p")
