"""Look-ups of bytes in registers: AVX-512 VBMI reads 64 entries of 256-byte tables in a few instructions.

Source: FAISS's FastScan (Andre, Kermarrec, Le Scouarnec, "Cache locality is not enough", VLDB 2015), whose
register tables have 16 entries.
"""

from functools import cache

from llvmlite import binding, ir
from numba import config, types
from numba.extending import intrinsic

from gpuzip.loops._vector import load, store

ROWS = 64  # rows per call

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_BYTES, _HALVES, _WORDS = ir.VectorType(_I8, 64), ir.VectorType(_I16, 32), ir.VectorType(_I64, 8)


@cache
def is_here():
    """Return whether this CPU has the instructions and numba may use them."""
    free = config.CPU_NAME is None and config.CPU_FEATURES is None and config.ENABLE_AVX
    features = binding.get_host_cpu_features() if free else {}
    return all(features.get(name, False) for name in ("avx512f", "avx512bw", "avx512vbmi"))


@intrinsic
def sums_of_bytes(context, out, i, tables, codes, c, B, chunks):
    """Write out[i + r] = sum over columns b < 8 * chunks of tables[b*256 + codes[c + r*B + b]] for 64 rows r.

    Flat arrays: out uint16, tables and codes uint8. Rows are read to the end of the last chunk. Bytes past
    column B must be readable, and their tables zero. Sums are modulo 2**16.
    """
    word = types.uintp
    signature = types.void(out, word, tables, codes, word, word, word)

    def generate(context, builder, signature, arguments):
        def data(at):
            return context.make_array(signature.args[at])(context, builder, arguments[at]).data

        out, i, tables, codes, c, B, chunks = data(0), arguments[1], data(2), data(3), *arguments[4:]
        strides = _strides(builder, B)
        eight_rows = builder.mul(B, _I64(8))
        entry, loop, done = builder.block, builder.append_basic_block(), builder.append_basic_block()
        builder.branch(loop)
        builder.position_at_end(loop)
        chunk, even, odd = builder.phi(_I64), builder.phi(_HALVES), builder.phi(_HALVES)
        start = builder.add(c, builder.mul(chunk, _I64(8)))
        columns = _columns(builder, codes, start, strides, eight_rows)
        next_even, next_odd = even, odd
        for b, column in enumerate(columns):
            at = builder.add(builder.mul(chunk, _I64(8 * 256)), _I64(b * 256))
            found = builder.bitcast(_entries(builder, tables, at, column), _HALVES)
            next_even = builder.add(next_even, builder.and_(found, _HALVES([255] * 32)))
            next_odd = builder.add(next_odd, builder.lshr(found, _HALVES([8] * 32)))
        next_chunk = builder.add(chunk, _I64(1))
        zeros = _HALVES([0] * 32)
        for phi, first, value in (
            (chunk, _I64(0), next_chunk),
            (even, zeros, next_even),
            (odd, zeros, next_odd),
        ):
            phi.add_incoming(first, entry)
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_unsigned("<", next_chunk, chunks), loop, done)
        builder.position_at_end(done)
        for half in range(2):  # rows are even, odd, even, odd, ...
            order = [n // 2 + 32 * (n % 2) for n in range(32 * half, 32 * half + 32)]
            rows = _shuffled(builder, next_even, next_odd, order)
            store(builder, rows, out, builder.add(i, _I64(32 * half)), align=1)
        return context.get_dummy_value()

    return signature, generate


def _strides(builder, B):
    """Return the offsets 0, B, 2B, ..., 7B."""
    strides = ir.Constant(_WORDS, [0] * 8)
    for n in range(1, 8):
        strides = builder.insert_element(strides, builder.mul(B, _I64(n)), _I32(n))
    return strides


def _columns(builder, codes, start, strides, eight_rows):
    """Return eight vectors; vector b holds byte b of the eight bytes at `start` in each of 64 rows."""
    kind = ir.FunctionType(_WORDS, [_WORDS, codes.type, _WORDS, ir.VectorType(ir.IntType(1), 8), _I32])
    gather = builder.module.declare_intrinsic("llvm.x86.avx512.mask.gather.qpq.512", (), kind)
    every = ir.Constant(ir.VectorType(ir.IntType(1), 8), [1] * 8)
    by_column = [8 * (n % 8) + n // 8 for n in range(64)]
    parts = []
    for _ in range(8):
        nothing = ir.Constant(_WORDS, [0] * 8)
        eight = builder.call(gather, [nothing, builder.gep(codes, [start]), strides, every, _I32(1)])
        eight = builder.bitcast(eight, _BYTES)
        parts.append(builder.bitcast(_shuffled(builder, eight, eight, by_column), _WORDS))
        start = builder.add(start, eight_rows)
    return [builder.bitcast(column, _BYTES) for column in transposed(builder, parts)]


def transposed(builder, rows):
    """Transpose eight vectors of eight words in three rounds, which exchange blocks of 1, 2 and 4."""
    for size in (1, 2, 4):
        new = list(rows)
        for n in range(8):
            if not n & size:
                low, high = rows[n], rows[n + size]
                new[n] = _shuffled(
                    builder, low, high, [m if not m & size else m - size + 8 for m in range(8)]
                )
                new[n + size] = _shuffled(
                    builder, low, high, [m + size if not m & size else m + 8 for m in range(8)]
                )
        rows = new
    return rows


def _entries(builder, tables, at, codes):
    """Return tables[at + code] for 64 codes, by two look-ups of 128 entries; the highest bit selects one."""
    kind = ir.FunctionType(_BYTES, [_BYTES] * 3)
    lookup = builder.module.declare_intrinsic("llvm.x86.avx512.vpermi2var.qi.512", (), kind)
    quarters = [load(builder, tables, builder.add(at, _I64(64 * n)), _BYTES, align=1) for n in range(4)]
    low = builder.call(lookup, [quarters[0], codes, quarters[1]])
    high = builder.call(lookup, [quarters[2], codes, quarters[3]])
    return builder.select(builder.icmp_signed("<", codes, ir.Constant(_BYTES, [0] * 64)), high, low)


def _shuffled(builder, low, high, order):
    return builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(_I32, len(order)), order))
