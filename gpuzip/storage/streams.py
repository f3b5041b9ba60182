"""Files that a caller has opened, and bytes in memory."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, BinaryIO

Target = str | os.PathLike[str] | BinaryIO
Source = str | os.PathLike[str] | BinaryIO | bytes | bytearray | memoryview


def opened(target: Target) -> BinaryIO | None:
    """The file to write to, if it is one that was opened. Raises TypeError for one of text."""
    return _stream("save", target, "write", "wb")


def contents(source: Source) -> tuple[Path, bytes] | None:
    """A name for messages, and all bytes from where the file stands; None for a path. Raises TypeError."""
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
    """Write bytes to a file, also to one that takes some at a time."""
    rest = memoryview(data).cast("B")
    while len(rest):
        rest = rest[out.write(rest) :]
