"""Decodes packed codes: each code copies its centroid in the widest words that divide it."""

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.byte_tables import by_byte
from gpuzip._core.memory import uninitialized
from gpuzip._core.parallel import map_blocks
from gpuzip.loops._copy import copy_words
from gpuzip.loops._jit import UNROLLED, jit, unrolled

_BLOCK = 1 << 22  # output bytes per block: fewer do not pay for another thread
_FEW = 64  # up to so many rows, a codebook of whole bytes does not pay
_WORDS = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}


def decode(packed: Tensor, centroids: Tensor, ids: Tensor | None = None, share: int = 1) -> Tensor:
    if share > 1 and (len(packed) if ids is None else len(ids)) >= _FEW:
        centroids, share = by_byte(centroids, share)
    C, K, S = centroids.shape
    M = C * share
    out = uninitialized(len(packed) if ids is None else len(ids), M * S, centroids.dtype)
    if out.numel() == 0:
        return out
    size = int(np.gcd(S * out.element_size(), 8))
    table, words = (t.view(_WORDS[size]).numpy() for t in (centroids.contiguous(), out))
    count = table.shape[2]
    width = unrolled(count if count <= UNROLLED else 0, table.dtype.type(0))
    starts = np.arange(M) // share * (K * table[0, 0].nbytes)
    codes, nbits = (packed.contiguous() if ids is None else packed).numpy(), K.bit_length() - 1
    chosen = np.empty(0, np.int64) if ids is None else ids.contiguous().numpy()

    def one_block(start: int, stop: int) -> None:
        _decode(codes, chosen, start, nbits, table, starts, width, words[start:stop])

    map_blocks(one_block, len(out), max(1, _BLOCK // out[0].nbytes), lone_here=True)
    return out


@jit()
def _decode(packed, ids, first, nbits, centroids, starts, width, out):
    M, (_, K, W) = len(starts), centroids.shape
    B = packed.shape[1]
    size = W * centroids.itemsize
    table, target = np.intp(centroids.ctypes.data), np.intp(out.ctypes.data)
    for n in range(len(out)):
        row = ids[first + n] if len(ids) else first + n
        if row < 0 or row >= len(packed):
            out[n] = 0
            target += M * size
        elif nbits == 8:
            for m in range(M):
                code = np.int64(packed[row, m])
                copy_words(table + starts[m] + code * size, target, size, width)
                target += size
        elif nbits == 4:
            for m in range(M):
                code = (np.int64(packed[row, m // 2]) >> (m % 2 * 4)) & 15
                copy_words(table + starts[m] + code * size, target, size, width)
                target += size
        else:
            for m in range(M):
                byte = m * nbits // 8
                # A code that ends earlier uses no bit of the next bytes, so at the end of a row any byte will
                # do.
                bits = (
                    np.int64(packed[row, byte])
                    | np.int64(packed[row, min(byte + 1, B - 1)]) << 8
                    | np.int64(packed[row, min(byte + 2, B - 1)]) << 16
                )
                code = (bits >> (m * nbits % 8)) & (K - 1)
                copy_words(table + starts[m] + code * size, target, size, width)
                target += size
