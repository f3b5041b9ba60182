"""Scores of candidates: a sum over the dims of each pair of query and row, in vector lanes.

The order of a sum depends only on D, so a score has the same bits in every call.
"""

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._blocks import LINE
from gpuzip.loops._jit import jit, wide_vectors
from gpuzip.loops._vectors256 import address_of, prefetch
from gpuzip.loops.decode import decode

_TILE = 1 << 17  # floats of candidates gathered per block: 512 KB, which stay in L2
_AHEAD = 3  # candidates from the one that is scored to the one that is fetched
METRICS = {"ip": 0, "cosine": 1, "l2": 2}
_NO_STEPS = np.empty(0, np.float32)


def rescore(
    queries: Tensor, store: Tensor, ids: Tensor, metric: str, start: Tensor | None, step: Tensor | None
) -> Tensor:
    """Run the operator. Rows of float32 and of bytes are read in place."""
    (N, D), of_bytes = store.shape, step is not None and start is not None
    steps = (start.contiguous().numpy(), step.contiguous().numpy()) if of_bytes else ()
    if N == 0:
        return _none(ids)
    if store.dtype != torch.float32 and not of_bytes:
        return _by_blocks(queries, ids, N, metric, lambda some: _gathered(store[some].float()))
    store = store if store.stride(1) == 1 else store.contiguous()
    stride = store.stride(0)
    flat = store.as_strided(((N - 1) * stride + D,), (1,)).numpy()
    return _by_blocks(queries, ids, N, metric, lambda some: (flat, some * stride), *steps)


def rescore_codes(queries: Tensor, packed: Tensor, centroids: Tensor, ids: Tensor, metric: str) -> Tensor:
    """Run the operator."""
    packed, centroids = packed.contiguous(), centroids.contiguous()
    return _by_blocks(
        queries, ids, len(packed), metric, lambda some: _gathered(decode(packed, centroids, some).float())
    )


def _gathered(rows):
    return rows.reshape(-1).numpy(), torch.arange(len(rows), device="cpu") * rows.shape[1]


def _none(ids):
    return torch.full(ids.shape, float("-inf"), dtype=torch.float32, device="cpu")


def _by_blocks(queries, ids, N, metric, rows_of, start=_NO_STEPS, step=_NO_STEPS):
    """Score candidates in the order of ids, by block; invalid ids score -inf.

    rows_of: ids -> (flat floats, start of each row in them). One layout means one compiled loop.
    """
    keys = _none(ids)
    D, R = queries.shape[1], ids.shape[1]
    wanted, flat = ids.reshape(-1), keys.view(-1).numpy()
    queries = queries.contiguous().numpy()

    def one_block(first, stop):
        some = wanted[first:stop]
        rows, at = rows_of(some.clamp(0, N - 1))
        places = at.numpy(), some.numpy(), N, first, R
        own = np.empty(D, np.float32)
        exactly(queries, rows, *places, start, step, METRICS[metric], own, flat[first:stop])

    if N and D:
        map_blocks(one_block, len(wanted), max(1, _TILE // D), lone_here=True)
    return keys


@jit(
    "void(float32[:, ::1], float32[::1], int64[::1], int64[::1], intp, intp, intp, float32[::1], "
    "float32[::1], intp, float32[::1], float32[::1])",
    "void(float32[:, ::1], uint8[::1], int64[::1], int64[::1], intp, intp, intp, float32[::1], "
    "float32[::1], intp, float32[::1], float32[::1])",
)
def exactly(queries, rows, at, ids, N, first, R, start, step, metric, decoded, keys):
    """decoded: memory for a row."""
    wide_vectors()
    D, size = queries.shape[1], rows.itemsize
    for i in range(len(ids)):
        if i + _AHEAD < len(ids):
            for byte in range(0, size * D, LINE):
                prefetch(address_of(rows) + size * at[i + _AHEAD] + byte)
        if not 0 <= ids[i] < N:
            continue
        row, query = rows[at[i] : at[i] + D], queries[(first + i) // R]
        if len(step):
            for d in range(D):
                decoded[d] = start[d] + step[d] * np.float32(row[d])
        else:
            for d in range(D):
                decoded[d] = row[d]
        keys[i] = _key(query, decoded, metric)


@jit("float32(float32[::1], float32[::1], intp)", inner=True, fastmath={"reassoc", "contract"})
def _key(query, row, metric):
    wide_vectors()
    total, own, length = np.float32(0), np.float32(0), np.float32(0)
    if metric == 2:
        for d in range(len(row)):
            total -= (query[d] - row[d]) * (query[d] - row[d])
        return total
    for d in range(len(row)):
        total += query[d] * row[d]
    if metric == 0:
        return total
    for d in range(len(row)):
        own += query[d] * query[d]
        length += row[d] * row[d]
    norms = np.sqrt(own) * np.sqrt(length)
    return total / norms if norms > 0 else np.float32(0)
