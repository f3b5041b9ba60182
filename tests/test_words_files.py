"""Files of word vectors that are compressed, are pipes, or are in another encoding."""

import bz2
import gzip
import lzma
import os
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gpuzip.errors import GpuzipError
from gpuzip.words import WordVectors

X = np.random.default_rng(0).standard_normal((50, 4)).astype("<f4")
TEXT = "".join(f"w{i} {' '.join(map(repr, row))}\n" for i, row in enumerate(X.tolist())).encode()
BINARY = b"50 4\n" + b"".join(f"w{i} ".encode() + row.tobytes() for i, row in enumerate(X))
READERS: dict[str, tuple[Callable[..., WordVectors], bytes]] = {
    "text": (WordVectors.from_text, TEXT),
    "header": (WordVectors.from_text, b"50 4\n" + TEXT),
    "binary": (WordVectors.from_binary, BINARY),
}
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "plain": bytes,
}


def zipped(path: Path, *bodies: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i, body in enumerate(bodies):
            archive.writestr(f"folder/v{i}.txt", body)
    return path


def check(words: WordVectors, n: int = 50) -> None:
    assert list(words) == [f"w{i}" for i in range(n)]
    assert words.codes.shape == (n, 4)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("packer", [*PACKERS, "zip"])
def test_every_compression_is_read_whatever_the_name(tmp_path: Path, reader: str, packer: str):
    read, body = READERS[reader]
    path = tmp_path / "vectors.txt"
    if packer == "zip":
        zipped(path, body)
    else:
        path.write_bytes(PACKERS[packer](body))
    told: list[tuple[int, int]] = []
    check(read(path, progress=lambda done, total: told.append((done, total))))
    assert told[-1][1] == path.stat().st_size
    check(read(path, limit=7), 7)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("packer", PACKERS)
def test_a_named_pipe_is_read(tmp_path: Path, reader: str, packer: str):
    read, body = READERS[reader]
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(PACKERS[packer](body),))
    writer.start()
    check(read(path))
    writer.join()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("packer", ["gz", "bz2", "xz"])
def test_damaged_compressed_data_is_refused_by_name(tmp_path: Path, reader: str, packer: str):
    read, body = READERS[reader]
    path = tmp_path / "v"
    path.write_bytes(PACKERS[packer](body)[:-20])
    with pytest.raises(GpuzipError, match=r"v: its compressed data must be whole; got .*Fetch"):
        read(path)


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"\x28\xb5\x2f\xfd more", "it is of zstd format"),
        (b"\x89HDF\r\n", "it is of HDF5 format"),
        (b"PK\x03\x04 no more", "must be a whole zip archive"),
    ],
)
def test_another_format_is_named(tmp_path: Path, body: bytes, match: str):
    (tmp_path / "v").write_bytes(body)
    for read in (WordVectors.from_text, WordVectors.from_binary):
        with pytest.raises(GpuzipError, match=match):
            read(tmp_path / "v")


def test_an_archive_of_several_files_names_them(tmp_path: Path):
    with pytest.raises(GpuzipError, match=r"zip archive of one file; it has 2: .*v0\.txt.*v1\.txt"):
        WordVectors.from_text(zipped(tmp_path / "v.zip", TEXT, TEXT))


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "gb18030", "shift_jis", "utf-8-sig"])
def test_words_are_read_in_their_encoding(tmp_path: Path, encoding: str):
    words = ["caf\u00e9"] if encoding in ("latin-1", "cp1252") else ["\u8868", "\u65e5\u672c"]
    (tmp_path / "t").write_bytes("".join(f"{word} 1 2\n" for word in words).encode(encoding))
    assert list(WordVectors.from_text(tmp_path / "t", encoding=encoding)) == words
    start, row = f"{len(words)} 2\n".encode(), X[0, :2].tobytes()
    body = start + b"".join(word.encode(encoding) + b" " + row for word in words)
    (tmp_path / "b").write_bytes(body)
    assert list(WordVectors.from_binary(tmp_path / "b", encoding=encoding)) == words


def test_an_encoding_that_cannot_be_read_is_refused(tmp_path: Path):
    (tmp_path / "t").write_bytes(b"caf\xe9 1 2\n")
    with pytest.raises(GpuzipError, match=r"line 1: the word .* is not UTF-8 .*Pass encoding="):
        WordVectors.from_text(tmp_path / "t")
    with pytest.raises(GpuzipError, match="encoding must be known to Python; got 'nothing'"):
        WordVectors.from_text(tmp_path / "t", encoding="nothing")
    with pytest.raises(GpuzipError, match=r"encoding must keep ASCII.*UTF-8"):
        WordVectors.from_text(tmp_path / "t", encoding="utf-16")
