"""Chunks that come once, kept in a temporary file while they are sampled, to be read again."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from gpuzip.errors import FormatError
from gpuzip.large.source import Source


class Spool:
    """The rows of a source that can be read once. The file has no name, so that a crash leaves none.

    folder: where the file is, which takes the bytes of all rows.
    """

    def __init__(self, source: Source, folder: Path) -> None:
        self._source, self._n = source, 0
        folder.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        weakref.finalize(self, self._file.close)

    def each(self, start: int, rows: int) -> Iterator[Tensor]:
        """The chunks, which are written as they pass."""
        for chunk in self._source.each(start, rows):
            self._file.write(chunk.contiguous().view(-1).view(torch.uint8).numpy().data)
            self._n += len(chunk)
            yield chunk

    def source(self) -> Source:
        """The rows that have passed."""
        return replace(self._source, n=self._n, each=self._again, once=False)

    def _again(self, start: int, rows: int) -> Iterator[Tensor]:
        row = self._source.d * self._source.dtype.itemsize
        self._file.seek(start * row)
        for first in range(start, self._n, rows):
            count = min(rows, self._n - first)
            data = torch.empty(count * row, dtype=torch.uint8, device="cpu")
            if self._file.readinto(data.numpy().data) < len(data):  # type: ignore[attr-defined]
                raise FormatError("compress_file: the temporary file of the chunks was cut. Start again.")
            yield data.view(self._source.dtype).view(count, self._source.d)
