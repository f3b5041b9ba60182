"""Collects word vectors from a file reader: words in memory, vectors in a temporary file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuzip.errors import GpuzipError

if TYPE_CHECKING:
    from typing_extensions import Self

Floats = np.ndarray[Any, np.dtype[np.float32]]
Where = Callable[[int], str]


@dataclass(frozen=True)
class Policy:
    """How to handle invalid and repeated words.

    unicode_errors: "strict", "ignore" or "replace", for words that are not UTF-8, as in gensim.
    duplicates: "error", "first" or "last", the vector of a repeated word to keep. Its row is that of the
    first.
    encoding: of the words; one that keeps ASCII, as numbers and separators are ASCII.
    """

    unicode_errors: str = "strict"
    duplicates: str = "error"
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        _check("unicode_errors", self.unicode_errors, ("strict", "ignore", "replace"))
        _check("duplicates", self.duplicates, ("error", "first", "last"))
        _check_encoding(self.encoding)


class Collector:
    """Collect blocks of words and vectors. Use it as a context manager, which removes the temporary file.

    source: name of the file in messages. tmp_dir: folder of the temporary file, by default the system's.
    """

    source: str

    def __init__(self, source: str, policy: Policy, tmp_dir: str | os.PathLike[str] | None = None) -> None:
        self.source, self._policy = source, policy
        self._index: dict[str, int] = {}
        self._file = tempfile.TemporaryFile(dir=tmp_dir)  # noqa: SIM115
        self._d = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, words: Sequence[bytes], rows: Floats, where: Where) -> None:
        """Add n words (bytes) and rows (n, D). where: name of the i-th in messages, such as "line 7"."""
        self._refuse_non_finite(rows, where)
        before = len(self._index)
        fresh: list[int] = []
        again: dict[int, int] = {}
        for i, word in enumerate(words):
            text = self._decoded(word, where, i)
            row = self._index.setdefault(text, len(self._index))
            if row == before + len(fresh):
                fresh.append(i)
            elif self._policy.duplicates == "error":
                raise GpuzipError(
                    f'{self.source}: {where(i)}: the word {text!r} is repeated. Pass duplicates="first" '
                    'or "last".'
                )
            elif self._policy.duplicates == "last":
                again[row] = i
        self._write(before, rows if len(fresh) == len(rows) else rows[fresh])
        for row, i in again.items():
            self._write(row, rows[i : i + 1])

    def words(self) -> dict[str, int]:
        """Return the row of each word, in the order of rows. Raises GpuzipError if there are none."""
        if not self._index:
            raise GpuzipError(f"{self.source}: must hold at least one word; it holds none.")
        return self._index

    def rows(self) -> Floats:
        """Return the mapped (N, D) float32 rows, valid until the end of this context."""
        self._file.flush()
        return np.memmap(self._file, np.float32, "r", shape=(len(self.words()), self._d))

    def _write(self, row: int, rows: Floats) -> None:
        self._d = rows.shape[1]
        self._file.seek(row * 4 * self._d)
        self._file.write(np.ascontiguousarray(rows).data)

    def _decoded(self, word: bytes, where: Where, i: int) -> str:
        try:
            return word.decode(self._policy.encoding, self._policy.unicode_errors)
        except UnicodeDecodeError as error:
            raise GpuzipError(
                f"{self.source}: {where(i)}: the word {word!r} is not {self._policy.encoding.upper()} "
                f"({error.reason}). "
                'Pass encoding=, or unicode_errors="replace" or "ignore".'
            ) from error

    def _refuse_non_finite(self, rows: Floats, where: Where) -> None:
        if np.isfinite(rows).all():
            return
        first = int(np.flatnonzero(~np.isfinite(rows).all(1))[0])
        raise GpuzipError(
            f"{self.source}: {where(first)}: numbers must be finite float32; got NaN, inf or a larger "
            "one. Drop or correct it."
        )


def _check(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise GpuzipError(f"WordVectors: {name} must be one of {', '.join(known)}; got {value!r}.")


def _check_encoding(encoding: str) -> None:
    ascii_bytes = bytes(range(128))
    try:
        kept = ascii_bytes.decode(encoding) == ascii_bytes.decode("ascii")
    except (LookupError, TypeError, ValueError) as error:
        raise GpuzipError(f"WordVectors: encoding must be known to Python; got {encoding!r}.") from error
    if not kept:
        raise GpuzipError(
            f"WordVectors: encoding must keep ASCII, as latin-1 does; got {encoding!r}. Convert the "
            "file to UTF-8."
        )
