"""Readers of the files that both versions of smallfry write.

Version 0 writes a folder: `metadata` (JSON: bits and first row of each part, dim), `submat0`, `submat1`, ...
with the codes of each part, `codebks.npy`, and the words. Version 1 writes two files: `path` with the
codes, and `path`.meta (JSON: codebook, dim), without words.
Their codes are packed most significant bit first, and rows do not start at bytes; they are repacked here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpuzip._core.checks import is_whole
from gpuzip.codecs import LloydMaxQuantizer
from gpuzip.codecs.codes import Codes
from gpuzip.codecs.mixed import MixedCodes
from gpuzip.errors import FormatError
from gpuzip.ops import code_bytes, pack_bits

#: Bytes of codes repacked per block.
BLOCK_BYTES = 1 << 20
#: Largest accepted file of settings or codebooks, in bytes.
SMALL_FILE = 16 << 20

_LARGEST_DIM = 1 << 16
_TO_JSON = (
    'If you trust it, convert it once: python -c "import json, numpy as np; json.dump('
    "[np.asarray(c).tolist() for c in np.load('codebks.npy', allow_pickle=True)], "
    "open('codebks.json', 'w'))\""
)
Array = np.ndarray[Any, Any]


def read_parts(folder: Path, n: int) -> Codes | MixedCodes:
    """Read the codes of a version 0 folder for n words. Raises FormatError, which names the file."""
    bits, starts, dim = _described(folder / "metadata", n)
    codebooks = _codebooks(folder)
    if len(codebooks) != len(bits):
        raise FormatError(
            f"{folder}: must have one codebook per part; it has {len(codebooks)} for {len(bits)} parts. "
            "It is damaged."
        )
    counts = [stop - start for start, stop in zip(starts, [*starts[1:], n], strict=True)]
    paths = [folder / f"submat{i}" for i in range(len(bits))]
    for path, rows, b in zip(paths, counts, bits, strict=True):
        if b:  # check all files before memory is allocated for any
            check_size(path, rows * dim * b)
    parts = [
        _part(path, rows, dim, b, codebook)
        for path, rows, b, codebook in zip(paths, counts, bits, codebooks, strict=True)
    ]
    return parts[0] if len(parts) == 1 else MixedCodes(parts)


def read_pair(path: Path, n: int | None) -> Codes:
    """Read the codes of version 1. n: number of rows if known. Raises FormatError, which names the file."""
    meta = path.with_name(path.name + ".meta")
    content = _json(meta)
    if not (isinstance(content, list) and len(content) == 2 and _is_dim(content[1])):
        raise FormatError(
            f"{meta}: must hold a codebook and a number of dimensions. smallfry did not write it."
        )
    codebook, dim = _points(meta, content[0]), content[1]
    K, block_len = codebook.shape
    bits = K.bit_length() - 1
    if K not in (2, 4, 8, 16, 32, 64, 128, 256) or dim % block_len:
        raise FormatError(
            f"{meta}: the codebook must have 2, 4, ... or 256 points, whose dimensions divide those of rows; "
            f"it has {K} points of {block_len} dimensions for rows of {dim}."
        )
    row = dim // block_len * bits
    size = _size(path)
    rows = size * 8 // row if n is None else n
    if n is None and rows and row < 8 and -(-(rows - 1) * row // 8) == size:
        raise FormatError(
            f"{path}: may hold {rows} rows of {row} bits or fewer, as rows do not fill bytes. Pass word2idx."
        )
    check_size(path, rows * row)
    return _packed(path, rows, dim, bits, codebook)


def check_size(path: Path, bits: int) -> None:
    """Raise FormatError unless the file has this many bits, rounded up to bytes."""
    size, needed = _size(path), (bits + 7) // 8
    if size != needed:
        raise FormatError(f"{path}: must have {needed} bytes for its rows; it has {size}. It is damaged.")


def _described(path: Path, n: int) -> tuple[list[int], list[int], int]:
    """Return the bits and first row of each part, and the number of dimensions."""
    metadata = _json(path)
    names = ("allots", "allot_indices", "dim")
    if not isinstance(metadata, dict) or not set(names) <= set(metadata):
        raise FormatError(f"{path}: must hold {', '.join(names)}; smallfry did not write it.")
    bits, starts, dim = (metadata[name] for name in names)
    plausible = (
        all(isinstance(part, list) and all(map(is_whole, part)) for part in (bits, starts))
        and len(bits) == len(starts) >= 1
        and all(0 <= b <= 8 for b in bits)
        and starts[0] == 0
        and all(a < b for a, b in zip(starts, [*starts[1:], n], strict=True))
        and _is_dim(dim)
    )
    if not plausible:
        raise FormatError(
            f"{path}: must divide the {n} words into consecutive parts of 0 to 8 bits per value. It is "
            "damaged, "
            "or the words belong to other codes."
        )
    return bits, starts, dim


def _part(path: Path, n: int, dim: int, bits: int, codebook: Array) -> Codes:
    if len(codebook) != 1 << bits or codebook.shape[1] != 1:
        raise FormatError(
            f"{path}: its codebook must have {1 << bits} levels; it has shape {codebook.shape}. It is "
            "damaged."
        )
    if bits:
        return _packed(path, n, dim, bits, codebook)
    codec = LloydMaxQuantizer.from_codebook(torch.from_numpy(codebook).expand(2, 1)[None], dim)
    return Codes(codec, torch.zeros((n, codec.code_size), dtype=torch.uint8, device="cpu"))


def _packed(path: Path, n: int, dim: int, bits: int, codebook: Array) -> Codes:
    """Repack a file of n rows, whose size was checked, in gpuzip's bit order. codebook: (K, block_len)."""
    M, order = dim // codebook.shape[1], np.arange(len(codebook))
    if codebook.shape[1] == 1:  # gpuzip's levels ascend
        order = np.argsort(codebook[:, 0], kind="stable")
    renamed = np.empty(len(order), np.uint8)
    renamed[order] = np.arange(len(order))
    data = torch.empty((n, code_bytes(M, bits)), dtype=torch.uint8, device="cpu")
    step = max(1, BLOCK_BYTES // (M * bits)) * 8  # whole bytes of the file
    with open(path, "rb") as file:
        for start in range(0, n, step):
            rows = min(step, n - start)
            block = np.frombuffer(file.read((rows * M * bits + 7) // 8), np.uint8)
            digits = np.unpackbits(block, count=rows * M * bits).reshape(-1, bits)
            values = np.packbits(digits, axis=1)[:, 0] >> (8 - bits)
            data[start : start + rows] = pack_bits(torch.from_numpy(renamed[values].reshape(rows, M)), bits)
    codec = LloydMaxQuantizer.from_codebook(torch.from_numpy(codebook[order])[None], dim)
    return Codes(codec, data)


def _codebooks(folder: Path) -> list[Array]:
    """Read the (K, 1) float32 levels of each part from `codebks.json`, else from `codebks.npy`."""
    as_json, as_npy = folder / "codebks.json", folder / "codebks.npy"
    if as_json.exists():
        listed = _json(as_json)
        if not isinstance(listed, list):
            raise FormatError(f"{as_json}: must hold a list of codebooks.")
        return [_points(as_json, levels) for levels in listed]
    return [_points(as_npy, levels) for levels in _plain_array(as_npy)]


def _plain_array(path: Path) -> Array:
    """Read an array of floats. Arrays of objects are refused, because reading them runs a pickle."""
    _size(path, SMALL_FILE)
    with open(path, "rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = read_header(file)
        except Exception as error:  # numpy's reader of headers raises whatever Python's parser does
            raise FormatError(f"{path}: not a readable numpy file ({error!r:.200}).") from error
        if dtype.hasobject:
            raise FormatError(
                f"{path}: is a pickle, because its parts differ in bits, and reading a pickle can run code. "
                f"{_TO_JSON}"
            )
        data = file.read()
    size = dtype.itemsize * int(np.prod(shape, dtype=object))
    if dtype.kind != "f" or min(shape, default=0) < 0 or len(data) != size:
        raise FormatError(f"{path}: {len(data)} bytes for {shape} of {dtype}; it is damaged.")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _points(path: Path, listed: Any) -> Array:
    """Convert a codebook to finite (K, block_len) float32; a flat list becomes (K, 1)."""
    try:
        with np.errstate(over="ignore"):  # inf is refused below
            points = np.asarray(listed, np.float32)
    except (TypeError, ValueError) as error:
        raise FormatError(f"{path}: a codebook must hold numbers ({error}).") from error
    points = points[:, None] if points.ndim == 1 else points
    if points.ndim != 2 or not points.size or not np.isfinite(points).all():
        raise FormatError(
            f"{path}: a codebook must be 2-D and finite; got shape {points.shape}. The file is damaged."
        )
    return points


def _json(path: Path) -> Any:
    _size(path, SMALL_FILE)
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: must be JSON. It is damaged, or smallfry did not write it.") from error


def _size(path: Path, most: int | None = None) -> int:
    if not path.is_file():
        raise FormatError(f"{path}: is missing. Copy all files that smallfry wrote.")
    size = path.stat().st_size
    if most is not None and size > most:
        raise FormatError(
            f"{path}: must have at most {most} bytes; it has {size}. smallfry did not write it."
        )
    return size


def _is_dim(value: Any) -> bool:
    return is_whole(value) and 1 <= value <= _LARGEST_DIM
