"""Packs codes of 1 to 16 bits into bytes, least significant bit first, and unpacks them."""

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._jit import jit

_BLOCK = 1 << 18  # codes per block


def pack_bits(values: Tensor, nbits: int) -> Tensor:
    N, M = values.shape
    packed = torch.empty((N, (M * nbits + 7) // 8), dtype=torch.uint8, device="cpu")

    def one_block(start: int, stop: int) -> None:
        pack_rows(values[start:stop].int().contiguous().numpy(), nbits, packed[start:stop])

    map_blocks(one_block, N, max(1, _BLOCK // max(M, 1)))
    return packed


def unpack_bits(packed: Tensor, M: int, nbits: int) -> Tensor:
    values = torch.empty((len(packed), M), dtype=torch.uint8 if nbits <= 8 else torch.int32, device="cpu")

    def one_block(start: int, stop: int) -> None:
        _unpack(packed[start:stop].contiguous().numpy(), nbits, values[start:stop].numpy())

    map_blocks(one_block, len(packed), max(1, _BLOCK // max(M, 1)))
    return values


def pack_rows(values: np.ndarray, nbits: int, packed: Tensor) -> None:
    """Pack values (n, M) int32 into packed (n, B)."""
    _pack(values, nbits, packed.numpy())


@jit()
def _pack(values, nbits, packed):
    N, M = values.shape
    if nbits == 8:
        for n in range(N):
            for m in range(M):
                packed[n, m] = values[n, m]
    elif nbits == 4:
        for n in range(N):
            for j in range(M // 2):
                packed[n, j] = (values[n, 2 * j] & 15) | (values[n, 2 * j + 1] << 4)
            if M % 2:
                packed[n, M // 2] = values[n, M - 1] & 15
    else:
        mask = (1 << nbits) - 1
        for n in range(N):
            word, bits, byte = 0, 0, 0
            for m in range(M):
                word |= (values[n, m] & mask) << bits
                bits += nbits
                while bits >= 8:
                    packed[n, byte] = word & 255
                    word >>= 8
                    bits -= 8
                    byte += 1
            if bits:
                packed[n, byte] = word


@jit()
def _unpack(packed, nbits, values):
    N, M = values.shape
    B = packed.shape[1]
    mask = (1 << nbits) - 1
    if nbits == 4:
        for n in range(N):
            for j in range(M // 2):
                values[n, 2 * j] = packed[n, j] & 15
                values[n, 2 * j + 1] = packed[n, j] >> 4
            if M % 2:
                values[n, M - 1] = packed[n, M // 2] & 15
    else:
        for n in range(N):
            for m in range(M):
                byte = m * nbits // 8
                # A code that ends earlier uses no bit of the next bytes, so at the end of a row any byte will
                # do.
                word = (
                    np.int64(packed[n, byte])
                    | np.int64(packed[n, min(byte + 1, B - 1)]) << 8
                    | np.int64(packed[n, min(byte + 2, B - 1)]) << 16
                )
                values[n, m] = (word >> (m * nbits % 8)) & mask
