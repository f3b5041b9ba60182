"""Decodes packed codes: each code copies its centroid in the widest words that divide it."""

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.byte_tables import by_byte
from gpuzip._core.memory import uninitialized
from gpuzip._core.parallel import map_blocks
from gpuzip.loops._copy import copy_words
from gpuzip.loops._jit import UNROLLED, jit, unrolled
from gpuzip.loops._registers import address_of

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
    loop = {8: _of_bytes, 4: _of_halves}.get(nbits, _of_bits)
    chosen = np.empty(0, np.int64) if ids is None else ids.contiguous().numpy()

    def one_block(start: int, stop: int) -> None:
        loop(codes, chosen, start, nbits, table, starts, width, words[start:stop])

    map_blocks(one_block, len(out), max(1, _BLOCK // out[0].nbytes), lone_here=True)
    return out


def _decode_of(name, code_at):
    """Return the loop for codes that code_at(packed, row, m, nbits) reads."""

    @jit(name=name)
    def loop(packed, ids, first, nbits, centroids, starts, width, out):
        M, size = len(starts), centroids.shape[2] * centroids.itemsize
        table, target = address_of(centroids), address_of(out)
        for n in range(len(out)):
            row = ids[first + n] if len(ids) else first + n
            if row < 0 or row >= len(packed):
                for i in range(out.shape[1]):
                    out[n, i] = 0
                target += M * size
            else:
                for m in range(M):
                    code = code_at(packed, row, m, nbits)
                    copy_words(table + starts[m] + code * size, target, size, width)
                    target += size

    return loop


_CODE = "int64(uint8[:, ::1], intp, intp, intp)"


@jit(_CODE, inner=True)
def _byte(packed, row, m, nbits):
    return np.int64(packed[row, m])


@jit(_CODE, inner=True)
def _half(packed, row, m, nbits):
    return (np.int64(packed[row, m >> 1]) >> ((m & 1) * 4)) & 15


@jit(_CODE, inner=True)
def _bits(packed, row, m, nbits):
    """A code that ends earlier uses no bit of the next bytes, so at the end of a row any byte will do."""
    byte, last = m * nbits >> 3, packed.shape[1] - 1
    bits = (
        np.int64(packed[row, byte])
        | np.int64(packed[row, min(byte + 1, last)]) << 8
        | np.int64(packed[row, min(byte + 2, last)]) << 16
    )
    return (bits >> (m * nbits & 7)) & ((1 << nbits) - 1)


_of_bytes, _of_halves = _decode_of("bytes", _byte), _decode_of("halves", _half)
_of_bits = _decode_of("bits", _bits)
