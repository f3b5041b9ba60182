"""Words in a marisa trie, which stores common prefixes once and takes the fewest bytes. Needs marisa-trie.

Its library trusts what it reads, so that words of a file are read by a child process (`marisa.py`), and the
trie that answers is made anew of them, in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpuzip.errors import FormatError, GpuzipError
from gpuzip.storage.tensors import save_tensors
from gpuzip.words.lookup import as_bytes, mapped_tables
from gpuzip.words.marisa import marisa_trie, read_pairs
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
    """A trie in memory, and the tables between its numbers and rows, for the n words of a file.

    Raises FormatError, naming the file, when it is not as `write_trie` makes it for n words.
    """

    kind = "trie"
    nbytes_of_trie: int

    def __init__(self, path: Path, rows: Path, n: int) -> None:
        pairs = read_pairs(path, "words")
        if len(pairs) != n:
            raise FormatError(f"{path}: must hold {n} words; it holds {len(pairs)}.")
        tables = mapped_tables(rows, {"row_of_number": 4, "number_of_row": 4}, n)
        numbers = tables["number_of_row"].view("<u4")
        if not np.array_equal(np.sort(numbers), np.arange(n)):
            raise FormatError(f"{rows}: gives no row to some of {n} words; it is damaged. Make it again.")
        words = [pairs[number][0] for number in numbers.tolist()]
        self._n, self.nbytes_of_trie = n, path.stat().st_size
        self._trie = _trie_of(words)
        if len(self._trie) != n:
            raise FormatError(f"{path}: must hold {n} words; some of them come twice.")
        self._number_of_row = np.fromiter(map(self._trie.key_id, words), np.uint32, n)
        self._row_of_number = np.argsort(self._number_of_row).astype(np.uint32)

    def __len__(self) -> int:
        return self._n

    def find(self, word: str) -> int | None:
        if "\0" in word:  # the trie would look for the part before it
            return None
        try:
            number = self._trie.get(word)
        except UnicodeEncodeError:  # a lone surrogate, which no file holds
            return None
        return None if number is None else int(self._row_of_number[number])

    def word(self, row: int) -> str:
        word: str = self._trie.restore_key(int(self._number_of_row[row]))
        return word

    @property
    def nbytes(self) -> int:
        return self.nbytes_of_trie + self._row_of_number.nbytes + self._number_of_row.nbytes


def read_record_trie(path: Path) -> Mapping[str, int]:
    """Number by word of a marisa_trie.RecordTrie of one uint32 each."""
    return dict(read_pairs(path, "numbers"))


def _trie_of(words: Iterable[str]) -> Any:
    listed = list(words)
    wrong = next((word for word in listed if "\0" in word), None)
    if wrong is not None:
        raise GpuzipError(
            f'WordVectors: a trie cannot store a zero character; got {wrong!r}. Use words="arrow".'
        )
    return marisa_trie().Trie(listed)
