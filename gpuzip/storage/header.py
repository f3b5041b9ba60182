"""The header of a file of codes: one entry of safetensors metadata, a JSON object.

format    1; a reader refuses a greater one
library   version that wrote the file
codec     the codec's id, and `config`, its settings
n, d      rows and columns of the source, and `dtype`, its type
quality   measured against the source, or null
checksums BLAKE2b-128 of every tensor's dtype, shape and bytes
digest    BLAKE2b-128 of this object without `digest`, keys sorted, no spaces
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from gpuzip._core.quality import Quality
from gpuzip.errors import FormatError

FORMAT = 1

#: Bytes of an .ezip file beside its codes and the state of its codec, at most; and where the header says what
#: rotates rows and what was measured on rows held out.
HEADER_BYTES, LONG_HEADER_BYTES = 1536, 2048

_KEY = "gpuzip"
_FIELDS = {"format", "library", "codec", "config", "n", "d", "dtype", "quality", "checksums", "digest"}
_DTYPES = {"float16", "bfloat16", "float32", "float64"}


def sealed(header: dict[str, Any]) -> dict[str, str]:
    """Metadata that holds a header, given without `format` and `digest`."""
    header = header | {"format": FORMAT}
    return {_KEY: _canonical(header | {"digest": _digest(header)})}


def unsealed(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """The header in a file's metadata; raises FormatError unless `sealed` gave it."""
    if _KEY not in metadata:
        raise FormatError(
            f"{path}: a safetensors file that gpuzip did not write. Compress it with gpuzip.save."
        )
    try:
        header = json.loads(metadata[_KEY])
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: its header is not JSON; the file is damaged.") from error
    if not isinstance(header, dict) or type(header.get("format")) is not int or header["format"] < 1:
        raise FormatError(f"{path}: its header has no format number; the file is damaged.")
    if header["format"] > FORMAT:
        raise FormatError(
            f"{path}: format {header['format']} is newer than this version reads ({FORMAT}). Upgrade gpuzip."
        )
    if set(header) != _FIELDS or not _is_intact(header, metadata[_KEY]):
        raise FormatError(f"{path}: its header does not match its checksum; the file is damaged.")
    if not _plausible(header):
        raise FormatError(f"{path}: its header holds values of the wrong kind; gpuzip did not write it.")
    return header


def _is_intact(header: dict[str, Any], text: str) -> bool:
    try:
        return bool(header["digest"] == _digest(header)) and text == _canonical(header)
    except (ValueError, RecursionError):  # numbers that are none, or too deep
        return False


def _plausible(header: dict[str, Any]) -> bool:
    checksums = header["checksums"]
    return (
        all(type(header[name]) is int and header[name] >= 0 for name in ("n", "d"))
        and all(isinstance(header[name], str) for name in ("library", "codec"))
        and isinstance(header["dtype"], str)
        and header["dtype"] in _DTYPES
        and (header["quality"] is None or Quality.is_json(header["quality"]))
        and isinstance(header["config"], dict)
        and isinstance(checksums, dict)
        and all(isinstance(value, str) for value in checksums.values())
    )


def _canonical(header: dict[str, Any]) -> str:
    return json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(header: dict[str, Any]) -> str:
    bare = {name: value for name, value in header.items() if name != "digest"}
    return hashlib.blake2b(_canonical(bare).encode(), digest_size=16).hexdigest()
