"""Nearest centroid by squared differences over tiles of rows, with one row per vector lane.

A tile holds up to _ROWS rows of one sub-space, transposed, so that rows are lanes of vector registers and
each value of a centroid is broadcast once. Four centroids share the loads of a tile. The result of a row
depends only on that row, so it is the same in any tile and thread. The strict comparison keeps the lowest
index.
Distances use differences instead of products, so rows far from the origin lose no digits.
"""

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._arrays import local
from gpuzip.loops._jit import UNROLLED, jit, unrolled, wide_vectors

_ROWS = 128
_LANES = 16  # rows that are computed together, of which the last few may be idle
_TOGETHER = 4  # centroids per pass over a tile
_PART = 8  # columns per step of a long sub-vector
_WORK = 1 << 26  # products from which a block pays for a thread
_BLOCK = 2048  # most rows per block


def assign(x: Tensor, centroids: Tensor, exact: bool = True) -> Tensor:
    M, K, _ = centroids.shape
    labels = torch.empty((len(x), M), dtype=torch.uint8 if K <= 256 else torch.int32, device="cpu")
    codebook = Codebook(centroids)

    def one_block(start: int, stop: int) -> None:
        labels[start:stop] = torch.from_numpy(codebook.nearest(x[start:stop]))

    map_blocks(one_block, len(x), codebook.block)
    return labels


class Codebook:
    """A codebook padded for the loops.

    values: (M, K', S') float32. K' is a multiple of _TOGETHER, padded with infinity, which is never nearest.
    S' is S, or for long sub-vectors a multiple of _PART, padded with zeros.
    """

    def __init__(self, centroids: Tensor):
        _, self.K, self.S = centroids.shape
        values = centroids.float()
        if self.K % _TOGETHER:
            values = torch.nn.functional.pad(values, (0, 0, 0, -self.K % _TOGETHER), value=float("inf"))
        if self.S > UNROLLED and self.S % _PART:
            values = torch.nn.functional.pad(values, (0, -self.S % _PART))
        self.values = values.contiguous().numpy()

    @property
    def block(self) -> int:
        """Rows per block, a multiple of the tile."""
        rows = _WORK // self.values.size // _ROWS * _ROWS
        return min(max(rows, _ROWS), _BLOCK)

    def nearest(self, x: Tensor) -> np.ndarray:
        """Return labels (n, M) int32 of rows (n, D)."""
        labels = np.empty((len(x), len(self.values)), np.int32)
        self._run(x, 0, self.values, labels, np.empty((0, 0, 0)), np.empty((0, 0), np.int32))
        return labels

    def add_to_nearest(self, x: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return sums (m, K, S) float64, counts (m, K) int32 of rows (n, D), for sub-spaces start to stop."""
        sums = np.zeros((stop - start, self.K, self.S))
        counts = np.zeros((stop - start, self.K), np.int32)
        self._run(x, start, self.values[start:stop], np.empty((0, 0), np.int32), sums, counts)
        return torch.from_numpy(sums), torch.from_numpy(counts)

    def _run(
        self,
        x: Tensor,
        first: int,
        values: np.ndarray,
        labels: np.ndarray,
        sums: np.ndarray,
        counts: np.ndarray,
    ) -> None:
        rows = x.float().contiguous().numpy()
        if self.S <= UNROLLED:
            _nearest(rows, first, values, unrolled(self.S), labels, sums, counts)
        else:
            tile = np.zeros((values.shape[2], _ROWS), np.float32)
            _nearest_of_long(rows, first, self.S, values, tile, labels, sums, counts)


_tile = local((UNROLLED + 2) * _ROWS, np.float32)
_part, _least = local(4 * _ROWS, np.float32), local(2 * _ROWS, np.float32)


@jit(fastmath={"contract"})
def _nearest(x, first, centroids, width, labels, sums, counts):
    """Write labels (N, m), and add to sums (m, K, S) and counts (m, K). Empty arrays are skipped."""
    wide_vectors()
    S = len(width)
    M, K, _ = centroids.shape
    tile = _tile()  # one array, whose parts LLVM knows not to overlap
    least, index = S * _ROWS, (S + 1) * _ROWS
    for start in range(0, len(x), _ROWS):
        rows = min(_ROWS, len(x) - start)
        lanes = (rows + _LANES - 1) // _LANES * _LANES
        for m in range(M):
            column = (first + m) * S
            for r in range(rows):
                for s in range(S):
                    tile[s * _ROWS + r] = x[start + r, column + s]
            for r in range(lanes):
                tile[least + r] = np.inf
                tile[index + r] = 0
            for k in range(0, K, _TOGETHER):
                for r in range(lanes):
                    best, nearest = tile[least + r], tile[index + r]
                    for i in range(_TOGETHER):
                        d = np.float32(0)
                        for s in range(S):
                            difference = tile[s * _ROWS + r] - centroids[m, k + i, s]
                            d += difference * difference
                        nearest = np.float32(k + i) if d < best else nearest
                        best = d if d < best else best
                    tile[least + r], tile[index + r] = best, nearest
            if len(labels) > 0:
                for r in range(rows):
                    labels[start + r, m] = np.int32(tile[index + r])
            if len(sums) > 0:
                for r in range(rows):
                    k = np.int32(tile[index + r])
                    counts[m, k] += 1
                    for s in range(S):
                        sums[m, k, s] += tile[s * _ROWS + r]


@jit(
    "void(float32[:, ::1], intp, intp, float32[:, :, ::1], float32[:, ::1], int32[:, ::1], "
    "float64[:, :, ::1], int32[:, ::1])",
    fastmath={"contract"},
)
def _nearest_of_long(x, first, S, centroids, tile, labels, sums, counts):
    """Do what _nearest does for S too long to unroll; sums of four centroids stay in memory between parts.

    tile: memory for rows, 0 behind their S columns.
    """
    wide_vectors()
    M, K, padded = centroids.shape
    part, least, index = _part(), _least(), _ROWS  # the minima, then their indices
    for start in range(0, len(x), _ROWS):
        rows = min(_ROWS, len(x) - start)
        lanes = (rows + _LANES - 1) // _LANES * _LANES
        for m in range(M):
            column = (first + m) * S
            for r in range(rows):
                for s in range(S):
                    tile[s, r] = x[start + r, column + s]
            for r in range(lanes):
                least[r], least[index + r] = np.inf, 0
            for k in range(0, K, 4):
                for r in range(lanes):
                    part[r], part[_ROWS + r], part[2 * _ROWS + r], part[3 * _ROWS + r] = 0, 0, 0, 0
                for s in range(0, padded, _PART):
                    for r in range(lanes):
                        a, b, c, d = part[r], part[_ROWS + r], part[2 * _ROWS + r], part[3 * _ROWS + r]
                        for i in range(_PART):
                            value = tile[s + i, r]
                            a += (value - centroids[m, k, s + i]) ** 2
                            b += (value - centroids[m, k + 1, s + i]) ** 2
                            c += (value - centroids[m, k + 2, s + i]) ** 2
                            d += (value - centroids[m, k + 3, s + i]) ** 2
                        part[r], part[_ROWS + r], part[2 * _ROWS + r], part[3 * _ROWS + r] = a, b, c, d
                for i in range(4):
                    for r in range(lanes):
                        d, best = part[i * _ROWS + r], least[r]
                        least[index + r] = np.float32(k + i) if d < best else least[index + r]
                        least[r] = d if d < best else best
            if len(labels) > 0:
                for r in range(rows):
                    labels[start + r, m] = np.int32(least[index + r])
            if len(sums) > 0:
                for r in range(rows):
                    k = np.int32(least[index + r])
                    counts[m, k] += 1
                    for s in range(S):
                        sums[m, k, s] += tile[s, r]
