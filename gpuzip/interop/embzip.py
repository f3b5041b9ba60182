"""embzip's files: LZMA around a pickle of a dict of codes and a FAISS index. The pickle is never run."""

from __future__ import annotations

import lzma
import os
from typing import Any

import numpy as np
import torch

from gpuzip._core.checks import printable
from gpuzip.codecs import ProductQuantizer
from gpuzip.codecs.codes import Codes
from gpuzip.errors import FormatError
from gpuzip.interop.embzip_index import ProductIndex, product_index
from gpuzip.interop.embzip_pickle import Made, bytes_of
from gpuzip.interop.embzip_torch import array_in, from_pickles, from_zip, is_zip
from gpuzip.storage.paths import local_path

_XZ = b"\xfd7zXZ\0"
_GROWTH, _FLOOR = 100, 64 << 20  # product codes hardly shrink in LZMA: more is a lie
_DICTIONARY = 32 << 20  # bytes that LZMA may take to unpack; embzip's files need 9 MB


def read_embzip(path: str | os.PathLike[str]) -> Codes:
    """Read a file of `embzip.save` to the same codes, and the same decoded rows.

    Parameters
    ----------
    path : str or path-like
        File that embzip wrote, or the dict that it pickles as pickle.dump or torch.save wrote it.

    Returns
    -------
    Codes
        Codes of a ProductQuantizer.

    Raises
    ------
    FormatError
        If embzip did not write the file, or it is damaged.

    Notes
    -----
    Neither the pickle nor FAISS is run: opcodes are read to plain values, names that embzip's files do not
    hold are refused, and the sizes in the index are checked against its bytes.

    Source: embzip/core.py, which pickles a dict of codes, index, shape, m and nbits.
    """
    source = local_path("read_embzip", path)
    if source.exists() and not source.is_file() and not source.is_dir():
        raise FormatError(f"{source}: must be a regular file; it is a device or pipe. Copy it to one.")
    data = source.read_bytes()
    try:
        if data.startswith(_XZ):
            data = _unpacked(data)
        return _codes(*(from_zip(data) if is_zip(data) else from_pickles(data)))
    except (ValueError, lzma.LZMAError, EOFError, RecursionError) as error:
        raise FormatError(
            f"{source}: cannot be read as embzip's ({printable(str(error)):.200}). Make it again."
        ) from error


def _codes(value: Any, storages: dict[str, bytes]) -> Codes:
    if not isinstance(value, dict) or not {"codes", "index"} <= value.keys():
        raise ValueError("it must hold a dict of codes and an index")
    found = product_index(_index_bytes(value["index"], storages))
    shape, data = array_in(value["codes"], storages)
    if data != found.codes or len(shape) != 2 or shape[0] != found.n:
        raise ValueError("its codes must be those of its index")
    _check_settings(value, found)
    config = {"m": len(found.centroids), "nbits": found.nbits, "pad": False, "d": found.d, "seed": None}
    codec = ProductQuantizer.restore(config, {"centroids": torch.from_numpy(found.centroids)})
    return Codes(codec, torch.from_numpy(np.frombuffer(bytearray(data), np.uint8).reshape(shape)))


def _index_bytes(index: Any, storages: dict[str, bytes]) -> bytes:
    """The serialized index: of FAISS's object, or an array or bytes that `faiss.serialize_index` made."""
    if isinstance(index, Made) and index.name.endswith(".IndexIDMap2"):
        if not isinstance(index.state, dict):
            raise ValueError("its index must have a state")
        return bytes_of(index.state.get("this"))
    if isinstance(index, bytes) or (isinstance(index, Made) and index.name == "_codecs.encode"):
        return bytes_of(index)
    return array_in(index, storages)[1]


def _check_settings(value: dict[str, Any], found: ProductIndex) -> None:
    shape = value.get("shape", (found.n, found.d))
    if isinstance(shape, Made) and shape.name == "torch.Size":
        (shape,) = shape.args
    told = {
        "shape": shape,
        "m": value.get("m", len(found.centroids)),
        "nbits": value.get("nbits", found.nbits),
    }
    real = {"shape": (found.n, found.d), "m": len(found.centroids), "nbits": found.nbits}
    for name, right in real.items():
        one = isinstance(told[name], Made) and told[name].name.endswith(".scalar")  # a number of numpy's
        if not one and told[name] != right:
            raise ValueError(f"its {name} must be that of its index, {right}; it is {told[name]!r:.80}")


def _unpacked(packed: bytes) -> bytes:
    most = max(_FLOOR, _GROWTH * len(packed))
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_DICTIONARY)
    data = unpacker.decompress(packed, most + 1)
    if len(data) > most:
        raise ValueError(f"it must unpack to at most {most:,} bytes; it is larger")
    if not unpacker.eof:
        raise EOFError("its LZMA has no end")
    return data
