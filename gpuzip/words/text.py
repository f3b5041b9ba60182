"""Word vectors in text, a line each: GloVe's, word2vec's and fastText's .vec."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gpuzip.errors import GpuzipError
from gpuzip.words.collector import Collector, Floats
from gpuzip.words.progress import Progress, reporting

#: Bytes of text that are parsed at a time.
BLOCK_BYTES = 4 << 20
#: Bytes of a line beyond which a file is refused: it has no lines, or holds no vectors.
LINE_LIMIT = 16 << 20

_NUMBER = re.compile(rb"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|inf|infinity)", re.IGNORECASE)
_COUNT = re.compile(rb"\d{1,18}")


def read_text(
    path: str | os.PathLike[str],
    into: Collector,
    *,
    header: bool | None = None,
    limit: int | None = None,
    progress: Progress = None,
) -> None:
    """Read a file of lines "word number ... number", in bounded memory.

    header: whether the first line is "V D"; None: it is when it is two whole numbers. limit: so many rows,
    the first. Lines end with \\n or \\r\\n; spaces at their end and empty lines at the file's are left out.
    D is the header's, or as many numbers as the first line ends with. A word may hold spaces: it is what
    is left of the last D numbers, unless that ends with a number too.
    Raises GpuzipError, naming the line, for anything else.
    """
    reader = _Reader(into, header, limit)
    with open(path, "rb") as file, reporting(progress, Path(path).name, _size(file)) as report:
        for lines in _line_blocks(file, into.source):
            reader.add(lines, _size(file))
            report(file.tell())
            if reader.is_full:
                break
    reader.finish()


class _Reader:
    def __init__(self, into: Collector, header: bool | None, limit: int | None) -> None:
        self._into, self._header, self._limit = into, header, limit
        self._d: int | None = None
        self._announced: int | None = None
        self._line = 1  # number of the next line
        self._rows = 0
        self._blank: int | None = None

    @property
    def is_full(self) -> bool:
        return self._limit is not None and self._rows >= self._limit

    def add(self, lines: list[bytes], size: int) -> None:
        lines = self._without_blanks([line.rstrip() for line in lines])
        if lines and self._d is None:
            lines = self._start(lines, size)
        if self._limit is not None:
            lines = lines[: self._limit - self._rows]
        if not lines:
            return
        if self._announced is not None and self._rows + len(lines) > self._announced:
            extra = self._line + self._announced - self._rows
            raise self._error(extra, f"a row more than the {self._announced} that the header says")
        words, rows = self._parsed(lines)
        first = self._line
        self._into.add(words, rows, lambda i: f"line {first + i}")
        self._line += len(lines)
        self._rows += len(lines)

    def finish(self) -> None:
        cut = self._limit is not None and self._rows >= self._limit
        if self._announced is not None and self._rows < self._announced and not cut:
            raise GpuzipError(
                f"{self._into.source}: its header says {self._announced} rows, it has {self._rows}. "
                "It was cut short: fetch it again, or correct the header."
            )

    def _without_blanks(self, lines: list[bytes]) -> list[bytes]:
        """Without the empty lines at the end of the file; others are errors."""
        if self._blank is None and b"" not in lines:
            return lines
        full = [] if self._blank is not None else lines[: lines.index(b"")]
        if self._blank is None:
            self._blank = self._line + len(full)
        if any(lines[len(full) :]):
            raise self._error(self._blank, "is empty")
        return full

    def _start(self, lines: list[bytes], size: int) -> list[bytes]:
        """Find D, in a header or in the first row; the lines without the header."""
        fields = lines[0].split()
        counts = len(fields) == 2 and all(_COUNT.fullmatch(field) for field in fields)
        if self._header and not counts:
            raise self._error(1, f"must be a header of two whole numbers; got {_shown(lines[0])}")
        if not counts or self._header is False:
            self._d = self._width(lines[0])
            return lines
        self._line, self._announced, self._d = 2, int(fields[0]), int(fields[1])
        if self._d == 0:
            raise self._error(1, "the header says 0 dimensions")
        wanted = self._announced if self._limit is None else min(self._announced, self._limit)
        if wanted * (2 * self._d + 1) > size:  # a space and a digit for each number, and an end of line
            raise self._error(
                1, f"the header says {self._announced} rows of {self._d} numbers, the file has {size} bytes"
            )
        return lines[1:]

    def _width(self, line: bytes) -> int:
        fields = line.split(b" ")
        d = len(fields) - 1
        numbers = next((i for i in range(d) if not _NUMBER.fullmatch(fields[-1 - i])), d)
        if numbers == 0:
            raise self._error(self._line, f"{_shown(line)} is no word with numbers after it")
        return numbers

    def _parsed(self, lines: list[bytes]) -> tuple[list[bytes], Floats]:
        """Many lines at once; one by one where any has another number of fields, or no numbers."""
        split = [line.partition(b" ") for line in lines]
        rows = _numbers([rest for _, _, rest in split])
        if rows is not None and rows.shape == (len(lines), self._d):
            return [word for word, _, _ in split], rows
        pairs = [self._parsed_line(line, self._line + i) for i, line in enumerate(lines)]
        return [word for word, _ in pairs], np.concatenate([row for _, row in pairs])

    def _parsed_line(self, line: bytes, number: int) -> tuple[bytes, Floats]:
        assert self._d is not None
        fields = line.split(b" ")
        word, values = fields[: -self._d], fields[-self._d :]
        found = len(fields) - 1
        if not word or (len(word) > 1 and _NUMBER.fullmatch(word[-1])):
            raise self._error(number, f"must have {self._d} numbers as in the lines before; got {found}")
        if len(word) > 1 and not word[-1]:
            raise self._error(number, "has two spaces before its numbers")
        row = _numbers([b" ".join(values)])
        if row is None or row.shape != (1, self._d):
            wrong = next((field for field in values if not _NUMBER.fullmatch(field)), b" ".join(values))
            raise self._error(number, f"must have {self._d} numbers after the word; got {_shown(wrong)}")
        return b" ".join(word), row

    def _error(self, line: int, what: str) -> GpuzipError:
        return GpuzipError(f"{self._into.source}: line {line}: {what}. Correct that line.")


def _line_blocks(file: BinaryIO, source: str) -> Iterator[list[bytes]]:
    """Lines without their ends, some megabytes at a time."""
    rest = b""
    while block := file.read(BLOCK_BYTES):
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        if len(rest) > LINE_LIMIT:
            raise GpuzipError(f"{source}: a line of more than {LINE_LIMIT} bytes; it holds no word vectors.")
        if lines:
            yield lines
    if rest:
        yield [rest]


def _numbers(lines: list[bytes]) -> Floats | None:
    """(n, D) float32, or None unless every line is as many numbers with one space between them."""
    if not all(lines):
        return None
    try:
        text = [line.decode("latin-1") for line in lines]
        return np.loadtxt(text, np.float32, comments=None, delimiter=" ", ndmin=2)
    except ValueError:
        return None


def _shown(text: bytes) -> str:
    return repr(text[:40].decode("utf-8", "replace")) + "..." * (len(text) > 40)


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size
