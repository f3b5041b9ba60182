"""Maps the tensors of a safetensors file, so that bytes are read on access.

safetensors reads and checks the header. It is not used for mapping, because it reserves memory for the whole
file and could not open a file larger than memory.
"""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gpuzip.errors import FormatError

#: Largest accepted header in bytes; gpuzip writes about 600.
HEADER_LIMIT = 1 << 20

_DTYPES = {"U8": torch.uint8, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # its value on Linux, for Python 3.10


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return mapped tensors by name, and the metadata. Raises OSError and FormatError."""
    while True:
        with open(path, "rb") as file:
            first, length = 8, _header_length(path, file)
            kinds, metadata = _header(path)
            if not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                continue  # the file was replaced between the two reads
            mapped, start = _map(file), first + length
        tensors = {}
        for name, like in kinds.items():
            part = _part(mapped, start, like.nbytes)
            if part.data_ptr() % like.itemsize:
                raise _unreadable(path, f"{name} is not aligned")
            tensors[name], start = part.view(like.dtype).view(like.shape), start + like.nbytes
        return tensors, metadata


def _header_length(path: Path, file: BinaryIO) -> int:
    size, length = os.fstat(file.fileno()).st_size, int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, HEADER_LIMIT):
        raise _unreadable(path, "its first 8 bytes are not the length of a header")
    return length


def _header(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return meta tensors in the order of their bytes, which have no gaps, and the metadata."""
    try:
        with safe_open(path, "np") as file:
            slices = {name: file.get_slice(name) for name in file.offset_keys()}
            kinds = {
                name: torch.empty(s.get_shape(), dtype=_DTYPES[s.get_dtype()], device="meta")
                for name, s in slices.items()
            }
            return kinds, file.metadata() or {}
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise _unreadable(path, str(error)) from error


def _part(mapped: mmap.mmap, start: int, size: int) -> Tensor:
    """Some bytes as a storage of their own, so that a pickle of the tensor holds no other bytes of the file."""
    if not size:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(mapped, dtype=torch.uint8, offset=start, count=size)


def _map(file: BinaryIO) -> mmap.mmap:
    """The whole file: private, so that no write reaches it, and without reserving memory."""
    if sys.platform == "linux":
        flags, protection = mmap.MAP_PRIVATE | _NO_RESERVE, mmap.PROT_READ | mmap.PROT_WRITE
        return mmap.mmap(file.fileno(), 0, flags=flags, prot=protection)
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def _unreadable(path: Path, why: str) -> FormatError:
    return FormatError(
        f"{path}: cannot be read as safetensors ({why}). It is damaged, or gpuzip did not write it."
    )
