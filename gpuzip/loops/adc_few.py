"""A search of few queries by look-up tables in one compiled call: tables, scan, and order of the answer."""

import numpy as np
import torch

from gpuzip.loops import adc_topk as whole
from gpuzip.loops._arrays import flat
from gpuzip.loops._blocks import rows_of_a_block, scratch
from gpuzip.loops._bounds import room_for_bounds
from gpuzip.loops._jit import at_address, jit
from gpuzip.loops._least import cut, read
from gpuzip.loops._registers import ROWS
from gpuzip.loops.lookup_tables import fill

_MOST_K = 256  # keys that are put in order by insertion
_NO_FLOATS, _NO_MASK = np.empty(0, np.float32), np.empty(0, np.bool_)
_fill, _round, _scan = at_address(fill), at_address(whole.round_tables), at_address(whole.scan_of(16))


def can_search(N, B, Q, k):
    """Return whether one call is faster: for few results, and for rows that are not shared among threads."""
    return k <= _MOST_K and rows_of_a_block(N, B * Q, k) >= N


def adc_few(codes, columns, queries, is_l2, k, scale=None):
    """Find the k best rows per query by the tables of `lookup_tables`: scores (Q, k), rows (Q, k).

    codes (N, B) uint8, columns (S, M, K) float32 of 16 entries per nibble or 256 per byte, queries (Q, M*S)
    float32, scale (N,) float32 or None.
    """
    (N, B), (_, M, K), Q = codes.shape, columns.shape, queries.shape[0]
    places = np.array(((codes.data_ptr(), codes.stride(0), B),), np.int64)
    scores, rows = np.empty((Q, k), np.float32), np.empty((Q, k), np.int64)
    factors = _NO_FLOATS if scale is None else scale.numpy()
    memory = scratch.kept((Q, M, K, B, k), _memory)
    _search(places, N, queries.numpy(), columns.numpy(), is_l2, factors, _NO_MASK, k, scores, rows, *memory)
    return torch.from_numpy(scores), torch.from_numpy(rows)


def _memory(Q, M, K, B, k):
    size, blocks = whole.columns_of(Q, K, B)
    return (
        scratch.take("tables", Q * M * K, np.float32),
        np.zeros(Q * whole.entries_of(K) * (B + B % 2), np.uint8),
        np.empty((Q, 3)),
        np.zeros(Q, np.float32),
        np.empty(Q * room_for_bounds(k), np.uint64),
        scratch.take("columns", (blocks + 1) * size, np.uint8),
        scratch.take("sums", 2 * ROWS, np.uint16),
        scratch.take("floats", 3 * ROWS, np.float32),
        np.empty(3 * Q, np.intp),
        np.empty(2 * Q, np.float32),
        *(loop.address for loop in (fill, whole.round_tables, whole.scan_of(K))),
    )


@jit(
    "void(int64[:, ::1], intp, float32[:, ::1], float32[:, :, ::1], boolean, float32[::1], boolean[::1], "
    "intp, float32[:, ::1], int64[:, ::1], float32[::1], uint8[::1], float64[:, ::1], float32[::1], "
    "uint64[::1], uint8[::1], uint16[::1], float32[::1], intp[::1], float32[::1], intp, intp, intp)"
)
def _search(
    places,
    N,
    queries,
    columns,
    is_l2,
    scale,
    mask,
    k,
    scores,
    rows,
    tables,
    luts,
    lines,
    shift,
    keys,
    tile,
    sums,
    floats,
    counts,
    worst,
    fill_at,
    round_at,
    scan_at,
):
    S, M, K = columns.shape
    B, nothing = places[0, 2], scale[:0]
    _fill(fill_at, flat(queries), flat(columns), S, M, K, is_l2, tables)
    _round(round_at, tables, M, K, min(127, 65535 // (2 * B)), luts, lines)
    _scan(
        scan_at,
        places,
        N,
        0,
        N,
        tables,
        luts,
        lines,
        scale,
        mask,
        nothing,
        nothing,
        shift,
        k,
        keys,
        tile,
        sums,
        floats,
        counts,
        worst,
    )
    room = len(keys) // len(queries)
    for q in range(len(queries)):
        first = q * room
        cut(keys, first, room, k)
        for i in range(1, k):  # by insertion
            key, at = keys[first + i], i
            while at > 0 and keys[first + at - 1] > key:
                keys[first + at] = keys[first + at - 1]
                at -= 1
            keys[first + at] = key
    read(keys, k, flat(scores), flat(rows))
