"""Tables of frequencies in few bytes: their logarithms in steps, as differences, deflated."""

from __future__ import annotations

import math
import zlib
from typing import NamedTuple

import torch
from torch import Tensor

from gpuzip.archive.frequencies import TOTAL, normalized

_FINE = 16  # steps per factor of two, at most
_STRIDES = (1, 4)  # fine and coarse: each table of a file is the one or the other


class Packed(NamedTuple):
    """Bytes of some tables, and the frequencies that are read from them."""

    data: bytes
    freqs: Tensor


def pack_tables(counts: Tensor) -> Packed:
    """Pack tables of counts (T, K), K up to 256, so that they and what they code take the fewest bytes."""
    exact = normalized(counts)[:, : counts.shape[1]]
    return min((_packed(counts, exact, stride) for stride in _STRIDES), key=lambda pair: pair[0])[1]


def _packed(counts: Tensor, exact: Tensor, stride: int) -> tuple[float, Packed]:
    steps = torch.round(exact.double().clamp_min(1).log2() * (_FINE // stride)).to(torch.uint8) + 1
    steps = torch.where(exact > 0, steps, 0)
    freqs = _read(steps, stride)
    down = steps.diff(dim=0, prepend=torch.zeros_like(steps[:1]))
    along = steps.diff(dim=1, prepend=torch.zeros_like(steps[:, :1]))
    of_both = [zlib.compress(part.cpu().numpy().tobytes(), 9) for part in (down, along)]
    which = int(len(of_both[1]) < len(of_both[0]))
    data = bytes([stride << 1 | which]) + of_both[which]
    cost = counts * freqs[:, : counts.shape[1]].double().clamp_min(1).log2()
    return len(data) - float(cost.sum()) / 8, Packed(data, freqs)


def unpack_tables(data: bytes, tables: int, symbols: int, device: torch.device) -> Tensor:
    """Undo `pack_tables`: (T, 256) int32. A ValueError if the bytes are not those of such tables."""
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(data[1:], tables * symbols + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    stride, along = data[0] >> 1, data[0] & 1
    if len(raw) != tables * symbols or stride not in _STRIDES:
        raise ValueError("tables of another size")
    steps = torch.frombuffer(bytearray(raw), dtype=torch.uint8).to(device).view(tables, symbols)
    steps = steps.cumsum(along, dtype=torch.int64) & 255
    if int(steps.max()) > _most(stride):
        raise ValueError("a frequency above 4096")
    return _read(steps, stride)


def _most(stride: int) -> int:
    return 1 + 12 * _FINE // stride


def _read(steps: Tensor, stride: int) -> Tensor:
    """Return the frequencies of steps, 0 of which means none: (T, K) -> (T, 256) int32."""
    powers = [0, *(_power(step * stride) for step in range(_most(stride)))]
    return normalized(torch.tensor(powers, dtype=torch.int64, device=steps.device)[steps.long()])


def _power(step: int) -> int:
    """Return floor(4096 * 2 ** (step / 16)), exactly."""
    root = 1 << (16 * TOTAL.bit_length() - 16 + step)
    for _ in range(4):
        root = math.isqrt(root)
    return root
