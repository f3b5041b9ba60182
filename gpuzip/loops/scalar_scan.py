"""Inner products of bytes: row by row for few queries, else by tiles or a matrix product."""

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.byte_products import byte_products, fastest_product
from gpuzip._core.parallel import map_blocks
from gpuzip.loops import _query_lanes
from gpuzip.loops._arrays import flat
from gpuzip.loops._columns import part
from gpuzip.loops._jit import jit, wide_vectors
from gpuzip.loops._products import WIDTH, dots
from gpuzip.loops.bits import unpack_bits
from gpuzip.loops.lane_products import products_in_lanes

_FEW = 4  # up to so many queries, row by row is faster
_SUMS = 1 << 18  # sums per block of products: 1 MB
_TILE = 64  # rows that stay in L1 for all queries
_BYTES = 1 << 21  # bytes of codes per block, for few queries


def scalar_scan(
    codes: Tensor,
    queries: Tensor,
    query_scale: Tensor,
    query_offset: Tensor | None,
    scale: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    nbits: int,
    group: int,
) -> Tensor:
    """Run the operator."""
    N, (Q, D) = len(codes), queries.shape
    best = np.full((Q, -(-N // group)), -np.inf, np.float32)
    unit = query_scale.contiguous().numpy()
    offset = part(query_offset, 0, Q, np.float32)
    whole, shift = queries.contiguous(), group.bit_length() - 1
    product = _OWN.get(fastest_of_many(), byte_products) if Q > _FEW else byte_products

    def one_block(start, stop):
        some = codes[start:stop]
        values = some.contiguous() if nbits == 8 else unpack_bits(some, D, nbits)
        of_rows = (part(column, start, stop, np.float32) for column in (scale, bias))
        extras = (
            *of_rows,
            part(mask, start, stop, np.bool_),
            shift,
            best.reshape(-1)[start >> shift :],
            best.shape[1],
        )
        if Q <= _FEW:
            _scan(values.numpy(), whole.numpy(), unit, offset, *extras)
        else:
            own = np.empty((2, Q), np.float32)
            _score(product(values, whole).numpy(), unit, offset, *extras, *own)

    if best.size:
        rows = _BYTES // max(1, D) if Q <= _FEW else _SUMS // Q
        map_blocks(one_block, N, max(1024, rows // 1024 * 1024), lone_here=True)
    return torch.from_numpy(best)


def fastest_of_many() -> str:
    """Return which product with many queries is the fastest: "lanes", "tiles" or one of `byte_products`."""
    return fastest_product(_OWN)


def products_in_tiles(values: Tensor, queries: Tensor) -> Tensor:
    """(n, D) uint8, (Q, D) int8 -> (n, Q) int32. Exact for D up to 65536."""
    (n, D), Q = values.shape, len(queries)
    E = -(-D // WIDTH) * WIDTH
    flat = values.contiguous().view(-1)
    if E != D:  # rows are read past their end, where the query is 0
        flat = torch.nn.functional.pad(flat, (0, E - D))
    asked = torch.nn.functional.pad(queries.short(), (0, E - D)).contiguous()
    sums = torch.empty((n, Q), dtype=torch.int32, device="cpu")
    _products(flat.numpy(), n, D, asked.numpy(), sums.numpy())
    return sums


_OWN = {"tiles": products_in_tiles}
if _query_lanes.is_here():
    _OWN["lanes"] = products_in_lanes

_dots_2x4, _dots_1x4, _dots_4x1, _dots_1x1 = dots(2, 4), dots(1, 4), dots(4, 1), dots(1, 1)


@jit("void(uint8[::1], intp, intp, int16[:, ::1], int32[:, ::1])")
def _products(codes, n, D, queries, out):
    """codes: flat bytes of n rows, followed by E - D readable bytes; queries (Q, E) int16."""
    Q, E = queries.shape
    asked, sums = flat(queries), flat(out)
    for first in range(0, n, _TILE):
        last = min(first + _TILE, n)
        for q in range(0, Q // 4 * 4, 4):
            r = first
            while r + 2 <= last:
                _dots_2x4(sums, r * Q + q, Q, codes, r * D, D, asked, q * E, E, np.uint8(0))
                r += 2
            if r < last:
                _dots_1x4(sums, r * Q + q, Q, codes, r * D, D, asked, q * E, E, np.uint8(0))
        for q in range(Q // 4 * 4, Q):
            r = first
            while r + 4 <= last:
                _dots_4x1(sums, r * Q + q, Q, codes, r * D, D, asked, q * E, E, np.uint8(0))
                r += 4
            while r < last:
                _dots_1x1(sums, r * Q + q, Q, codes, r * D, D, asked, q * E, E, np.uint8(0))
                r += 1


@jit(
    "void(uint8[:, ::1], int8[:, ::1], float32[::1], float32[::1], float32[::1], float32[::1], "
    "boolean[::1], intp, float32[::1], intp)"
)
def _scan(codes, queries, unit, offset, scale, bias, mask, shift, best, stride):
    """Take maxima into best [Q, groups], rows `stride` apart."""
    wide_vectors()
    n, D = codes.shape
    for q in range(len(queries)):
        query = queries[q]
        for r in range(n):
            row, dot = codes[r], np.int32(0)
            for d in range(D):
                dot += np.int32(row[d]) * np.int32(query[d])
            score = unit[q] * np.float32(dot)
            if len(offset):
                score += offset[q]
            if len(scale):
                score *= scale[r]
            if len(bias):
                score += bias[r]
            g = q * stride + (r >> shift)
            if score > best[g] and (len(mask) == 0 or mask[r]):
                best[g] = score


@jit(
    "void(int32[:, ::1], float32[::1], float32[::1], float32[::1], float32[::1], boolean[::1], intp, "
    "float32[::1], intp, float32[::1], float32[::1])",
    "void(float32[:, ::1], float32[::1], float32[::1], float32[::1], float32[::1], boolean[::1], intp, "
    "float32[::1], intp, float32[::1], float32[::1])",
)
def _score(dots, unit, offset, scale, bias, mask, shift, best, stride, scores, top):
    """Reduce dots (n, Q) with queries as vector lanes. scores and top: memory for a row."""
    wide_vectors()
    n, Q = dots.shape
    group = 1 << shift
    for start in range(0, n, group):
        for q in range(Q):
            top[q] = -np.inf
        for r in range(start, min(start + group, n)):
            if len(mask) and not mask[r]:
                continue
            row = dots[r]
            for q in range(Q):
                scores[q] = unit[q] * np.float32(row[q])
            if len(offset):
                for q in range(Q):
                    scores[q] += offset[q]
            if len(scale):
                for q in range(Q):
                    scores[q] *= scale[r]
            if len(bias):
                for q in range(Q):
                    scores[q] += bias[r]
            for q in range(Q):
                top[q] = scores[q] if scores[q] > top[q] else top[q]
        for q in range(Q):
            best[q * stride + (start >> shift)] = top[q]
