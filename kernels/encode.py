"""Packed codes of product quantization in one kernel: finds nearest centroids and joins their bits.

out[n, b] = union of label[n, m] << (m*nbits - 8b) over the codes m of byte b, with label as in `assign`. The
layout is FAISS's.
Layouts: x (N, M*S) with any row stride, centroids (M, K, S), K = 2**nbits -> (N, ceil(M*nbits/8)) uint8.
Bytes moved: N*D*itemsize in, N*B out; the centroids, M*K*8*S bytes as halves, stay in cache.
Source: Jegou, Douze, Schmid, "Product quantization for nearest neighbor search" (2011); FAISS
BitstringWriter.
Ladder: 1. `assign`, then `pack_bits` (the simple form, also for exact codes and codes that do not fill
bytes). 2. (here) one program finds all codes of a byte, so that labels stay in registers.
"""

import torch
import triton
from torch import Tensor

from ._launch import launch_or
from .assign import _WIDEST, Tile, assign, assign_halves
from .bits import pack_bits


def encode(x: Tensor, centroids: Tensor, exact: bool = False, tile: Tile | None = None) -> Tensor:
    """Launch: (N, M*S) float32|float16|bfloat16, (M, K, S) float32 -> (N, B) uint8, K a power of two."""
    N, (M, K, S) = x.shape[0], centroids.shape
    nbits = max(1, K.bit_length() - 1)

    def in_two() -> Tensor:
        labels = assign(x, centroids, exact, tile)
        return labels if nbits == 8 else pack_bits(labels, nbits)

    def in_one() -> Tensor:
        rows = x if x.stride(1) == 1 else x.contiguous()
        out = torch.empty((N, triton.cdiv(M * nbits, 8)), dtype=torch.uint8, device=x.device)
        assign_halves(rows, centroids, out, 8 // nbits, None, tile)
        return out

    if N == 0 or exact or nbits not in (1, 2, 4) or S > _WIDEST:
        return in_two()
    return launch_or("encode[float16 halves]", in_one, in_two)
