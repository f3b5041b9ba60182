"""Scalar codes of equal steps, and back, in one pass over the values."""

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.memory import uninitialized
from gpuzip._core.parallel import map_blocks
from gpuzip.loops._jit import jit, wide_vectors

_BLOCK = 1 << 18  # values per block


def scalar_encode(x: Tensor, start: Tensor, step: Tensor, top: int) -> Tensor:
    out = torch.empty(x.shape, dtype=torch.uint8, device="cpu")
    scalar_bytes(x, start, step, top, 0, out)
    return out


def scalar_bytes(x: Tensor, start: Tensor, step: Tensor, top: int, flip: int, out: Tensor) -> float:
    N, D = x.shape
    starts, steps = (t.float().expand(D).contiguous().numpy() for t in (start, step))

    def one_block(first: int, stop: int) -> float:
        rows = x[first:stop].float().contiguous().numpy()
        return _encode(rows, starts, steps, np.float32(top), np.uint8(flip), out[first:stop].numpy())

    return sum(map_blocks(one_block, N, max(1, _BLOCK // max(D, 1)), with_caller=True))


def scalar_decode(packed: Tensor, start: Tensor, step: Tensor, bits: int, flip: int) -> Tensor:
    N, D = len(packed), len(start)
    out = uninitialized(N, D, torch.float32)
    starts, steps = (t.contiguous().numpy() for t in (start, step))
    loop = decode_bytes if bits == 8 else _decode_halves

    def one_block(first: int, stop: int) -> None:
        loop(packed[first:stop].contiguous().numpy(), starts, steps, np.uint8(flip), out[first:stop].numpy())

    map_blocks(one_block, N, max(1, _BLOCK // max(D, 1)), with_caller=True)
    return out


@jit("float32(float32[:, ::1], float32[::1], float32[::1], float32, uint8, uint8[:, ::1])")
def _encode(x, start, step, top, flip, out):
    """Write codes, with the bits of `flip` changed; return the sum of the squares of x."""
    wide_vectors()
    N, D = x.shape
    total = np.float32(0)
    for n in range(N):
        total += _squares(x[n])
        for d in range(D):
            cell = np.floor((x[n, d] - start[d]) / step[d])
            cell = cell if cell > np.float32(0) else np.float32(0)
            cell = cell if cell < top else top
            out[n, d] = np.uint8(np.int32(cell)) ^ flip
    return total


@jit("float32(float32[::1])", inner=True, fastmath={"reassoc", "contract"})
def _squares(row):
    wide_vectors()
    total = np.float32(0)
    for d in range(len(row)):
        total += row[d] * row[d]
    return total


@jit("void(uint8[:, ::1], float32[::1], float32[::1], uint8, float32[:, ::1])")
def decode_bytes(codes, start, step, flip, out):
    for n in range(len(out)):
        bytes_of_row(codes[n], start, step, flip, out[n])


@jit("void(uint8[:, ::1], float32[::1], float32[::1], uint8, float32[:, ::1])")
def _decode_halves(packed, start, step, flip, out):
    for n in range(len(out)):
        halves_of_row(packed[n], start, step, flip, out[n])


_ROW = "void(uint8[::1], float32[::1], float32[::1], uint8, float32[::1])"


@jit(_ROW, inner=True)
def bytes_of_row(codes, start, step, flip, out):
    wide_vectors()
    for d in range(len(out)):
        code = np.float32(np.int32(codes[d] ^ flip))
        out[d] = (code + np.float32(0.5)) * step[d] + start[d]


@jit(_ROW, inner=True)
def halves_of_row(packed, start, step, flip, out):
    """Decode two codes of 4 bits per byte, the first in the lower half."""
    wide_vectors()
    D = len(out)
    for j in range(D // 2):
        byte, d = np.int32(packed[j] ^ flip), 2 * j
        out[d] = (np.float32(byte & 15) + np.float32(0.5)) * step[d] + start[d]
        out[d + 1] = (np.float32(byte >> 4) + np.float32(0.5)) * step[d + 1] + start[d + 1]
    if D % 2:
        code = np.float32(np.int32(packed[D // 2] ^ flip) & 15)
        out[D - 1] = (code + np.float32(0.5)) * step[D - 1] + start[D - 1]
