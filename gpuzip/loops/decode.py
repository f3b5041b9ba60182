"""Packed codes to vectors: each code copies its centroid, as words of the widest type that it is whole in.

A decoded row is written once and is bound by memory. Large outputs are therefore decoded into a few rows
that stay in the cache, and go from there past it, in whole lines: a plain store first reads the line that it
overwrites. They are allocated by numpy, which asks for large pages where torch does not.
"""

import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from torch import Tensor

from gpuzip.bytewise import by_byte
from gpuzip.loops._jit import UNROLLED, jit, unrolled
from gpuzip.parallel import map_blocks

_LINE = 64  # bytes
_BLOCK = 1 << 19  # bytes of output in a block
_FEW = 64  # rows that are not worth a codebook of whole bytes
_LARGE = 1 << 22  # bytes of output that no core's cache would keep
_WORDS = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}


def decode(packed: Tensor, centroids: Tensor, ids: Tensor | None = None, share: int = 1) -> Tensor:
    if share > 1 and (len(packed) if ids is None else len(ids)) >= _FEW:
        centroids, share = by_byte(centroids, share)
    C, K, S = centroids.shape
    M = C * share
    packed, ids, unknown = _rows(packed, ids)
    out = _empty(len(packed) if ids is None else len(ids), M * S, centroids.dtype)
    if out.numel() == 0:
        return out
    size = int(np.gcd(S * out.element_size(), 8))
    table, words = (t.view(_WORDS[size]).numpy() for t in (centroids.contiguous(), out))
    count = table.shape[2]
    width = unrolled(count if count <= UNROLLED else 0, table.dtype.type(0))
    starts = np.arange(M) // share * (K * table[0, 0].nbytes)
    codes, chosen = packed.numpy(), np.empty(0, np.int64) if ids is None else ids.numpy()
    at_once = _LINE // size  # rows that are whole lines together

    def one_block(start: int, stop: int) -> None:
        _decode(
            *(codes, chosen, start, K.bit_length() - 1, table, starts, width),
            *(words[start:stop], at_once, out.nbytes >= _LARGE),
        )

    if len(packed):
        map_blocks(one_block, len(out), -(-_BLOCK // out[0].nbytes // at_once) * at_once, lone_here=True)
    if unknown is not None:
        out[unknown] = 0
    return out


def _rows(packed: Tensor, ids: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Packed rows and ids, contiguous, and which ids name no row: these become 0 for now."""
    if ids is None:
        return packed.contiguous(), None, None
    unknown = (ids < 0) | (ids >= len(packed))
    known = ids.masked_fill(unknown, 0)
    if packed.is_contiguous() or len(packed) == 0:
        return packed.contiguous(), known.contiguous(), unknown
    return packed[known], None, unknown


def _empty(N: int, D: int, dtype: torch.dtype) -> Tensor:
    """(N, D) that starts on a line."""
    size = dtype.itemsize
    memory = np.empty(N * D + _LINE // size, f"i{size}")
    start = -memory.ctypes.data % _LINE // size
    return torch.from_numpy(memory[start : start + N * D]).view(dtype).view(N, D)


@jit()
def _decode(packed, ids, first, nbits, centroids, starts, width, out, at_once, large):
    if not large:
        _copy(packed, ids, first, nbits, centroids, starts, width, out)
        return
    few = np.empty((at_once, out.shape[1]), out.dtype)
    for start in range(0, len(out), at_once):
        rows = min(at_once, len(out) - start)
        _copy(packed, ids, first + start, nbits, centroids, starts, width, few[:rows])
        lines = rows * out.shape[1] * out.itemsize // _LINE
        source, target = np.intp(few.ctypes.data), np.intp(out[start:].ctypes.data)
        for i in range(lines):
            _write_line(source + i * _LINE, target + i * _LINE)
        written = lines * _LINE // out.itemsize
        rest_from, rest_to = few.ravel(), out[start:].ravel()
        for i in range(written, rows * out.shape[1]):
            rest_to[i] = rest_from[i]
    _wait_for_lines()


@jit()
def _copy(packed, ids, first, nbits, centroids, starts, width, out):
    M, (_, K, W) = len(starts), centroids.shape
    B = packed.shape[1]
    size = W * centroids.itemsize
    table, target = np.intp(centroids.ctypes.data), np.intp(out.ctypes.data)
    for n in range(len(out)):
        row = ids[first + n] if len(ids) else first + n
        if nbits == 8:
            for m in range(M):
                code = np.int64(packed[row, m])
                _copy_words(table + starts[m] + code * size, target, size, width)
                target += size
        elif nbits == 4:
            for m in range(M):
                code = (np.int64(packed[row, m // 2]) >> (m % 2 * 4)) & 15
                _copy_words(table + starts[m] + code * size, target, size, width)
                target += size
        else:
            for m in range(M):
                byte = m * nbits // 8
                # A code that ends before them takes no bit of the next bytes: in the last ones any will do.
                bits = (
                    np.int64(packed[row, byte])
                    | np.int64(packed[row, min(byte + 1, B - 1)]) << 8
                    | np.int64(packed[row, min(byte + 2, B - 1)]) << 16
                )
                code = (bits >> (m * nbits % 8)) & (K - 1)
                _copy_words(table + starts[m] + code * size, target, size, width)
                target += size


@intrinsic
def _copy_words(typing, source, target, size, width):
    """Copy `size` bytes between two addresses, all words of `width` at once where it has any.

    A loop over words would be compiled as if every store could change the next load.
    """

    def generate(context, builder, signature, arguments):
        source, target, size, _ = arguments
        if len(width) == 0:
            byte = ir.IntType(8).as_pointer()
            cgutils.raw_memcpy(
                builder, builder.inttoptr(target, byte), builder.inttoptr(source, byte), size, 1
            )
        else:
            bits = width.dtype.bitwidth
            words = ir.VectorType(ir.IntType(bits), len(width)).as_pointer()
            value = builder.load(builder.inttoptr(source, words), align=bits // 8)
            builder.store(value, builder.inttoptr(target, words), align=bits // 8)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, width), generate


@intrinsic
def _write_line(typing, source, target):
    """Copy a line between two addresses, past the cache; the target is a multiple of _LINE."""

    def generate(context, builder, signature, addresses):
        line = ir.VectorType(ir.IntType(64), _LINE // 8).as_pointer()
        start, end = (builder.inttoptr(address, line) for address in addresses)
        store = builder.store(builder.load(start, align=8), end, align=_LINE)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), generate


@intrinsic
def _wait_for_lines(typing):
    """What went past the cache is seen by every thread from here on."""

    def generate(context, builder, signature, arguments):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate
