"""Words in a marisa trie, which stores common prefixes once and takes the fewest bytes. Needs marisa-trie.

marisa-trie trusts the file, so the whole file is checked before it is mapped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpuzip.errors import FormatError, GpuzipError, MissingDependencyError
from gpuzip.storage.tensors import save_tensors
from gpuzip.words.lookup import as_bytes, mapped_tables
from gpuzip.words.vocabulary import Vocabulary


def write_trie(words: Iterable[str], path: Path) -> None:
    """Write a marisa_trie.Trie. Raises GpuzipError for a word with a zero character."""
    _trie_of(words).save(str(path))


def write_trie_rows(words: Iterable[str], path: Path) -> None:
    """Write the tables between rows and the numbers that the trie gives to words, (N, 4) bytes each."""
    listed = list(words)
    trie = _trie_of(listed)
    number_of_row = np.fromiter(map(trie.key_id, listed), np.int64, len(listed))
    row_of_number = np.argsort(number_of_row)
    tables = {"row_of_number": row_of_number, "number_of_row": number_of_row}
    save_tensors({name: as_bytes(table, "<u4") for name, table in tables.items()}, path)


class TrieWords(Vocabulary):
    """Words in a mapped trie, and the mapped tables between its numbers and rows."""

    kind = "trie"

    def __init__(self, path: Path, rows: Path, n: int) -> None:
        self._trie = _marisa_trie().Trie()
        try:
            self._trie.mmap(str(path))
        except RuntimeError as error:
            raise FormatError(
                f"{path}: cannot be read as a trie ({error}). It is damaged, or gpuzip did not write it."
            ) from error
        if len(self._trie) != n:
            raise FormatError(f"{path}: must hold {n} words; it holds {len(self._trie)}.")
        tables = mapped_tables(rows, {"row_of_number": 4, "number_of_row": 4}, n)
        self._path, self._n = rows, n
        self._row_of_number = tables["row_of_number"].view("<u4")
        self._number_of_row = tables["number_of_row"].view("<u4")
        self.nbytes_of_trie = path.stat().st_size

    def __len__(self) -> int:
        return self._n

    def find(self, word: str) -> int | None:
        if "\0" in word:  # the trie would look for the part before it
            return None
        try:
            number = self._trie.get(word)
        except UnicodeEncodeError:  # a lone surrogate, which no file holds
            return None
        return None if number is None else self._checked(int(self._row_of_number[number]))

    def word(self, row: int) -> str:
        word: str = self._trie.restore_key(self._checked(int(self._number_of_row[row])))
        return word

    @property
    def nbytes(self) -> int:
        return self.nbytes_of_trie + self._row_of_number.nbytes + self._number_of_row.nbytes

    def _checked(self, number: int) -> int:
        if number >= self._n:
            raise FormatError(
                f"{self._path}: numbers must be below {self._n}; got {number}. The file is damaged. Save "
                "it again."
            )
        return number


def read_record_trie(path: Path) -> Mapping[str, int]:
    """Return the number of each word in a marisa_trie.RecordTrie of one uint32 per word."""
    trie = _marisa_trie().RecordTrie("<I")
    try:
        trie.mmap(str(path))
        return {word: number for word, (number,) in trie.iteritems()}
    except (RuntimeError, ValueError) as error:
        raise FormatError(f"{path}: cannot be read as a trie of numbers ({error}).") from error


def _trie_of(words: Iterable[str]) -> Any:
    listed = list(words)
    wrong = next((word for word in listed if "\0" in word), None)
    if wrong is not None:
        raise GpuzipError(
            f'WordVectors.save: a trie cannot store {wrong!r}, which holds "\\0". Use words="arrow".'
        )
    return _marisa_trie().Trie(listed)


def _marisa_trie() -> Any:
    try:
        import marisa_trie
    except ModuleNotFoundError as error:
        raise MissingDependencyError("marisa-trie is not installed: pip install 'gpuzip[words]'.") from error
    return marisa_trie
