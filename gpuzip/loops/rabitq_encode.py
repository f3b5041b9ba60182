"""RaBitQ codes by row: all scales of the grid are tried while the row is in cache."""

import numpy as np
import torch

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._jit import jit, wide_vectors

_BLOCK = 1 << 16  # values per block
_LARGEST = np.float32(2.0**126)


def rabitq_encode(x, center, coarse, fine, bits):
    """Run the operator: (N, D), (D,), scales, bits -> (N, D) uint8, (N, 5) float32."""
    N, D = x.shape
    codes, sums = (
        torch.empty((N, D), dtype=torch.uint8, device="cpu"),
        torch.empty((N, 5), dtype=torch.float32, device="cpu"),
    )
    others = [t.contiguous().numpy() for t in (center, coarse, fine)]

    def one_block(start, stop):
        rows = x[start:stop].float().contiguous().numpy()
        _encode(
            rows,
            *others,
            np.float32((1 << (bits - 1)) - 1),
            codes[start:stop].numpy(),
            sums[start:stop].numpy(),
            *np.empty((2, D), np.float32),
        )

    map_blocks(one_block, N, max(1, _BLOCK // D), with_caller=True)
    return codes, sums


def rabitq_signs(x, center):
    """Run the function of gpuzip.ops: (N, D), (D,) -> (N, W) uint8, (N, 5) float32, (N,) bool."""
    N, D = x.shape
    packed = torch.empty((N, (D + 7) // 8), dtype=torch.uint8, device="cpu")
    sums = torch.empty((N, 5), dtype=torch.float32, device="cpu")
    zeros = torch.empty(N, dtype=torch.bool, device="cpu")
    middle = center.contiguous().numpy()

    def one_block(start, stop):
        rows = x[start:stop].float().contiguous().numpy()
        found = (part[start:stop].numpy() for part in (packed, sums, zeros))
        own = np.zeros(packed.shape[1], np.uint64)
        _signs(rows, middle, *found, own.view(np.uint8), own)

    map_blocks(one_block, N, max(1, _BLOCK // D), with_caller=True)
    return packed, sums, zeros


@jit(
    "void(float32[:, ::1], float32[::1], uint8[:, ::1], float32[:, ::1], boolean[::1], uint8[::1], "
    "uint64[::1])"
)
def _signs(x, center, packed, sums, zeros, high, bytes_of_eight):
    """high and bytes_of_eight: the same memory, for a row, of zeros."""
    wide_vectors()
    N, D = x.shape
    for n in range(N):
        row = x[n]
        for d in range(D):
            high[d] = row[d] - center[d] >= 0
        for j in range(len(bytes_of_eight)):  # the product moves bit 0 of byte i to bit 56 + i
            packed[n, j] = np.uint8(bytes_of_eight[j] * np.uint64(0x0102040810204080) >> np.uint64(56))
        square, total, mean, filled = _sums_of_signs(row, center)
        sums[n, 0], sums[n, 1], sums[n, 2], sums[n, 3], sums[n, 4] = square, total, total, D, mean
        zeros[n] = filled == 0


@jit(
    "Tuple((float64, float64, float64, int64))(float32[::1], float32[::1])",
    inner=True,
    fastmath={"reassoc", "contract"},
)
def _sums_of_signs(row, center):
    """Return |o|^2, the sum of |o|, <center, o>, for o = row - center, and how many values are not zero."""
    wide_vectors()
    square, total, mean, filled = 0.0, 0.0, 0.0, 0
    for d in range(len(row)):
        offset = row[d] - center[d]
        wide = np.float64(offset)
        square += wide * wide
        total += abs(wide)
        mean += np.float64(center[d]) * wide
        filled += row[d] != 0
    return square, total, mean, filled


@jit(
    "void(float32[:, ::1], float32[::1], float32[::1], float32[::1], float32, uint8[:, ::1], "
    "float32[:, ::1], float32[::1], float32[::1])"
)
def _encode(x, center, coarse, fine, top, codes, sums, offset, size):
    """offset and size: memory for a row."""
    N, D = x.shape
    for n in range(N):
        largest = np.float32(0)
        for d in range(D):
            offset[d] = x[n, d] - center[d]
            size[d] = abs(offset[d])
            largest = max(largest, size[d])
        stretch = (top + np.float32(1)) / largest if largest > 0 else np.float32(0)
        if top > 0:
            stretch = _best(size, stretch, coarse, fine, top)
        _finish(offset, size, center, stretch, top, codes[n], sums[n])


@jit("float32(float32[::1], float32, float32[::1], float32[::1], float32)", inner=True)
def _best(size, edge, coarse, fine, top):
    best, chosen = -1.0, edge
    for scale in coarse:
        stretch = min(edge * scale, _LARGEST)
        cosine = _cosine(size, stretch, top)
        if cosine > best:
            best, chosen = cosine, stretch
    middle = chosen
    for scale in fine:
        stretch = min(middle * scale, _LARGEST)
        cosine = _cosine(size, stretch, top)
        if cosine > best:
            best, chosen = cosine, stretch
    return chosen


@jit("float64(float32[::1], float32, float32)", inner=True, fastmath={"reassoc"})
def _cosine(size, stretch, top):
    """Return the squared cosine times the squared norm of the row."""
    wide_vectors()
    dot, square = 0.0, 0.0
    for d in range(len(size)):
        cell = size[d] * stretch
        cell = np.floor(cell if cell < top else top)
        odd = np.float64(cell) * 2 + 1
        dot += odd * np.float64(size[d])
        square += odd * odd
    return dot * dot / square


@jit(
    "void(float32[::1], float32[::1], float32[::1], float32, float32, uint8[::1], float32[::1])",
    inner=True,
    fastmath={"reassoc"},
)
def _finish(offset, size, center, stretch, top, codes, sums):
    square, total, dot, points, mean = 0.0, 0.0, 0.0, 0.0, 0.0
    for d in range(len(size)):
        cell = size[d] * stretch
        cell = np.floor(cell if cell < top else top)
        high = offset[d] >= 0
        codes[d] = np.uint8(np.int32(top + 1 + cell if high else top - cell))
        wide, odd = np.float64(size[d]), np.float64(cell) * 2 + 1
        square += wide * wide
        total += wide
        dot += odd * wide
        points += odd * odd
        mean += np.float64(center[d]) * np.float64(offset[d])
    sums[0], sums[1], sums[2], sums[3], sums[4] = square, total, dot, points, mean
