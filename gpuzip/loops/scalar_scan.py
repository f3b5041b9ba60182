"""Inner products of bytes: few queries row by row, many by a matrix product whose sums are scored at once."""

import numpy as np
import torch
from torch import Tensor

from gpuzip.byte_products import byte_products
from gpuzip.loops._columns import part
from gpuzip.loops._jit import jit, wide_vectors
from gpuzip.loops.bits import unpack_bits
from gpuzip.parallel import map_blocks

_FEW = 4  # queries that row by row are faster
_SUMS = 1 << 18  # of a block of the matrix product: a megabyte
_BYTES = 1 << 21  # of codes in a block of few queries


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
    """As the operator."""
    N, (Q, D) = len(codes), queries.shape
    best = np.full((Q, -(-N // group)), -np.inf, np.float32)
    unit = query_scale.contiguous().numpy()
    offset = part(query_offset, 0, Q, np.float32)
    whole, shift = queries.contiguous(), group.bit_length() - 1

    def one_block(start, stop):
        some = codes[start:stop]
        values = some.contiguous() if nbits == 8 else unpack_bits(some, D, nbits)
        of_rows = (part(column, start, stop, np.float32) for column in (scale, bias))
        extras = (
            *of_rows,
            part(mask, start, stop, np.bool_),
            shift,
            best[:, start >> shift : -(-stop // group)],
        )
        if Q <= _FEW:
            _scan(values.numpy(), whole.numpy(), unit, offset, *extras)
        else:
            _score(byte_products(values, whole).numpy(), unit, offset, *extras)

    if best.size:
        rows = _BYTES // max(1, D) if Q <= _FEW else _SUMS // Q
        map_blocks(one_block, N, max(1024, rows // 1024 * 1024), lone_here=True)
    return torch.from_numpy(best)


@jit()
def _scan(codes, queries, unit, offset, scale, bias, mask, shift, best):
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
            if score > best[q, r >> shift] and (len(mask) == 0 or mask[r]):
                best[q, r >> shift] = score


@jit()
def _score(dots, unit, offset, scale, bias, mask, shift, best):
    """dots (n, Q): queries are lanes."""
    wide_vectors()
    n, Q = dots.shape
    scores, top = np.empty(Q, np.float32), np.empty(Q, np.float32)
    group = 1 << shift
    for start in range(0, n, group):
        top[:] = -np.inf
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
            best[q, start >> shift] = top[q]
