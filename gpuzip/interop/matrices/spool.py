"""Temporary files for what cannot be mapped from where it is: pipes, and values that must be converted."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

Array = np.ndarray[Any, Any]


@contextmanager
def spooled_stream(file: BinaryIO) -> Iterator[Path]:
    """Yield the path of a copy of the rest of a file. What is mapped from it stays valid after it is gone."""
    descriptor, name = tempfile.mkstemp(suffix=".gpuzip")
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
        yield path
    finally:
        path.unlink(missing_ok=True)


def spooled_rows(blocks: Iterable[Array], d: int, dtype: np.dtype[Any]) -> Array:
    """(N, D) in a temporary file, mapped. The file is gone with the array.

    Written, not mapped, while it grows: a full disk is then an error of the write.
    """
    n = 0
    with tempfile.TemporaryFile() as file:
        for block in blocks:
            part = np.ascontiguousarray(block, dtype)
            file.write(part.data)
            n += len(part)
        file.flush()
        if n == 0 or d == 0:
            return np.empty((n, d), dtype)
        return np.memmap(file, dtype, "r", shape=(n, d))
