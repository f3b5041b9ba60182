"""Packed codes to vectors: each code copies its centroid, as words of the widest type that it is whole in.

Output is written once. It is allocated by numpy, which asks for large pages where torch does not: the
faults of fresh pages take longer than the copies.
"""

import numpy as np
import torch
from torch import Tensor

from gpuzip.loops._jit import UNROLLED, jit, unrolled
from gpuzip.parallel import map_blocks

_BLOCK = 1 << 20  # bytes of output in a block
_WORDS = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}


def decode(packed: Tensor, centroids: Tensor, ids: Tensor | None = None) -> Tensor:
    M, K, S = centroids.shape
    packed, ids, unknown = _rows(packed, ids)
    N = len(packed) if ids is None else len(ids)
    out = torch.from_numpy(np.empty((N, M * S), f"i{centroids.element_size()}")).view(centroids.dtype)
    if out.numel() == 0:
        return out
    word = _WORDS[np.gcd(S * centroids.element_size(), 8)]
    table, words = centroids.contiguous().view(word).numpy(), out.view(word).numpy()
    count = table.shape[2]
    width = unrolled(count if count <= UNROLLED else 0)
    codes, chosen = packed.numpy(), np.empty(0, np.int64) if ids is None else ids.numpy()

    def one_block(start: int, stop: int) -> None:
        _copy(codes, chosen, start, K.bit_length() - 1, table, width, words[start:stop])

    if len(packed):
        map_blocks(one_block, N, max(1, _BLOCK // out[0].nbytes))
    if unknown is not None:
        out[unknown] = 0
    return out


def _rows(packed: Tensor, ids: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Packed rows and ids, contiguous, and which ids name no row: these become 0 for now."""
    if ids is None:
        return packed.contiguous(), None, None
    unknown = (ids < 0) | (ids >= len(packed))
    known = ids.masked_fill(unknown, 0)
    if packed.is_contiguous() or len(packed) == 0:
        return packed.contiguous(), known.contiguous(), unknown
    return packed[known], None, unknown


@jit()
def _copy(packed, ids, first, nbits, centroids, width, out):
    M, K, W = centroids.shape
    if len(width) > 0:
        W = len(width)
    B = packed.shape[1]
    for n in range(len(out)):
        row = ids[first + n] if len(ids) else first + n
        if nbits == 8:
            for m in range(M):
                code = packed[row, m]
                for w in range(W):
                    out[n, m * W + w] = centroids[m, code, w]
        elif nbits == 4:
            for j in range(M // 2):
                low, high = packed[row, j] & 15, packed[row, j] >> 4
                for w in range(W):
                    out[n, 2 * j * W + w] = centroids[2 * j, low, w]
                for w in range(W):
                    out[n, (2 * j + 1) * W + w] = centroids[2 * j + 1, high, w]
            if M % 2:
                for w in range(W):
                    out[n, (M - 1) * W + w] = centroids[M - 1, packed[row, M // 2] & 15, w]
        else:
            for m in range(M):
                byte = m * nbits // 8
                bits = (
                    np.int64(packed[row, byte])
                    | np.int64(packed[row, min(byte + 1, B - 1)]) << 8
                    | np.int64(packed[row, min(byte + 2, B - 1)]) << 16
                )
                code = (bits >> (m * nbits % 8)) & (K - 1)
                for w in range(W):
                    out[n, m * W + w] = centroids[m, code, w]
