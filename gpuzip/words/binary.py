"""Reader of word2vec's binary format: a line "N D", then for each word its bytes, a space and D float32."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from gpuzip._core.progress import Progress, reporting
from gpuzip.errors import GpuzipError
from gpuzip.words.collector import Collector, Floats
from gpuzip.words.files import opened

#: Bytes per read.
BLOCK_BYTES = 4 << 20
#: Longest word in bytes; a longer one means that the file is of another format.
WORD_LIMIT = 1 << 16

_HEADER = re.compile(rb"(\d{1,18}) (\d{1,18}) *\r?\n")


def read_binary(
    path: str | os.PathLike[str], into: Collector, *, limit: int | None = None, progress: Progress = None
) -> None:
    """Read a file into the collector in bounded memory.

    limit: number of rows to read, from the first. Floats are little-endian. A vector may end with \\n, as the
    original word2vec writes it. Raises GpuzipError, which names the row, if the file contradicts its header.
    """
    with opened(path) as file:
        header = file.readline(64)
        n, d = _counts(header, into.source, None if file.size is None else file.size - len(header))
        wanted = n if limit is None else min(n, limit)
        done, rest = 0, b""
        with reporting("WordVectors", progress, Path(path).name, file.total, of_bytes=True) as report:
            while done < wanted:
                block = file.read(BLOCK_BYTES)
                if not block:
                    raise _error(into.source, done, "is incomplete: the file ends")
                words, rows, rest = _taken(rest + block, d, wanted - done)
                first = done
                if words:
                    into.add(words, rows, lambda i, first=first: f"row {first + i}")  # type: ignore[misc]
                done += len(words)
                if done < wanted and _word_length(rest) > WORD_LIMIT:
                    raise _error(into.source, done, f"has a word of more than {WORD_LIMIT} bytes")
                report(file.done)
        if wanted == n and (rest + file.read(64)).strip(b"\r\n"):
            raise GpuzipError(
                f"{into.source}: must end after the {n} rows of {d} numbers in its header; more bytes "
                "follow. "
                "Correct the header."
            )


def _counts(header: bytes, source: str, size: int | None) -> tuple[int, int]:
    match = _HEADER.fullmatch(header)
    if match is None or int(match[2]) == 0:
        raise GpuzipError(
            f"{source}: must begin with a line of two whole numbers, rows and dimensions; got "
            f"{header[:40]!r}. For a text file, use from_text."
        )
    n, d = int(match[1]), int(match[2])
    if size is not None and n * (4 * d + 1) > size:
        raise GpuzipError(
            f"{source}: must have at least {n * (4 * d + 1)} bytes for {n} rows of {d} numbers; it has "
            f"{size}. "
            "It is incomplete, or not in word2vec's binary format."
        )
    return n, d


def _taken(buffer: bytes, d: int, most: int) -> tuple[list[bytes], Floats, bytes]:
    """Split a buffer into its complete rows and the rest."""
    words: list[bytes] = []
    vectors: list[bytes] = []
    start = 0
    while len(words) < most:
        space = buffer.find(b" ", start)
        stop = space + 1 + 4 * d
        if space < 0 or stop > len(buffer):
            break
        words.append(buffer[start:space].lstrip(b"\n"))
        vectors.append(buffer[space + 1 : stop])
        start = stop
    rows = np.frombuffer(b"".join(vectors), "<f4").reshape(len(words), d)
    return words, rows, buffer[start:]


def _word_length(rest: bytes) -> int:
    space = rest.find(b" ")
    return len(rest) if space < 0 else space


def _error(source: str, row: int, what: str) -> GpuzipError:
    return GpuzipError(f"{source}: row {row} {what}. It is incomplete, or not in word2vec's binary format.")
