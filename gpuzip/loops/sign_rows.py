"""RaBitQ rows by their planes of bits: as floats for products, and their exact scores one by one."""

import numpy as np
import torch

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._blocks import scratch
from gpuzip.loops._columns import part
from gpuzip.loops._copy import byte_at
from gpuzip.loops._jit import jit, wide_vectors

_PAIRS = 1 << 9  # of queries and rows per block
#: Entry b has bit i of b in byte i.
_SPREAD = (
    np.array([[b >> i & 1 for i in range(8)] for b in range(256)], np.uint8).view(np.uint64)[:, 0].copy()
)


def places_of(planes):
    """Return (P, 3) int64 for planes (N, B_p) uint8: address, bytes between rows, bits per dimension."""
    W = planes[0].shape[1]
    return np.array([(plane.data_ptr(), plane.stride(0), plane.shape[1] // W) for plane in planes], np.int64)


def row_writer(planes, D, scale, extra):
    """Return write(start, stop, out) for rows (n, D + E): grid points times scale, then extra columns.

    planes: the first has W bytes per row, the bytes of all others follow in the second. scale (N,), extra
    (N, E) float32.
    """
    W, places = planes[0].shape[1], places_of(planes)
    factors, columns = scale.numpy(), extra.T.contiguous().numpy()

    def write(start, stop, out):
        own = scratch.take("grid", W, np.uint64)
        _write(places, W, D, factors, columns, start, _SPREAD, own.view(np.uint8), own, out.numpy())

    return write


@jit(
    "void(int64[:, ::1], intp, intp, float32[::1], float32[:, ::1], intp, uint64[::1], uint8[::1], "
    "uint64[::1], float32[:, ::1])"
)
def _write(places, W, D, scale, extra, first, spread, grid, words, out):
    """grid and words: the same memory, for a row."""
    wide_vectors()
    bits = 0
    for p in range(len(places)):
        bits += places[p, 2]
    top = np.float32((1 << bits) - 1)
    for n in range(len(out)):
        row = first + n
        for j in range(W):
            word = np.uint64(0)
            for p in range(len(places)):
                at = places[p, 0] + row * places[p, 1] + j
                for _ in range(places[p, 2]):
                    word = (word << np.uint64(1)) + spread[byte_at(at)]
                    at += W
            words[j] = word
        factor, into = scale[row], out[n]
        for d in range(D):
            into[d] = (np.float32(2) * np.float32(np.int32(grid[d])) - top) * factor
        for e in range(len(extra)):
            into[D + e] = extra[e, row]


def sign_sums(planes, tables, scale, extra, coef, shift, mask, ids):
    """Score rows ids (Q, R) as `adc_topk` with the tables of `sign_tables`; -inf for invalid ids.

    tables: (Q, 2W, 16), those of one plane. scale (N,), extra (N, E), coef (Q, E), shift (Q, 1), mask (N,) or
    None.
    """
    (Q, R), N = ids.shape, len(scale)
    scores = torch.empty((Q, R), dtype=torch.float32, device="cpu")
    wanted, found, places = ids.contiguous().numpy(), scores.numpy(), places_of(planes)
    of_rows = scale.numpy(), extra.T.contiguous().numpy(), part(mask, 0, N, np.bool_)
    lut, factors, added = (t.contiguous().numpy() for t in (tables, coef, shift))

    def some_queries(start, stop):
        some = slice(start, stop)
        _score(places, lut[some], *of_rows, factors[some], added[some], wanted[some], found[some])

    map_blocks(some_queries, Q, max(1, _PAIRS // max(1, R)), with_caller=True)
    return scores


@jit(
    "void(int64[:, ::1], float32[:, :, ::1], float32[::1], float32[:, ::1], boolean[::1], float32[:, ::1], "
    "float32[:, ::1], int64[:, ::1], float32[:, ::1])"
)
def _score(places, tables, scale, extra, mask, coef, shift, ids, scores):
    N, R, W = len(scale), ids.shape[1], tables.shape[1] // 2
    for q in range(len(ids)):
        for i in range(0, R, 2):
            other = min(i + 1, R - 1)
            rows = min(max(ids[q, i], 0), N - 1), min(max(ids[q, other], 0), N - 1)
            sums = sums_of_two(places, tables[q], W, rows[0], rows[1])
            for j in range(2):
                row, at, score = rows[j], (other if j else i), sums[j] * scale[rows[j]]
                for e in range(len(extra)):
                    score += extra[e, row] * coef[q, e]
                score += shift[q, 0]
                known = ids[q, at] == row and (len(mask) == 0 or mask[row])
                scores[q, at] = score if known else -np.float32(np.inf)


@jit("UniTuple(float32, 2)(int64[:, ::1], float32[:, ::1], intp, intp, intp)", inner=True)
def sums_of_two(places, table, W, row, other):
    """Sum two rows together, because each sum waits for its last addition.

    The tables of a plane are those of the last one times a power of two, which rounds nothing.
    """
    weight, total, rest = np.float32(0.5), np.float32(0), np.float32(0)
    for p in range(len(places)):
        for _ in range(places[p, 2]):
            weight *= np.float32(2)
    for p in range(len(places)):
        base, stride = places[p, 0], places[p, 1]
        for i in range(places[p, 2]):
            for j in range(W):
                byte, second = (
                    byte_at(base + row * stride + i * W + j),
                    byte_at(base + other * stride + i * W + j),
                )
                total += (table[2 * j, byte & 15] + table[2 * j + 1, byte >> 4]) * weight
                rest += (table[2 * j, second & 15] + table[2 * j + 1, second >> 4]) * weight
            weight *= np.float32(0.5)
    return total, rest
