"""embzip's files: LZMA around a pickle that holds a FAISS index. The pickle is never run. Needs faiss."""

from __future__ import annotations

import lzma
import os
import pickletools
from pathlib import Path

import numpy as np

from gpuzip.codecs.codes import Codes
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.interop.faiss import from_faiss, require_faiss
from gpuzip.storage.paths import local_path

_INDEX = b"IxM2"  # how faiss.serialize_index begins for an IndexIDMap2
_GROWTH, _FLOOR = 100, 64 << 20  # product codes hardly shrink in LZMA: more is a lie


def read_embzip(path: str | os.PathLike[str]) -> Codes:
    """Read a file of `embzip.save` to the same codes, and the same decoded rows.

    Parameters
    ----------
    path : str or path-like
        File that embzip wrote.

    Returns
    -------
    Codes
        Codes of a ProductQuantizer.

    Raises
    ------
    FormatError
        If embzip did not write the file, or it is damaged.
    MissingDependencyError
        If faiss is not installed.

    Notes
    -----
    Only the bytes of the index are taken from the pickle, by its opcodes, and FAISS reads those.

    Source: embzip/core.py, which pickles a dict of codes, index, shape, m and nbits.
    """
    source = local_path("read_embzip", path)
    faiss = require_faiss()
    index = _index_bytes(source)
    try:
        codes = from_faiss(faiss.deserialize_index(np.frombuffer(index, np.uint8)))
    except (RuntimeError, GpuzipError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise FormatError(f"{source}: its index cannot be read ({reason:.200}). Make it again.") from error
    if not isinstance(codes, Codes):
        raise FormatError(f"{source}: must hold codes of one product quantizer. embzip did not write it.")
    return codes


def _index_bytes(path: Path) -> bytes:
    """The serialized index, found without running the pickle."""
    try:
        for _, value, _ in pickletools.genops(_unpacked(path)):
            if isinstance(value, bytes) and value.startswith(_INDEX):
                return value
    except (lzma.LZMAError, EOFError, ValueError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read as embzip's ({error}). Make it again.") from error
    raise FormatError(f"{path}: must hold a FAISS index (IDMap2); it has none. embzip did not write it.")


def _unpacked(path: Path) -> bytes:
    most = max(_FLOOR, _GROWTH * path.stat().st_size)
    with lzma.open(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise FormatError(
            f"{path}: must unpack to at most {most:,} bytes; it is larger. embzip did not write it."
        )
    return data
