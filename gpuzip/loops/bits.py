"""Packs codes of 1 to 16 bits into bytes, least significant bit first, and unpacks them.

`bits_above` packs comparisons, most significant bit first, and adds up squares in the same pass: NaN, inf and
rows that are too large show in their sum.
"""

import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from torch import Tensor

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._jit import jit
from gpuzip.loops._values import floats, marker, readable

_BLOCK = 1 << 18  # codes per block


def pack_bits(values: Tensor, nbits: int) -> Tensor:
    N, M = values.shape
    packed = torch.empty((N, (M * nbits + 7) // 8), dtype=torch.uint8, device="cpu")

    def one_block(start: int, stop: int) -> None:
        if nbits == 1 and values.dtype == torch.uint8:
            own = np.zeros(packed.shape[1], np.uint64)
            _pack_bits(
                values[start:stop].contiguous().numpy(), packed[start:stop].numpy(), own.view(np.uint8), own
            )
        else:
            pack_rows(values[start:stop].int().contiguous().numpy(), nbits, packed[start:stop])

    map_blocks(one_block, N, max(1, _BLOCK // max(M, 1)), with_caller=True)
    return packed


def unpack_bits(packed: Tensor, M: int, nbits: int) -> Tensor:
    values = torch.empty((len(packed), M), dtype=torch.uint8 if nbits <= 8 else torch.int32, device="cpu")

    def one_block(start: int, stop: int) -> None:
        _unpack(packed[start:stop].contiguous().numpy(), nbits, values[start:stop].numpy())

    map_blocks(one_block, len(packed), max(1, _BLOCK // max(M, 1)), with_caller=True)
    return values


def bits_above(x: Tensor, limits: Tensor, out: Tensor) -> float:
    N, D = x.shape
    limits = limits.expand(D).contiguous()
    whole = D // 8
    rest = limits.numpy()[whole * 8 :]

    def one_block(start: int, stop: int) -> float:
        rows, row = readable(x[start:stop])
        into = out[start:stop]
        squares = _pack_above(
            *(rows.data_ptr(), row, stop - start, limits.data_ptr(), whole),
            *(into.data_ptr(), out.shape[1], marker(rows)),
        )
        if len(rest) == 0:
            return squares
        tail = rows[:, whole * 8 :].float().numpy()
        return squares + _pack_rest(tail, rest, into[:, whole].numpy())

    return sum(map_blocks(one_block, N, max(1, _BLOCK // max(D, 1)), with_caller=True))


def pack_rows(values: np.ndarray, nbits: int, packed: Tensor) -> None:
    """Pack values (n, M) int32 into packed (n, B)."""
    _pack(values, nbits, packed.numpy())


@jit("void(int32[:, ::1], intp, uint8[:, ::1])")
def _pack(values, nbits, packed):
    N, M = values.shape
    if nbits == 8:
        for n in range(N):
            for m in range(M):
                packed[n, m] = values[n, m]
    elif nbits == 4:
        for n in range(N):
            for j in range(M // 2):
                packed[n, j] = (values[n, 2 * j] & 15) | (values[n, 2 * j + 1] << 4)
            if M % 2:
                packed[n, M // 2] = values[n, M - 1] & 15
    else:
        mask = (1 << nbits) - 1
        for n in range(N):
            word, bits, byte = 0, 0, 0
            for m in range(M):
                word |= (values[n, m] & mask) << bits
                bits += nbits
                while bits >= 8:
                    packed[n, byte] = word & 255
                    word >>= 8
                    bits -= 8
                    byte += 1
            if bits:
                packed[n, byte] = word


@jit("void(uint8[:, ::1], uint8[:, ::1], uint8[::1], uint64[::1])")
def _pack_bits(values, packed, row, bytes_of_eight):
    """row and bytes_of_eight: the same memory, for a row, of zeros."""
    N, M = values.shape
    for n in range(N):
        for m in range(M):
            row[m] = values[n, m] & 1
        for j in range(len(bytes_of_eight)):  # the product moves bit 0 of byte i to bit 56 + i
            packed[n, j] = np.uint8(bytes_of_eight[j] * np.uint64(0x0102040810204080) >> np.uint64(56))


@jit("void(uint8[:, ::1], intp, uint8[:, ::1])", "void(uint8[:, ::1], intp, int32[:, ::1])")
def _unpack(packed, nbits, values):
    N, M = values.shape
    B = packed.shape[1]
    mask = (1 << nbits) - 1
    if nbits == 4:
        for n in range(N):
            for j in range(M // 2):
                values[n, 2 * j] = packed[n, j] & 15
                values[n, 2 * j + 1] = packed[n, j] >> 4
            if M % 2:
                values[n, M - 1] = packed[n, M // 2] & 15
    else:
        for n in range(N):
            for m in range(M):
                byte = m * nbits // 8
                # A code that ends earlier uses no bit of the next bytes, so at the end of a row any byte will
                # do.
                word = (
                    np.int64(packed[n, byte])
                    | np.int64(packed[n, min(byte + 1, B - 1)]) << 8
                    | np.int64(packed[n, min(byte + 2, B - 1)]) << 16
                )
                values[n, m] = (word >> (m * nbits % 8)) & mask


@jit()
def _pack_above(x, row, N, limits, count, out, B, kind):
    """Pack the first 8 * count values of N rows of `row` bytes; return the sum of their squares."""
    total = np.float32(0)
    last, most = 8 * count, count // 4 * 32
    for n in range(N):
        total += _bits_of_row(x + n * row, limits, 0, most, out + n * B, kind, (0,) * 32)
        total += _bits_of_row(x + n * row, limits, most, last, out + n * B, kind, (0,) * 8)
    return total


@jit()
def _pack_rest(x, limits, out):
    """Pack up to seven values per row into its last byte; return the sum of their squares."""
    N, D = x.shape
    total = np.float32(0)
    for n in range(N):
        byte = 0
        for d in range(D):
            total += x[n, d] * x[n, d]
            byte |= (x[n, d] > limits[d]) << (7 - d)
        out[n] = byte
    return total


@intrinsic
def _bits_of_row(typing, x, limits, first, last, out, kind, lanes):
    """Write comparisons of the values first to last, as many at a time as the tuple `lanes` has entries, a
    multiple of eight; return the sum of squares of the values.

    limits: address of floats. The first value of eight has the highest bit.
    """
    signature = types.float32(types.intp, types.intp, types.intp, types.intp, types.intp, kind, lanes)
    width, word = len(lanes), ir.IntType(64)
    vector = ir.VectorType(ir.FloatType(), width)
    octets = ir.VectorType(ir.IntType(8), width)
    turn = ir.Constant(ir.VectorType(ir.IntType(32), width), [lane ^ 7 for lane in range(width)])

    def generate(context, builder, signature, arguments):
        x, limits, first, last, out, _, _ = arguments
        sums = cgutils.alloca_once_value(builder, vector([0.0] * width))
        with cgutils.for_range_slice(builder, first, last, word(width), word) as (at, _):
            values = floats(builder, kind, x, at, width)
            pointer = builder.inttoptr(builder.add(limits, builder.mul(at, word(4))), vector.as_pointer())
            above = builder.fcmp_ordered(">", values, builder.load(pointer, align=4))
            above = builder.sext(above, octets)
            above = builder.shuffle_vector(above, above, turn)
            bits = builder.bitcast(builder.icmp_signed("<", above, octets([0] * width)), ir.IntType(width))
            place = builder.add(out, builder.udiv(at, word(8)))
            builder.store(bits, builder.inttoptr(place, bits.type.as_pointer()), align=1)
            square = builder.fmul(values, values, flags=("contract",))
            builder.store(builder.fadd(builder.load(sums), square, flags=("contract",)), sums)
        return _sum_of_lanes(builder, builder.load(sums))

    return signature, generate


def _sum_of_lanes(builder, values):
    width = values.type.count
    while width > 1:
        width //= 2
        half = ir.VectorType(ir.IntType(32), width)
        low, high = (half(list(range(start, start + width))) for start in (0, width))
        values = builder.fadd(
            builder.shuffle_vector(values, values, low), builder.shuffle_vector(values, values, high)
        )
    return builder.extract_element(values, ir.IntType(32)(0))
