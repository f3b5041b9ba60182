"""A mapped table that finds the row of a word; a query reads a few pages of it.

It holds sorted hashes of the words, and the row of each. Hashes are uniform, so the position of a hash can be
estimated from its value. The search begins there instead of in the middle of the file.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpuzip.errors import FormatError
from gpuzip.storage.tensors import read_tensors, save_tensors

Ids = np.ndarray[Any, Any]


def word_hash(word: str) -> int:
    """Return BLAKE2b-64 of a word as a little-endian number. Words with a lone surrogate have one too."""
    return int.from_bytes(_digest(word), "little")


def write_lookup(words: Iterable[str], path: Path) -> None:
    """Write `hashes` (N, 8) and `rows` (N, 4) bytes, little-endian uint64 and uint32, as safetensors."""
    hashes = np.frombuffer(b"".join(map(_digest, words)), "<u8")
    rows = np.argsort(hashes, kind="stable")
    save_tensors({"hashes": as_bytes(hashes[rows], "<u8"), "rows": as_bytes(rows, "<u4")}, path)


class Lookup:
    """Map a file that `write_lookup` wrote for n words. Raises FormatError for another."""

    def __init__(self, path: Path, n: int) -> None:
        tensors = mapped_tables(path, {"hashes": 8, "rows": 4}, n)
        self._path, self._n = path, n
        self._hashes, self._rows = tensors["hashes"].view("<u8"), tensors["rows"].view("<u4")

    @property
    def nbytes(self) -> int:
        """Bytes of the mapped hashes and rows."""
        return self._hashes.nbytes + self._rows.nbytes

    def candidates(self, word: str) -> Iterator[int]:
        """Yield the rows whose hash is that of the word, nearly always one or none."""
        wanted = word_hash(word)
        place = self._place(wanted)
        while place < self._n and int(self._hashes[place]) == wanted:
            row = int(self._rows[place])
            if row >= self._n:
                raise FormatError(
                    f"{self._path}: rows must be below {self._n}; got {row}. The file is damaged. Save it "
                    "again."
                )
            yield row
            place += 1

    def _place(self, wanted: int) -> int:
        """Return the position of the first hash that is not below the wanted one."""
        guess = wanted * self._n >> 64
        reach = 4 * math.isqrt(self._n) + 8  # eight standard deviations of the estimate
        start, stop = max(0, guess - reach), min(self._n, guess + reach)
        place = start + int(np.searchsorted(self._hashes[start:stop], np.uint64(wanted)))
        if start < place < stop or (place == start == 0) or (place == stop == self._n):
            return place
        return int(np.searchsorted(self._hashes, np.uint64(wanted)))


def as_bytes(values: Ids, dtype: str) -> torch.Tensor:
    """View (N,) numbers as (N, itemsize) uint8."""
    numbers = np.ascontiguousarray(values, dtype)
    return torch.from_numpy(numbers.view(np.uint8).reshape(len(numbers), numbers.itemsize))


def mapped_tables(path: Path, widths: dict[str, int], n: int) -> dict[str, Ids]:
    """Map tensors (n, width) uint8 as flat bytes by name. Raises FormatError if the file holds others."""
    tensors, _ = read_tensors(path)
    wanted = {name: (torch.uint8, (n, width)) for name, width in widths.items()}
    found = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    if found != wanted:
        raise FormatError(f"{path}: must hold {wanted} for {n} words; it holds {found}.")
    return {name: tensor.view(-1).numpy() for name, tensor in tensors.items()}


def _digest(word: str) -> bytes:
    return hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
