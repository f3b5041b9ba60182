"""Reader of word vectors in text, one line per word, as GloVe, word2vec and fastText (.vec) write them."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gpuzip._core.progress import Progress, reporting
from gpuzip.errors import GpuzipError
from gpuzip.words.collector import Collector, Floats
from gpuzip.words.files import Source, opened

#: Bytes of text parsed per block.
BLOCK_BYTES = 4 << 20
#: Longest line in bytes; a longer one means that the file holds no word vectors.
LINE_LIMIT = 16 << 20

_NUMBER = re.compile(rb"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|inf|infinity)", re.IGNORECASE)
_COUNT = re.compile(rb"\d{1,18}")
_LINE_END = re.compile(r"\r\n?|\n")
_SPACED = bytes.maketrans(b"\t", b" ")


def read_text(
    path: str | os.PathLike[str],
    into: Collector,
    *,
    header: bool | None = None,
    limit: int | None = None,
    progress: Progress = None,
) -> None:
    """Read lines "word number ... number" into the collector in bounded memory.

    header: whether the first line is "N D". None: yes if it is two whole numbers. limit: number of rows to
    read, from the first.
    Lines end with \\n, \\r\\n or \\r; a space or a tab stands before each number. Spaces at the end of a
    line, empty lines at the end of the file and a byte-order mark are ignored.
    D comes from the header, else it is the count of numbers at the end of the first line. A word may hold
    spaces and tabs: it is everything before the last D numbers. Without a header it must not end with a
    number itself, as the lines may then disagree about D.
    Raises GpuzipError, which names the line, for anything else.
    """
    reader = _Reader(into, header, limit)
    with (
        opened(path) as file,
        reporting("WordVectors", progress, Path(path).name, file.total, of_bytes=True) as report,
    ):
        for lines in _line_blocks(file, into.source):
            reader.add(lines, file.size)
            report(file.done)
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
        self._numbered: list[int] = []  # fields of the rows whose word ends with a number
        self._blank: int | None = None

    @property
    def is_full(self) -> bool:
        return self._limit is not None and self._rows >= self._limit

    def add(self, lines: list[bytes], size: int | None) -> None:
        lines = self._without_blanks([line.rstrip() for line in lines])
        if lines and self._d is None:
            lines = self._start([self._unmarked(lines[0]), *lines[1:]], size)
        if self._limit is not None:
            lines = lines[: self._limit - self._rows]
        if not lines:
            return
        if self._announced is not None and self._rows + len(lines) > self._announced:
            extra = self._line + self._announced - self._rows
            raise self._error(extra, f"the header says {self._announced} rows, this is one more")
        words, rows = self._parsed(lines)
        first = self._line
        self._into.add(words, rows, lambda i: f"line {first + i}")
        self._line += len(lines)
        self._rows += len(lines)

    def finish(self) -> None:
        cut = self._limit is not None and self._rows >= self._limit
        if self._announced is not None and self._rows < self._announced and not cut:
            raise GpuzipError(
                f"{self._into.source}: must have {self._announced} rows, as in its header; it has "
                f"{self._rows}. "
                "It is incomplete: fetch it again, or correct the header."
            )
        if len(self._numbered) == self._rows > 1:  # not words such as "route 66": the header is wrong
            first = f"must have {self._d} numbers, as the header says; got {self._numbered[0]}"
            raise self._error(2, f"{first}, and each line ends like this one")

    def _unmarked(self, line: bytes) -> bytes:
        """Return the first line without its byte-order mark. Refuse UTF-16 and UTF-32."""
        if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
            raise self._error(
                1, "begins with the byte-order mark of UTF-16 or UTF-32; convert the file to UTF-8"
            )
        return line.removeprefix(codecs.BOM_UTF8)

    def _without_blanks(self, lines: list[bytes]) -> list[bytes]:
        """Remove empty lines at the end of the file. An empty line elsewhere is an error."""
        if self._blank is None and b"" not in lines:
            return lines
        full = [] if self._blank is not None else lines[: lines.index(b"")]
        if self._blank is None:
            self._blank = self._line + len(full)
        if any(lines[len(full) :]):
            raise self._error(self._blank, "is empty")
        return full

    def _start(self, lines: list[bytes], size: int | None) -> list[bytes]:
        """Find D in the header or in the first row. Return the lines without the header."""
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
        least = wanted * (2 * self._d + 1)  # per row a space and a digit per number, and a line end
        if size is not None and least > size:
            raise self._error(
                1, f"the header says {self._announced} rows of {self._d} numbers, the file has {size} bytes"
            )
        return lines[1:]

    def _width(self, line: bytes) -> int:
        fields = _fields(line)
        d = len(fields) - 1
        numbers = next((i for i in range(d) if not _NUMBER.fullmatch(fields[-1 - i])), d)
        if numbers == 0:
            raise self._error(self._line, f"must be a word and numbers; got {_shown(line)}")
        return numbers

    def _parsed(self, lines: list[bytes]) -> tuple[list[bytes], Floats]:
        """Parse all lines at once, or one by one if any has spaces in its word or is invalid."""
        split = [line.translate(_SPACED).partition(b" ") for line in lines]
        rows = _numbers([rest for _, _, rest in split])
        if rows is not None and rows.shape == (len(lines), self._d):
            return [word for word, _, _ in split], rows
        pairs = [self._parsed_line(line, self._line + i) for i, line in enumerate(lines)]
        return [word for word, _ in pairs], np.concatenate([row for _, row in pairs])

    def _parsed_line(self, line: bytes, number: int) -> tuple[bytes, Floats]:
        assert self._d is not None
        fields = _fields(line)
        word, values = fields[: -self._d], fields[-self._d :]
        found = len(fields) - 1
        numbered = len(word) > 1 and _NUMBER.fullmatch(word[-1]) is not None
        if not word or (numbered and self._announced is None):
            raise self._error(number, f"must have {self._d} numbers, as the lines before; got {found}")
        if numbered:
            self._numbered.append(found)
        if len(word) > 1 and not word[-1]:
            raise self._error(number, "must have one space before its numbers; got two")
        row = _numbers([b" ".join(values)])
        if row is None or row.shape != (1, self._d):
            wrong = next((field for field in values if not _NUMBER.fullmatch(field)), b" ".join(values))
            raise self._error(number, f"must have {self._d} numbers after the word; got {_shown(wrong)}")
        return line[: len(b" ".join(word))], row

    def _error(self, line: int, what: str) -> GpuzipError:
        return GpuzipError(f"{self._into.source}: line {line}: {what}. Correct that line.")


def _line_blocks(file: Source, source: str) -> Iterator[list[bytes]]:
    """Yield blocks of lines without line ends, some megabytes per block."""
    rest = b""
    while block := file.read(BLOCK_BYTES):
        lines = (rest + block).splitlines(keepends=True)
        rest = b"" if lines[-1].endswith(b"\n") else lines.pop()  # \n may follow a \r in the next block
        if len(rest) > LINE_LIMIT:
            raise GpuzipError(
                f"{source}: lines must have at most {LINE_LIMIT} bytes. The file holds no word vectors."
            )
        if lines:
            yield lines
    if rest:
        yield [rest]


def lines_of(data: bytes) -> list[str]:
    """Return the lines of a small UTF-8 file, by the same rule. Raises UnicodeDecodeError."""
    return _LINE_END.split(data.decode("utf-8-sig"))


def _fields(line: bytes) -> list[bytes]:
    return line.translate(_SPACED).split(b" ")


def _numbers(lines: list[bytes]) -> Floats | None:
    """Parse lines of D numbers with single spaces to (n, D) float32; None if a line is anything else."""
    if not all(lines):
        return None
    try:
        text = [line.decode("latin-1") for line in lines]
        return np.loadtxt(text, np.float32, comments=None, delimiter=" ", ndmin=2)
    except ValueError:
        return None


def _shown(text: bytes) -> str:
    return repr(text[:40].decode("utf-8", "replace")) + "..." * (len(text) > 40)
