"""The k best rows of 16-bit floats in one pass, which makes float32 of them in registers."""

import platform
from functools import cache

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import config
from numba.extending import intrinsic

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._blocks import AHEAD, LINE, rows_of_a_block
from gpuzip.loops._columns import part
from gpuzip.loops._jit import has_features, jit
from gpuzip.loops._least import best_of, clear_unused, cut, key_of, room_for, score_of
from gpuzip.loops._vectors256 import address_of, prefetch

_MOST_QUERIES = 8  # with more, a matrix product of blocks is faster
_TILE = 8  # rows, which stay in L1 while queries take turns


@cache
def converts():
    """Return whether this CPU has an instruction for it: LLVM calls a function that numba lacks otherwise."""
    if config.CPU_FEATURES is not None:
        return "+f16c" in config.CPU_FEATURES.split(",")
    return platform.machine().lower() in ("aarch64", "arm64") or has_features("f16c", "avx2")


def can_search(Q):
    """Return whether one pass is faster than matrix products for Q queries."""
    return Q <= _MOST_QUERIES and converts()


def half_topk(store, queries, k, scale=None, bias=None, mask=None):
    """Find the k best rows per query by q.x * scale[row] + bias[row] in float32, sums in any order.

    store (N, D) float16 or bfloat16, queries (Q, D) float32 -> scores (Q, k), rows (Q, k). A row whose score
    is NaN, or whose mask is False, is left out.
    """
    (N, D), Q = store.shape, len(queries)
    bits = store.contiguous().view(torch.int16).numpy().view(np.uint16).reshape(-1)
    asked, is_brain = queries.contiguous().numpy().reshape(-1), store.dtype == torch.bfloat16
    of_rows = part(scale, 0, N, np.float32), part(bias, 0, N, np.float32), part(mask, 0, N, np.bool_)

    def some_rows(start, stop):
        keys = np.empty((Q, room_for(k)), np.uint64)
        counts, worst = np.zeros(Q, np.intp), np.full(Q, -np.inf, np.float32)
        _scan(bits, is_brain, D, start, stop, asked, *of_rows, k, keys.reshape(-1), counts, worst)
        return keys

    parts = map_blocks(some_rows, N, rows_of_a_block(N, 2 * D * Q, k), with_caller=True)
    return tuple(map(torch.from_numpy, best_of(parts, k)))


@intrinsic
def of_half(context, bits):
    """Return the float32 of the bits of a float16."""

    def generate(context, builder, signature, arguments):
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), generate


@intrinsic
def of_brain(context, bits):
    """Return the float32 of the bits of a bfloat16."""

    def generate(context, builder, signature, arguments):
        word = ir.IntType(32)
        return builder.bitcast(builder.shl(builder.zext(arguments[0], word), word(16)), ir.FloatType())

    return types.float32(types.uint16), generate


@jit(
    "float32(uint16[::1], boolean, float32[::1])",
    inner=True,
    fastmath={"reassoc", "contract"},
)
def _product(row, is_brain, query):
    total = np.float32(0)
    if is_brain:
        for d in range(len(row)):
            total += of_brain(row[d]) * query[d]
    else:
        for d in range(len(row)):
            total += of_half(row[d]) * query[d]
    return total


@jit(
    "void(uint16[::1], boolean, intp, intp, intp, float32[::1], float32[::1], float32[::1], boolean[::1], "
    "intp, uint64[::1], intp[::1], float32[::1])"
)
def _scan(bits, is_brain, D, first, last, asked, scale, bias, mask, k, keys, counts, worst):
    """Scan rows first to last. keys: (Q * room,) in all."""
    Q, room = len(counts), len(keys) // len(counts)
    for start in range(first, last, _TILE):
        rows = min(_TILE, last - start)
        for at in range(0, 2 * rows * D, LINE):
            prefetch(address_of(bits) + 2 * start * D + at + AHEAD)
        for q in range(Q):
            for row in range(start, start + rows):
                if len(mask) and not mask[row]:
                    continue
                score = _product(bits[row * D : (row + 1) * D], is_brain, asked[q * D : (q + 1) * D])
                if len(scale):
                    score *= scale[row]
                if len(bias):
                    score += bias[row]
                if score > worst[q]:
                    keys[q * room + counts[q]] = key_of(score, row)
                    counts[q] += 1
                    if counts[q] == room:
                        worst[q], counts[q] = score_of(cut(keys, q * room, room, k)), k
    clear_unused(keys, counts, Q)
