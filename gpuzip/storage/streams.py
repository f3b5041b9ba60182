"""Files that a caller has opened, and bytes in memory."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, BinaryIO

Target = str | os.PathLike[str] | BinaryIO
Source = str | os.PathLike[str] | BinaryIO | bytes | bytearray | memoryview


def opened(target: Target) -> BinaryIO | None:
    """Return the open file to write to, or None for a path. Raises TypeError for a file of text."""
    return _stream("save", target, "write", "wb")


def contents(source: Source) -> tuple[Path, bytes] | None:
    """Return a name for messages and the rest of an open file, or None for a path. Raises TypeError."""
    if isinstance(source, bytes | bytearray | memoryview):
        return Path("<bytes>"), bytes(source)
    file = _stream("open", source, "read", "rb")
    if file is None:
        return None
    data = file.read()
    if not isinstance(data, bytes):
        raise _not_of_bytes("open", "rb")
    return name_of(file), data


def name_of(file: BinaryIO) -> Path:
    name = getattr(file, "name", None)
    return Path(name if isinstance(name, str) else f"<{type(file).__name__}>")


def _stream(who: str, file: Any, method: str, mode: str) -> BinaryIO | None:
    if isinstance(file, io.TextIOBase):
        raise _not_of_bytes(who, mode)
    return None if isinstance(file, str | os.PathLike) or not hasattr(file, method) else file


def _not_of_bytes(who: str, mode: str) -> TypeError:
    return TypeError(
        f'{who}: the file must be open for bytes; it is open for text. Open it with mode "{mode}".'
    )


def write_all(out: BinaryIO, data: Any) -> None:
    """Write all bytes to a file, which may accept fewer per call."""
    rest = memoryview(data).cast("B")
    while len(rest):
        rest = rest[out.write(rest) :]
