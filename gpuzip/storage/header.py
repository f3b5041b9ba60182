"""The header of a file of codes: a JSON object in the safetensors metadata.

format    2; readers refuse a greater one
library   version of gpuzip that wrote the file
codec     id of the codec
config    settings of the codec
n, d      rows and columns of the source
dtype     dtype of the source
quality   error against the source, or null
block_rows rows per block of codes, each of which has a checksum in the tensor `crc32`
checksums BLAKE2b-128 of the dtype, shape and bytes of every tensor; of codes, the CRC-32 of their blocks
          stand for their bytes
digest    BLAKE2b-128 of this object without `digest`, with sorted keys and no spaces

Format 1 has no `block_rows`, no `crc32`, and the checksums of codes are those of their bytes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from gpuzip._core.quality import HeldOut, Quality
from gpuzip.errors import FormatError

FORMAT = 2

#: Upper bounds for the bytes of an .ezip file beside codes and state: usually, and with a rotation and
#: held-out quality in the header. Checksums of many blocks take `blocks.table_bytes` more.
HEADER_BYTES, LONG_HEADER_BYTES = 1536, 2048

_KEY = "gpuzip"
_ALWAYS = {"format", "library", "codec", "config", "n", "d", "dtype", "quality", "checksums", "digest"}
_FIELDS = {1: _ALWAYS, 2: _ALWAYS | {"block_rows"}}
_MOST = (1 << 63) - 1  # rows or columns: sizes of tensors are int64
_DTYPES = {"float16", "bfloat16", "float32", "float64"}


def sealed(header: dict[str, Any]) -> dict[str, str]:
    """Return the metadata for a header, which is given without `format` and `digest`."""
    header = header | {"format": FORMAT}
    return {_KEY: canonical(header | {"digest": seal_of(header)})}


def unsealed(path: Path | str, metadata: dict[str, str]) -> dict[str, Any]:
    """Return the header in a file's metadata. Raises FormatError unless `sealed` made it."""
    if _KEY not in metadata:
        raise FormatError(
            f"{path}: must be written by gpuzip; it is another safetensors file. Compress its rows with "
            "gpuzip.save."
        )
    try:
        header = json.loads(metadata[_KEY])
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: its header must be JSON. The file is damaged.") from error
    if not isinstance(header, dict) or type(header.get("format")) is not int or header["format"] < 1:
        raise FormatError(f"{path}: its header must have a format number. The file is damaged.")
    if header["format"] > FORMAT:
        raise FormatError(
            f"{path}: format {header['format']} is newer than this version reads ({FORMAT}). Upgrade gpuzip."
        )
    if set(header) != _FIELDS[header["format"]] or not is_intact(header, metadata[_KEY]):
        raise FormatError(f"{path}: its header does not match its checksum. The file is damaged.")
    if not _plausible(header):
        raise FormatError(f"{path}: its header holds values of wrong types. gpuzip did not write it.")
    return header


def is_intact(header: dict[str, Any], text: str) -> bool:
    try:
        return bool(header["digest"] == seal_of(header)) and text == canonical(header)
    except (ValueError, RecursionError):  # NaN, or nested too deeply
        return False


def _plausible(header: dict[str, Any]) -> bool:
    checksums = header["checksums"]
    return (
        all(type(header[name]) is int and 0 <= header[name] <= _MOST for name in ("n", "d"))
        and (header["format"] == 1 or _is_positive(header["block_rows"]))
        and all(isinstance(header[name], str) and header[name].isprintable() for name in ("library", "codec"))
        and isinstance(header["dtype"], str)
        and header["dtype"] in _DTYPES
        and (header["quality"] is None or Quality.is_json(header["quality"]))
        and isinstance(header["config"], dict)
        and _is_held_out(header["config"].get("held_out"))
        and isinstance(checksums, dict)
        and all(isinstance(value, str) for value in checksums.values())
    )


def _is_positive(value: Any) -> bool:
    return type(value) is int and 1 <= value <= _MOST


def _is_held_out(measured: Any) -> bool:
    try:
        return measured is None or isinstance(HeldOut.of_json(measured), HeldOut)
    except FormatError:
        return False


def canonical(header: dict[str, Any]) -> str:
    return json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)


def seal_of(header: dict[str, Any]) -> str:
    bare = {name: value for name, value in header.items() if name != "digest"}
    return hashlib.blake2b(canonical(bare).encode(), digest_size=16).hexdigest()
