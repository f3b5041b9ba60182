"""The tensors of a remote safetensors file: the header at once, the others when they are asked for.

A tensor whose bytes come later is memory that is reserved and not yet used, as a mapped one is, and its
blocks are fetched into it. The checks of the header are those of safetensors, which reads whole files alone.
"""

from __future__ import annotations

import json
import math
import mmap
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gpuzip.storage.blocks import Fetch
from gpuzip.storage.remote import Remote
from gpuzip.storage.tensors import DTYPES, UNREADABLE, checked_length, no_reserve, unreadable

_ENTRY = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True)
class RemoteTensors:
    """A remote file whose header was read.

    Attributes
    ----------
    source : Remote
        The file.
    nbytes : int
        Its bytes.
    metadata : dict
        The metadata of its header.
    kinds : dict
        Tensors without memory, on the meta device, by name.
    starts : dict
        Where in the file each begins.
    """

    source: Remote
    nbytes: int
    metadata: dict[str, str]
    kinds: dict[str, Tensor]
    starts: dict[str, int]

    @classmethod
    def of(cls, source: Remote) -> RemoteTensors:
        """Read the first 8 bytes and the header. Raises OSError and FormatError."""
        size = source.size()
        length = checked_length(source.name, source.ranges([(0, min(8, size))])[0], size)
        [text] = source.ranges([(8, 8 + length)])
        kinds, starts, metadata = _parsed(source.name, text, size)
        return cls(source, size, metadata, kinds, starts)

    def read(self, later: Iterable[str]) -> dict[str, Tensor]:
        """The tensors by name. later: those whose bytes are reserved memory until they are fetched."""
        waiting = set(later)
        now = [name for name in self.kinds if name not in waiting]
        spans = [(self.starts[name], self.starts[name] + self.kinds[name].nbytes) for name in now]
        tensors = dict(zip(now, map(_tensor, self.source.ranges(spans)), strict=True))
        tensors |= {name: _reserved(self.kinds[name].nbytes) for name in waiting}
        return {name: tensors[name].view(like.dtype).view(like.shape) for name, like in self.kinds.items()}

    def fetch_of(self, names: list[str]) -> Fetch:
        """A function that reads ranges of bytes, (number of a name, start, stop) each, of these tensors."""
        first = [self.starts[name] for name in names]
        return lambda spans: self.source.ranges(
            [(first[i] + start, first[i] + stop) for i, start, stop in spans]
        )


def _parsed(name: str, text: bytes, size: int) -> tuple[dict[str, Tensor], dict[str, int], dict[str, str]]:
    """Kinds in the order of their bytes, which have no gaps; where they start; and the metadata."""
    try:
        header = json.loads(text.decode(), object_pairs_hook=_each_once)
        metadata = header.pop("__metadata__", {})
        entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
        at = first = 8 + len(text)
        kinds, starts = {}, {}
        for key, entry in entries:
            kind, (start, stop) = _kind(entry), entry["data_offsets"]
            if first + start != at or stop - start != kind.nbytes or at % kind.itemsize:
                raise ValueError(f"{key} has the wrong place or size")
            kinds[key], starts[key], at = kind, at, first + stop
        if at != size:
            raise ValueError(f"its tensors end at {at} of {size} bytes")
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("its metadata must be text")
        return kinds, starts, metadata
    except (*UNREADABLE, AttributeError, RecursionError) as error:
        raise unreadable(name, f"{error!r:.200}") from error


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _kind(entry: dict[str, Any]) -> Tensor:
    shape = entry["shape"]
    if set(entry) != _ENTRY or not all(type(n) is int and n >= 0 for n in [*shape, *entry["data_offsets"]]):
        raise ValueError("an entry must have a dtype, a shape and offsets")
    if math.prod(shape) >= 1 << 63:
        raise ValueError("a shape is too large")
    return torch.empty(shape, dtype=DTYPES[entry["dtype"]], device="meta")


def _tensor(data: bytes) -> Tensor:
    if not data:
        return torch.empty(0, dtype=torch.uint8, device="cpu")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _reserved(nbytes: int) -> Tensor:
    """Memory that takes none until it is written, however much a header says it is."""
    if not nbytes:
        return torch.empty(0, dtype=torch.uint8, device="cpu")
    if sys.platform == "win32":
        return torch.frombuffer(mmap.mmap(-1, nbytes), dtype=torch.uint8)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve()
    return torch.frombuffer(mmap.mmap(-1, nbytes, flags=flags), dtype=torch.uint8)
