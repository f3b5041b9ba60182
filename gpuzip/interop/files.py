"""Index files of FAISS and USearch, read to codes and written from them."""

from __future__ import annotations

import os
from typing import Any

from gpuzip.codecs.codes import Codes
from gpuzip.codecs.mixed import MixedCodes
from gpuzip.errors import FormatError
from gpuzip.interop.faiss import from_faiss, require_faiss, to_faiss
from gpuzip.interop.usearch import from_usearch, require_usearch, to_usearch
from gpuzip.storage.atomic import replacing
from gpuzip.storage.paths import local_path

Path = str | os.PathLike[str]


def read_faiss(path: Path) -> Codes | MixedCodes:
    """Read an index that `faiss.write_index` wrote, or of bits by `write_index_binary`, to codes."""
    source, faiss = _there("read_faiss", path), require_faiss()
    with open(source, "rb") as file:
        is_binary = file.read(2) == b"IB"  # all fourccs of binary indexes begin so
    read = faiss.read_index_binary if is_binary else faiss.read_index
    try:
        index = read(str(source))
    except RuntimeError as error:
        raise _unreadable(source, "faiss", error) from error
    found: Codes | MixedCodes = from_faiss(index)
    return found


def write_faiss(codes: Codes, path: Path) -> None:
    """Write codes as a FAISS index of the same bytes, atomically."""
    faiss, index = require_faiss(), to_faiss(codes)
    write = faiss.write_index_binary if isinstance(index, faiss.IndexBinary) else faiss.write_index
    with replacing(local_path("write_faiss", path)) as fresh:
        write(index, str(fresh))


def read_usearch(path: Path) -> Codes:
    """Read an index that `Index.save` wrote to codes, in ascending order of keys."""
    source, usearch = _there("read_usearch", path), require_usearch()
    try:
        index = usearch.Index.restore(str(source))
    except (RuntimeError, ValueError) as error:
        raise _unreadable(source, "usearch", error) from error
    if index is None:
        raise FormatError(f"{source}: cannot be read as a usearch index. Make it again.")
    return from_usearch(index)


def write_usearch(codes: Codes, path: Path) -> None:
    """Write codes as a USearch index of the same bytes, atomically."""
    index: Any = to_usearch(codes)
    with replacing(local_path("write_usearch", path)) as fresh:
        index.save(str(fresh))


def _there(who: str, path: Path) -> Any:
    source = local_path(who, path)
    if not source.is_file():
        raise FileNotFoundError(f"{who}: there is no file {source}. Check the name.")
    return source


def _unreadable(path: Any, kind: str, error: Exception) -> FormatError:
    reason = str(error).strip().splitlines()[-1]
    return FormatError(f"{path}: cannot be read as a {kind} index ({reason:.200}). Make it again.")
