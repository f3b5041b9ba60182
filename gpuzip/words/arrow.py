"""Words in a mapped Arrow IPC file with one column, `word`, in the order of rows. Needs pyarrow.

Offsets are checked before use, because pyarrow trusts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpuzip._core.extras import needs
from gpuzip.errors import FormatError
from gpuzip.words.lookup import Lookup
from gpuzip.words.vocabulary import Vocabulary

_BLOCK = 4096  # words


def write_arrow(words: Iterable[str], path: Path) -> None:
    """Write the words as one record batch of large_string."""
    pa = _pyarrow()
    batch = pa.record_batch([pa.array(list(words), pa.large_string())], names=["word"])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


class ArrowWords(Vocabulary):
    """Words and the `Lookup` of their rows, both mapped and read on access.

    Raises FormatError, which names the file, unless `write_arrow` made it for n words.
    """

    kind = "arrow"

    def __init__(self, path: Path, lookup: Path, n: int) -> None:
        self._path, self._n = path, n
        self._offsets, self._text = _mapped_column(path, n)
        self._lookup = Lookup(lookup, n)

    def __len__(self) -> int:
        return self._n

    def find(self, word: str) -> int | None:
        wanted = word.encode("utf-8", "surrogatepass")
        return next((row for row in self._lookup.candidates(word) if self._bytes(row) == wanted), None)

    def word(self, row: int) -> str:
        return self._decoded(self._bytes(row), row)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, self._n, _BLOCK):
            offsets = self._offsets[start : start + _BLOCK + 1]
            self._check(offsets, start)
            text = self._text[int(offsets[0]) : int(offsets[-1])].to_pybytes()
            ends = (offsets - offsets[0]).tolist()
            for i in range(len(ends) - 1):
                yield self._decoded(text[ends[i] : ends[i + 1]], start + i)

    @property
    def nbytes(self) -> int:
        return int(self._offsets.nbytes + self._text.size + self._lookup.nbytes)

    def _bytes(self, row: int) -> bytes:
        offsets = self._offsets[row : row + 2]
        self._check(offsets, row)
        text: bytes = self._text[int(offsets[0]) : int(offsets[1])].to_pybytes()
        return text

    def _check(self, offsets: np.ndarray[Any, Any], row: int) -> None:
        if offsets[0] < 0 or offsets[-1] > self._text.size or (offsets[1:] < offsets[:-1]).any():
            raise FormatError(
                f"{self._path}: row {row} has invalid offsets; the file is damaged. Restore it."
            )

    def _decoded(self, text: bytes, row: int) -> str:
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            raise FormatError(
                f"{self._path}: row {row} is not UTF-8; the file is damaged. Restore it."
            ) from error


def _mapped_column(path: Path, n: int) -> tuple[np.ndarray[Any, Any], Any]:
    """Return (n + 1,) int64 offsets and the text buffer that they index, both mapped."""
    pa = _pyarrow()
    try:
        with pa.memory_map(str(path)) as source:
            whole = source.read_buffer()
        with pa.ipc.open_file(pa.BufferReader(whole)) as reader:
            if reader.num_record_batches != 1 or reader.schema != pa.schema({"word": pa.large_string()}):
                raise FormatError(
                    f"{path}: must hold one column of words; it holds {reader.schema.names}. gpuzip did "
                    "not write it."
                )
            words = reader.get_batch(0).column(0)
    except (pa.ArrowException, OSError) as error:
        raise FormatError(
            f"{path}: cannot be read as Arrow ({error}). It is damaged, or gpuzip did not write it."
        ) from error
    if len(words) != n or words.null_count:
        raise FormatError(
            f"{path}: must hold {n} words and no null; it holds {len(words)}, of which {words.null_count} "
            "are null."
        )
    _, offsets, text = words.buffers()
    text = pa.py_buffer(b"") if text is None else text
    if not all(_is_within(buffer, whole) for buffer in (offsets, text) if buffer.size):
        raise FormatError(f"{path}: must not be compressed, or it cannot be mapped. gpuzip did not write it.")
    if offsets.size < 8 * (n + 1):
        raise FormatError(f"{path}: has too few offsets for {n} words; the file is damaged. Restore it.")
    return np.frombuffer(offsets, "<i8", n + 1), text


def _is_within(buffer: Any, whole: Any) -> bool:
    return bool(
        whole.address <= buffer.address and buffer.address + buffer.size <= whole.address + whole.size
    )


def _pyarrow() -> Any:
    with needs("pyarrow", "words"):
        import pyarrow
        import pyarrow.ipc
    return pyarrow
