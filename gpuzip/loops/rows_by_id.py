"""Decodes rows by id in one call of compiled code, which takes addresses: whole numbers pass fastest.

For one row, views of tensors as arrays take longer than nn.Embedding's whole look-up. The ids are checked
where they are read.
"""

from array import array
from functools import cache

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from gpuzip._core.memory import uninitialized
from gpuzip._core.parallel import map_blocks
from gpuzip.loops._copy import byte_at, copy_words, prefetch, word_at
from gpuzip.loops._jit import has_features, jit

_BLOCK = 1 << 22  # output bytes per block: fewer do not pay for another thread
_FEW = 1 << 13  # values up to which `decode` takes longer to prepare
_AHEAD, _LONGEST = 8, 512  # rows to ask memory for in advance, and most bytes of each
_MOST = 16  # entries of a table that registers hold
_ADDRESS = types.intp

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_WORDS, _FLOATS = ir.VectorType(_I32, 8), ir.VectorType(ir.FloatType(), 8)


@cache
def _has_registers():
    return has_features("avx2")


def rows_by_id(codes, codebook, ids, D, padding, padding_row):
    """Run the function of gpuzip.ops: rows (*ids.shape, D), or None where `decode` is needed."""
    (N, B), (C, K, S), shape = codes.shape, codebook.shape, ids.shape
    R, size = shape[0] if len(shape) == 1 else ids.numel(), codebook.itemsize
    row, count = D * size, R * D
    if D % (C * S) or (count > _FEW and not _is_short(C * S, K, size)):
        return None
    padded = 0 if padding_row is None else padding_row.data_ptr()
    of_table = codebook.data_ptr(), C, K, S * size, row, padding, padded, 0
    facts = array("q", (codes.data_ptr(), N, B, *of_table))
    about = facts.buffer_info()[0]
    if count * size > _BLOCK:
        out = uninitialized(R, D, codebook.dtype).view(*shape, D)
        wrong = _by_blocks(about, ids.data_ptr(), R, out.data_ptr(), row)
    else:
        out = codebook.new_empty(R, D) if len(shape) == 1 else codebook.new_empty(*shape, D)
        wrong = read(about, ids.data_ptr(), R, out.data_ptr())
    if wrong:
        raise IndexError("index out of range in self")  # the message of nn.Embedding
    return out


def _is_short(values, K, size):
    """Whether one table of single values serves all codes, and is read fast for any number of rows."""
    return values == 1 and size <= 4 and (K == 256 or (K <= _MOST and _has_registers()))


def _by_blocks(about, first, R, target, row):
    def one_block(start, stop):
        return read(about, first + 8 * start, stop - start, target + row * start)

    return max(map_blocks(one_block, R, max(1, _BLOCK // row), with_caller=True))


@intrinsic
def _from_registers(typing, source, table, target, first, last, nbits, size):
    """Write table[code] for the codes first to last, in eights; return how many are done: none without AVX2.

    source: address of a row of codes of 1 to 4 bits. table: address of 16 int32, repeated where there are
    fewer entries. target: address of values of `size` 2 or 4 bytes.
    """
    signature = types.intp(*[_ADDRESS] * 7)

    def generate(context, builder, signature, arguments):
        if not _has_registers():
            return _I64(0)
        return _look_ups(builder, *arguments)

    return signature, generate


def _look_ups(builder, source, table, target, first, last, nbits, size):
    permute = builder.module.declare_intrinsic(
        "llvm.x86.avx2.permps", (), ir.FunctionType(_FLOATS, [_FLOATS, _WORDS])
    )

    def at(address, offset, kind):
        return builder.inttoptr(builder.add(address, offset), kind.as_pointer())

    low, high = (builder.load(at(table, _I64(32 * half), _FLOATS), align=4) for half in range(2))
    nbits32 = builder.trunc(nbits, _I32)
    shifts = builder.mul(_same(builder, nbits32), _WORDS(list(range(8))))
    entry, head, loop = builder.block, builder.append_basic_block(), builder.append_basic_block()
    narrow, wide, step, done = (builder.append_basic_block() for _ in range(4))
    builder.branch(head)
    builder.position_at_end(head)
    d = builder.phi(_I64)
    d.add_incoming(first, entry)
    builder.cbranch(builder.icmp_signed("<", d, last), loop, done)
    builder.position_at_end(loop)
    word = builder.load(at(source, builder.lshr(builder.mul(d, nbits), _I64(3)), _I32), align=1)
    code = builder.lshr(_same(builder, word), shifts)
    above = builder.icmp_signed("<", builder.shl(code, _WORDS([28] * 8)), _WORDS([0] * 8))
    found = builder.select(above, builder.call(permute, [high, code]), builder.call(permute, [low, code]))
    found = builder.bitcast(found, _WORDS)
    place = builder.mul(d, size)
    builder.cbranch(builder.icmp_signed("==", size, _I64(2)), narrow, wide)
    builder.position_at_end(narrow)
    halves = ir.VectorType(ir.IntType(16), 8)
    builder.store(builder.trunc(found, halves), at(target, place, halves), align=2)
    builder.branch(step)
    builder.position_at_end(wide)
    builder.store(found, at(target, place, _WORDS), align=4)
    builder.branch(step)
    builder.position_at_end(step)
    d.add_incoming(builder.add(d, _I64(8)), step)
    builder.branch(head)
    builder.position_at_end(done)
    return d


def _same(builder, word):
    """Return eight times this word."""
    vector = builder.insert_element(ir.Constant(_WORDS, ir.Undefined), word, _I32(0))
    return builder.shuffle_vector(vector, vector, _WORDS([0] * 8))


@intrinsic
def _sixteen_words(typing):
    """Return the address of 16 int32 of 0 on the stack."""

    def generate(context, builder, signature, arguments):
        kind = ir.VectorType(_I32, 16)
        words = cgutils.alloca_once(builder, kind)
        builder.store(kind([0] * 16), words)
        return builder.ptrtoint(words, _I64)

    return types.intp(), generate


@jit(inline="always")
def _copy(source, target, size):
    if size == 4:
        copy_words(source, target, size, (np.int32(0),))
    elif size == 2:
        copy_words(source, target, size, (np.int16(0),))
    elif size == 32:
        copy_words(source, target, size, (0, 0, 0, 0))
    else:
        copy_words(source, target, size, ())


@jit(inline="always")
def _by_code(source, B, table, target, m, M, share, K, nbits, size):
    """Copy the entries of codes m to M, whose codebooks change after every `share` codes."""
    codebook, left = table + m // share * K * size, share - m % share
    while m < M:
        if nbits == 8:
            code = byte_at(source + m)
        else:  # a code that ends earlier uses no bit of the next bytes: any byte will do
            byte = m * nbits >> 3
            bits = byte_at(source + byte) | byte_at(source + min(byte + 1, B - 1)) << 8
            bits |= byte_at(source + min(byte + 2, B - 1)) << 16
            code = (bits >> (m * nbits & 7)) & (K - 1)
        _copy(codebook + code * size, target + m * size, size)
        m += 1
        left -= 1
        if left == 0:
            codebook, left = codebook + K * size, share


@intrinsic
def _eight_entries(typing, source, table, target, kind):
    """Write table[code] for eight codes of a byte each, of the type of `kind`, with one store."""

    def generate(context, builder, signature, arguments):
        source, table, target, _ = arguments
        value, byte = ir.IntType(kind.bitwidth), ir.IntType(8).as_pointer()
        eight = ir.VectorType(value, 8)
        codes, table = builder.inttoptr(source, byte), builder.inttoptr(table, value.as_pointer())
        values = ir.Constant(eight, ir.Undefined)
        for i in range(8):
            code = builder.zext(builder.load(builder.gep(codes, [_I64(i)]), align=1), _I64)
            values = builder.insert_element(values, builder.load(builder.gep(table, [code])), _I32(i))
        builder.store(values, builder.inttoptr(target, eight.as_pointer()), align=kind.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, kind), generate


@jit(inline="always")
def _by_byte(source, table, target, M, size):
    """Copy M // 8 * 8 entries of 2 or 4 bytes from one table of 256; return how many."""
    last = M // 8 * 8
    if size == 4:
        for m in range(0, last, 8):
            _eight_entries(source + m, table, target + 4 * m, np.int32(0))
    else:
        for m in range(0, last, 8):
            _eight_entries(source + m, table, target + 2 * m, np.int16(0))
    return last


@jit("boolean(intp, intp, intp, intp)")
def read(facts, ids, R, out):
    """Write R rows; return whether an id is no row.

    facts: address of the codes, their rows and bytes per row; address of the codebook, its C and K, bytes per
    entry and per row that is written; the id of padding, and the address of its row; whether negative ids
    count from the end.
    """
    codes, N, B = word_at(facts), word_at(facts + 8), word_at(facts + 16)
    table, C, K = word_at(facts + 24), word_at(facts + 32), word_at(facts + 40)
    size, width, padding = word_at(facts + 48), word_at(facts + 56), word_at(facts + 64)
    padding_row, wraps = word_at(facts + 72), word_at(facts + 80)
    M, nbits = width // size, 0
    while 1 << nbits < K:
        nbits += 1
    share = M // C
    eights = 0  # codes that are looked up in registers: those whose word of 4 bytes ends within the row
    registers = _sixteen_words()
    if C == 1 and size <= 4 and size != 1 and K <= _MOST and B >= 4:
        eights = min(M // 8, (B - 4) // nbits + 1) * 8
        for i in range(16):
            _copy(table + i % K * size, registers + 4 * i, size)
    for r in range(R):
        if r + _AHEAD < R:
            later = codes + word_at(ids + 8 * (r + _AHEAD)) * B  # which may be no row
            for line in range(0, min(B, _LONGEST), 64):
                prefetch(later + line)
        row = word_at(ids + 8 * r)
        row += N if wraps and row < 0 else 0
        if row < 0 or row >= N:
            return True
        source, target = codes + row * B, out + r * width
        if row == padding:
            copy_words(padding_row, target, width, ())
            continue
        if C == 1 and K == 256 and (size == 2 or size == 4):
            done = _by_byte(source, table, target, M, size)
        else:
            done = _from_registers(source, registers, target, 0, eights, nbits, size)
        if done < M:
            _by_code(source, B, table, target, done, M, share, K, nbits, size)
    return False
