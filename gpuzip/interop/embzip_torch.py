"""What torch.save makes of embzip's dict: a zip file, or before torch 1.6 pickles and storages in a row.

torch.load(weights_only=True) reads dicts of tensors, but not this one: it refuses FAISS's index by name, and
to allow the name would let the file call it. So its pickle is read as the others are.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from typing import Any

from gpuzip.interop.embzip_pickle import Made, Name, Stored, array_of, checked_shape, inert

_MAGIC = 0x1950A86A20F9469CFC6C  # of files before torch 1.6
_BROKEN = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    KeyError,
    OverflowError,
    EOFError,
    struct.error,
)

#: A value, and the storages that its tensors name.
Read = tuple[Any, dict[str, bytes]]


def is_zip(data: bytes) -> bool:
    return data.startswith(b"PK\3\4")


def from_zip(data: bytes) -> Read:
    """The value of a zip file of torch.save. Raises ValueError."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            places = {place.filename: place for place in archive.infolist()}
            [pickled] = [name for name in places if name.endswith("/data.pkl")]
            value = inert(io.BytesIO(_stored(archive, places[pickled], len(data))))
            folder = pickled.removesuffix("data.pkl") + "data/"
            keys = {key for key in map(_key, _storages(value)) if folder + key in places}
            return value, {key: _stored(archive, places[folder + key], len(data)) for key in keys}
    except _BROKEN as error:
        raise ValueError(f"it is a damaged zip file ({error!r:.100})") from error


def from_pickles(data: bytes) -> Read:
    """The value of a pickle, or of a file of torch before 1.6. Raises ValueError."""
    file = io.BytesIO(data)
    value = inert(file)
    if value != _MAGIC:
        return value, {}
    inert(file), inert(file)  # a version, and sizes of C's types
    value, keys = inert(file), inert(file)
    found = {}
    for key in keys if isinstance(keys, list) else ():
        (size,) = struct.unpack("<q", file.read(8).ljust(8, b"\0"))
        found[key if isinstance(key, str) else ""] = content = file.read(max(0, size))
        if len(content) != size:
            raise ValueError("a storage has fewer bytes than it says")
    return value, found


def array_in(value: Any, storages: dict[str, bytes]) -> tuple[tuple[int, ...], bytes]:
    """Shape and bytes of a uint8 ndarray or tensor. Raises ValueError for all else."""
    if not isinstance(value, Made) or value.name != "torch._utils._rebuild_tensor_v2":
        return array_of(value)
    place, offset, shape, stride = value.args[:4]
    if not isinstance(place, Stored) or not isinstance(place.id[1], Name):
        raise ValueError("a tensor must have a storage")
    data = storages.get(_key(place), b"")
    shape = checked_shape(shape, len(data))
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    apart = any(size != 1 and step != right for size, step, right in zip(shape, stride, strides, strict=True))
    if place.id[1].text != "torch.ByteStorage" or offset != 0 or apart:
        raise ValueError("codes must be uint8 in order of rows")
    return shape, data


def _stored(archive: zipfile.ZipFile, place: zipfile.ZipInfo, most: int) -> bytes:
    if place.compress_type != zipfile.ZIP_STORED or place.file_size > most:
        raise ValueError("a file inside it is compressed, which torch.save never does")
    return archive.read(place)


def _storages(value: Any) -> list[Stored]:
    """Those of the tensors in a dict."""
    parts = list(value.values()) if isinstance(value, dict) else []
    return [
        arg for part in parts if isinstance(part, Made) for arg in part.args[:1] if isinstance(arg, Stored)
    ]


def _key(place: Stored) -> str:
    key = place.id[2] if len(place.id) > 2 else None
    return key if isinstance(key, str) else ""
