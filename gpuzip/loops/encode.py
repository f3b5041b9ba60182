"""Finds nearest centroids and packs them by block, so that labels stay in cache between the two."""

import torch
from torch import Tensor

from gpuzip._core.parallel import map_blocks
from gpuzip.loops.assign import Codebook
from gpuzip.loops.bits import pack_rows


def encode(x: Tensor, centroids: Tensor, exact: bool = True) -> Tensor:
    M, K, _ = centroids.shape
    nbits = K.bit_length() - 1
    packed = torch.empty((len(x), (M * nbits + 7) // 8), dtype=torch.uint8, device="cpu")
    codebook = Codebook(centroids)

    def one_block(start: int, stop: int) -> None:
        pack_rows(codebook.nearest(x[start:stop]), nbits, packed[start:stop])

    map_blocks(one_block, len(x), codebook.block)
    return packed
