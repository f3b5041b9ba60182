"""Nearest centroid: squared differences of a tile of rows, one row a lane, the least kept beside them.

A tile holds _ROWS rows of one sub-space, transposed, so that rows are lanes of vector registers and every
centroid's value is one broadcast. Four centroids share the loads of a tile. A row's result depends on
that row alone, so it is the same in any tile and any thread; the strict comparison keeps the lowest index.
Distances are of differences, never of products: rows far from the origin lose no digits.
"""

import numpy as np
import torch
from torch import Tensor

from gpuzip.loops._jit import UNROLLED, jit, unrolled
from gpuzip.parallel import map_blocks

_ROWS = 64
_TOGETHER = 4  # centroids
_PART = 8  # columns of a longer one at a time
_WORK = 1 << 26  # products that make a block worth a thread
_BLOCK = 2048  # most rows of a block


def assign(x: Tensor, centroids: Tensor, exact: bool = True) -> Tensor:
    M, K, _ = centroids.shape
    labels = torch.empty((len(x), M), dtype=torch.uint8 if K <= 256 else torch.int32)
    codebook = Codebook(centroids)

    def one_block(start: int, stop: int) -> None:
        labels[start:stop] = torch.from_numpy(codebook.nearest(x[start:stop]))

    map_blocks(one_block, len(x), codebook.block)
    return labels


class Codebook:
    """A codebook as the loops read it.

    values: (M, K', S') float32. K' is a multiple of _TOGETHER, filled with infinity, which is near nothing;
    S' is S, or for long sub-vectors a multiple of _PART, filled with zeros.
    """

    def __init__(self, centroids: Tensor):
        _, K, self.S = centroids.shape
        values = centroids.float()
        if K % _TOGETHER:
            values = torch.nn.functional.pad(values, (0, 0, 0, -K % _TOGETHER), value=float("inf"))
        if self.S > UNROLLED and self.S % _PART:
            values = torch.nn.functional.pad(values, (0, -self.S % _PART))
        self.values = values.contiguous().numpy()

    @property
    def block(self) -> int:
        """Rows of a block: whole tiles."""
        rows = _WORK // self.values.size // _ROWS * _ROWS
        return min(max(rows, _ROWS), _BLOCK)

    def nearest(self, x: Tensor, first: int = 0, last: int | None = None) -> np.ndarray:
        """Labels of rows (n, D) in sub-spaces `first` to `last`: (n, last - first) int32."""
        values = self.values[first:last]
        labels = np.empty((len(x), len(values)), np.int32)
        rows = x.float().contiguous().numpy()
        if self.S <= UNROLLED:
            _nearest(rows, first, values, unrolled(self.S), labels)
        else:
            _nearest_of_long(rows, first, self.S, values, labels)
        return labels


@jit(fastmath={"contract"})
def _nearest(x, first, centroids, width, labels):
    S = len(width)
    M, K, _ = centroids.shape
    tile = np.zeros((S + 2) * _ROWS, np.float32)  # one array: its parts are known not to overlap
    least, index = S * _ROWS, (S + 1) * _ROWS
    for start in range(0, len(x), _ROWS):
        rows = min(_ROWS, len(x) - start)
        for m in range(M):
            column = (first + m) * S
            for r in range(rows):
                for s in range(S):
                    tile[s * _ROWS + r] = x[start + r, column + s]
            for r in range(_ROWS):
                tile[least + r] = np.inf
                tile[index + r] = 0
            for k in range(0, K, _TOGETHER):
                for r in range(_ROWS):
                    best, nearest = tile[least + r], tile[index + r]
                    for i in range(_TOGETHER):
                        d = np.float32(0)
                        for s in range(S):
                            difference = tile[s * _ROWS + r] - centroids[m, k + i, s]
                            d += difference * difference
                        nearest = np.float32(k + i) if d < best else nearest
                        best = d if d < best else best
                    tile[least + r], tile[index + r] = best, nearest
            for r in range(rows):
                labels[start + r, m] = np.int32(tile[index + r])


@jit(fastmath={"contract"})
def _nearest_of_long(x, first, S, centroids, labels):
    """As _nearest where S is too long to unroll: the sums of four centroids wait in memory between parts."""
    M, K, padded = centroids.shape
    tile = np.zeros(padded * _ROWS, np.float32)
    sums = np.empty((6, _ROWS), np.float32)  # of _TOGETHER centroids; the least, and its index
    for start in range(0, len(x), _ROWS):
        rows = min(_ROWS, len(x) - start)
        for m in range(M):
            column = (first + m) * S
            for r in range(rows):
                for s in range(S):
                    tile[s * _ROWS + r] = x[start + r, column + s]
            sums[4], sums[5] = np.inf, 0
            for k in range(0, K, _TOGETHER):
                sums[:4] = 0
                for s in range(0, padded, _PART):
                    for r in range(_ROWS):
                        a, b, c, d = sums[0, r], sums[1, r], sums[2, r], sums[3, r]
                        for i in range(s, s + _PART):
                            value = tile[i * _ROWS + r]
                            a += (value - centroids[m, k, i]) ** 2
                            b += (value - centroids[m, k + 1, i]) ** 2
                            c += (value - centroids[m, k + 2, i]) ** 2
                            d += (value - centroids[m, k + 3, i]) ** 2
                        sums[0, r], sums[1, r], sums[2, r], sums[3, r] = a, b, c, d
                for i in range(_TOGETHER):
                    for r in range(_ROWS):
                        nearer = sums[i, r] < sums[4, r]
                        sums[5, r] = np.float32(k + i) if nearer else sums[5, r]
                        sums[4, r] = sums[i, r] if nearer else sums[4, r]
            for r in range(rows):
                labels[start + r, m] = np.int32(sums[5, r])
