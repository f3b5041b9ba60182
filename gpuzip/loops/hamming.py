"""Hamming distances by 64-bit words. A tile of rows is transposed, so that rows are vector lanes."""

import numpy as np
import torch

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._arrays import local
from gpuzip.loops._columns import part
from gpuzip.loops._jit import jit, wide_vectors
from gpuzip.loops._words import popcount

_WORK = 1 << 18  # rows times queries per block: about 1 ms
_GATHERED = 1 << 14  # candidates per block
_TILE = 512  # rows whose columns stay in L1
_NOWHERE = np.int32(2**31 - 1)  # distance of masked rows and invalid ids


def hamming_scan(queries, codes, mask, group):
    """Run the operator: (Q, B) uint8, (N, B) uint8, (N,) bool or None -> (Q, ceil(N / group)) int32."""
    N, Q = len(codes), len(queries)
    least = np.full((Q, -(-N // group)), _NOWHERE, np.int32)
    words, shift, flat = _words(queries), group.bit_length() - 1, least.reshape(-1)

    def some_rows(start, stop):
        allowed = part(mask, start, stop, np.bool_)
        # + 8: powers of two would share cache sets
        own = np.empty((words.shape[1] + words.shape[1] % 2, _TILE + 8), np.uint64)
        _scan(words, _words(codes[start:stop]), allowed, shift, own, flat[start >> shift :], least.shape[1])

    if least.size:
        rows = max(8192, _WORK // Q // 1024 * 1024)  # a multiple of every group
        map_blocks(some_rows, N, rows, lone_here=True)
    return torch.from_numpy(least)


def hamming_gather(queries, codes, mask, ids):
    """Run the operator: the distances of rows ids (Q, R) int64; 2**31 - 1 for invalid ids."""
    N, words = len(codes), _words(queries)
    allowed = part(mask, 0, N, np.bool_)
    codes, ids = codes.contiguous().numpy(), ids.contiguous().numpy()
    distances = np.full(ids.shape, _NOWHERE, np.int32)

    def some_queries(start, stop):
        for q in range(start, stop):
            rows = torch.from_numpy(codes[np.clip(ids[q], 0, N - 1)])
            _gather(words[q], _words(rows), allowed, N, ids[q], distances[q])

    if distances.size and N:
        map_blocks(some_queries, len(ids), max(1, _GATHERED // ids.shape[1]), lone_here=True)
    return torch.from_numpy(distances)


def _words(rows):
    """Convert (n, B) uint8 to (n, ceil(B / 8)) uint64, padded with zero bytes."""
    if rows.shape[1] % 8:  # pad would copy even if there is nothing to add
        rows = torch.nn.functional.pad(rows, (0, -rows.shape[1] % 8))
    rows = rows.contiguous().numpy()
    return rows.view(np.uint64) if len(rows) else np.empty((0, rows.shape[1] // 8), np.uint64)


_distances = local(_TILE, np.uint64)


@jit("void(uint64[:, ::1], uint64[:, ::1], boolean[::1], intp, uint64[:, ::1], int32[::1], intp)")
def _scan(queries, words, mask, shift, columns, least, stride):
    """Take minima into least [Q, groups], rows `stride` apart. columns: memory for those of a tile."""
    wide_vectors()
    n, W = words.shape
    distances = _distances()
    for r in range(_TILE):
        columns[len(columns) - 1, r] = 0
    for first in range(0, n, _TILE):
        rows = min(_TILE, n - first)
        tile = words[first : first + rows]
        for w in range(W):
            column = columns[w]
            for r in range(rows):
                column[r] = tile[r, w]
        for q in range(len(queries)):
            for r in range(rows):
                distances[r] = 0
            for w in range(0, W, 2):
                low, high = columns[w], columns[w + 1]
                a = queries[q, w]
                b = queries[q, w + 1] if w + 1 < W else np.uint64(0)
                for r in range(rows):
                    distances[r] += popcount(low[r] ^ a) + popcount(high[r] ^ b)
            if len(mask):
                for r in range(rows):
                    if not mask[first + r]:
                        distances[r] = np.uint64(_NOWHERE)
            _least_of_groups(distances[:rows], first, shift, least[q * stride :])


@jit("void(uint64[::1], intp, intp, int32[::1])", inner=True)
def _least_of_groups(distances, first, shift, least):
    """Take distances of rows from `first`, a multiple of the tile, into the minima least[row >> shift]."""
    wide_vectors()
    group = 1 << shift
    for start in range(0, len(distances), group):
        lowest = np.uint64(_NOWHERE)
        some = distances[start : start + group]
        for r in range(len(some)):  # numba does not vectorize its min or an iteration
            lowest = some[r] if some[r] < lowest else lowest
        g = (first + start) >> shift
        least[g] = min(least[g], np.int32(lowest))


@jit("void(uint64[::1], uint64[:, ::1], boolean[::1], intp, int64[::1], int32[::1])")
def _gather(query, words, mask, N, ids, distances):
    for r in range(len(ids)):
        if 0 <= ids[r] < N and (len(mask) == 0 or mask[ids[r]]):
            distances[r] = _distance(query, words[r])


@jit("int32(uint64[::1], uint64[::1])", inner=True)
def _distance(a, b):
    total = np.uint64(0)
    for w in range(len(a)):
        total += popcount(a[w] ^ b[w])
    return np.int32(total)
