"""Words by row, and rows by word."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from gpuzip._core.checks import is_whole
from gpuzip.errors import GpuzipError


class Vocabulary(ABC):
    """N distinct words in the order of rows. kind: how they are stored, "list" for in memory."""

    kind: ClassVar[str]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def find(self, word: str) -> int | None:
        """Return the row of a word, or None if it is unknown."""

    @abstractmethod
    def word(self, row: int) -> str:
        """Return the word of a row, 0 <= row < N."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of the words and of the tables that find their rows."""

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and self.find(word) is not None

    def __iter__(self) -> Iterator[str]:
        return map(self.word, range(len(self)))

    def __getitem__(self, row: int) -> str:
        """Return the word of a row. Negative rows count from the end. Raises IndexError."""
        if not is_whole(row):
            raise TypeError(f"WordVectors.words: row must be a whole number; got {row!r}.")
        if not -len(self) <= row < len(self):
            raise IndexError(f"WordVectors.words: row must be below {len(self)}; got {row}.")
        return self.word(int(row) % len(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} words)"


class WordList(Vocabulary):
    """Words in memory. words: an iterable in the order of rows, or a dict of rows by word in that order.

    Raises GpuzipError if a word is not a str, is not Unicode text (a lone surrogate) or is repeated.
    """

    kind = "list"

    def __init__(self, words: Iterable[str] | Mapping[str, int]) -> None:
        self._words = list(words)
        self._rows = words if isinstance(words, dict) else _row_by_word(self._words)
        _check_words(self._words)

    def __len__(self) -> int:
        return len(self._words)

    def find(self, word: str) -> int | None:
        return self._rows.get(word)

    def word(self, row: int) -> str:
        return self._words[row]

    @property
    def nbytes(self) -> int:
        tables = sys.getsizeof(self._words) + sys.getsizeof(self._rows)
        return tables + sum(map(sys.getsizeof, self._words)) + sum(map(sys.getsizeof, self._rows.values()))


def _row_by_word(words: list[Any]) -> dict[str, int]:
    rows: dict[str, int] = {}
    for row, word in enumerate(words):
        if not isinstance(word, str):
            raise GpuzipError(f"WordVectors: words must be str; got {word!r} for row {row}.")
        if rows.setdefault(word, row) != row:
            raise GpuzipError(
                f"WordVectors: words must be distinct; {word!r} is in rows {rows[word]} and {row}. Keep one."
            )
    return rows


def _check_words(words: list[str]) -> None:
    try:
        "".join(words).encode()
    except UnicodeEncodeError:
        wrong = next(word for word in words if any("\ud800" <= letter <= "\udfff" for letter in word))
        raise GpuzipError(
            f"WordVectors: words must be Unicode text; {wrong!r} holds a lone surrogate. Correct it."
        ) from None


class RowOfWord(Mapping[str, int]):
    """A vocabulary as a mapping of words to rows, without a table of its own."""

    def __init__(self, words: Vocabulary) -> None:
        self._words = words

    def __getitem__(self, word: str) -> int:
        row = self._words.find(word) if isinstance(word, str) else None
        if row is None:
            raise KeyError(word)
        return row

    def __len__(self) -> int:
        return len(self._words)

    def __iter__(self) -> Iterator[str]:
        return iter(self._words)
