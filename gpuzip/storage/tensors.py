"""Maps the tensors of a safetensors file, so that bytes are read on access.

safetensors reads and checks the header. The mapping is ours because its own reserves memory for
the whole file, so that a file larger than memory could not be opened. The writing is ours because
safetensors makes a file of a name of its own beside, which stays where it is interrupted.
"""

from __future__ import annotations

import ctypes
import errno
import json
import math
import mmap
import os
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from safetensors import SafetensorError, deserialize, safe_open
from torch import Tensor

from gpuzip._core.checks import printable
from gpuzip.errors import FormatError
from gpuzip.storage.streams import write_all

#: Largest accepted header in bytes; gpuzip writes about 600.
HEADER_LIMIT = 1 << 20

DTYPES = {"U8": torch.uint8, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
UNREADABLE = (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OverflowError)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return mapped tensors by name, and the metadata. Raises OSError and FormatError."""
    while True:
        with open(path, "rb") as file:
            places, metadata = _places(path, file)
            if not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                continue  # the file was replaced between the two reads
            mapped = _map(file)
        tensors = {}
        for name, (like, start) in places.items():
            part = _part(mapped, start, like.nbytes)
            if part.data_ptr() % like.itemsize:
                raise unreadable(path, f"{name} is not aligned")
            tensors[name] = part.view(like.dtype).view(like.shape)
        return tensors, metadata


def places_of(path: Path) -> dict[str, tuple[Tensor, int]]:
    """A meta tensor and the offset of its first byte, by name. Raises OSError and FormatError."""
    with open(path, "rb") as file:
        return _places(path, file)[0]


def _places(path: Path, file: BinaryIO) -> tuple[dict[str, tuple[Tensor, int]], dict[str, str]]:
    start = 8 + _header_length(path, file)
    kinds, metadata = _header(path)
    found = {}
    for name, like in kinds.items():
        found[name], start = (like, start), start + like.nbytes
    return found, metadata


def tensors_of(data: bytes, name: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """`read_tensors` of bytes, which are copied. name: for messages."""
    length = checked_length(name, data[:8], len(data))
    try:
        found = {key: _copied(**entry) for key, entry in deserialize(data)}  # type: ignore[no-untyped-call]
        return found, json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    except UNREADABLE as error:
        raise unreadable(name, str(error)) from error


def _copied(dtype: str, shape: list[int], data: bytes) -> Tensor:
    if not data:
        return torch.empty(shape, dtype=DTYPES[dtype], device="cpu")
    return torch.frombuffer(bytearray(data), dtype=DTYPES[dtype]).view(shape)


class Pieces(NamedTuple):
    """A tensor that is written piece by piece, in order. `each` yields contiguous tensors."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    each: Callable[[], Iterator[Tensor]]

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)


def write_tensors(
    out: BinaryIO, tensors: Mapping[str, Tensor | Pieces], metadata: Mapping[str, str] | None = None
) -> int:
    """Write a safetensors file, the same bytes as safetensors', without a copy of the tensors in memory.

    Returns the number of bytes.
    """
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    order = list(DTYPES.values())
    names = sorted(tensors, key=lambda name: (-order.index(tensors[name].dtype), name))
    start = 0
    for name in names:
        tensor = tensors[name]
        stop = start + tensor.nbytes
        kind, shape = _NAMES[tensor.dtype], list(tensor.shape)
        header[name], start = {"dtype": kind, "shape": shape, "data_offsets": [start, stop]}, stop
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    write_all(out, len(text).to_bytes(8, "little") + text)
    for name in names:
        tensor = tensors[name]
        for piece in tensor.each() if isinstance(tensor, Pieces) else (tensor,):
            if piece.numel():
                write_all(out, piece.reshape(-1).view(torch.uint8).numpy().data)
    return 8 + len(text) + start


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file without metadata."""
    with open(path, "wb") as out:
        write_tensors(out, tensors)


def _header_length(path: Path, file: BinaryIO) -> int:
    return checked_length(path, file.read(8), os.fstat(file.fileno()).st_size)


def checked_length(path: Path | str, first: bytes, size: int) -> int:
    length = int.from_bytes(first, "little")
    if size < 8 or length > min(size - 8, HEADER_LIMIT):
        raise unreadable(path, "its first 8 bytes are not the length of a header")
    return length


def _header(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return meta tensors in the order of their bytes, which have no gaps, and the metadata."""
    try:
        with safe_open(path, "np") as file:
            slices = {name: file.get_slice(name) for name in file.offset_keys()}
            kinds = {
                name: torch.empty(s.get_shape(), dtype=DTYPES[s.get_dtype()], device="meta")
                for name, s in slices.items()
            }
            return kinds, file.metadata() or {}
    except FileNotFoundError as error:  # safetensors says so too where no file can be opened
        if path.exists():
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path)) from error
        raise
    except UNREADABLE as error:
        raise unreadable(path, str(error)) from error


def _part(mapped: Any, start: int, size: int) -> Tensor:
    """Some bytes as a storage of their own, so that a pickle of them holds no other bytes of the file."""
    if not size:
        return torch.empty(0, dtype=torch.uint8, device="cpu")
    return torch.frombuffer(mapped, dtype=torch.uint8, offset=start, count=size)


def _map(file: BinaryIO) -> Any:
    """The whole file: private, so that no write reaches it, without reserving memory or keeping it open.

    Python's own map keeps a descriptor, of which a process has some hundred or thousand.
    """
    if sys.platform == "win32":
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    flags = mmap.MAP_PRIVATE | no_reserve()
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    if sys.version_info >= (3, 13):
        return mmap.mmap(file.fileno(), 0, flags=flags, prot=protection, trackfd=False)
    return _map_by_address(file.fileno(), flags, protection)


def no_reserve() -> int:
    """The flag of a map that promises no memory, where the system has one."""
    return getattr(mmap, "MAP_NORESERVE", 0x4000) if sys.platform == "linux" else 0  # for Python 3.10


def _map_by_address(descriptor: int, flags: int, protection: int) -> Any:
    """What mmap.mmap(trackfd=False) is from Python 3.13 on."""
    size = os.fstat(descriptor).st_size
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    library.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    address = library.mmap(None, size, protection, flags, descriptor, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    mapped = (ctypes.c_char * size).from_address(address)
    weakref.finalize(mapped, library.munmap, address, size).atexit = False  # tensors may live longer
    return mapped


def unreadable(path: Path | str, why: str) -> FormatError:
    return FormatError(
        f"{path}: cannot be read as safetensors ({printable(why)}). Restore the file, or make it again."
    )
