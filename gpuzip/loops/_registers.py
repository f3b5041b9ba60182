"""Sums of look-up tables that stay in registers, for 32 rows at a time.

Codes are turned into columns, so that a register holds one byte of 32 rows, and a shuffle looks up 16 entries
at once. Source: FAISS's FastScan (Andre, Kermarrec, Le Scouarnec, "Cache locality is not enough", VLDB 2015),
whose codes are stored as columns. Here they stay as they are, and the columns of a tile live in a cache.

Arguments are addresses. Nothing is checked.
"""

from llvmlite import ir
from numba import types

from gpuzip.loops._vectors256 import (
    BYTES,
    HALVES,
    I32,
    I64,
    LANE,
    LANES,
    PLACE,
    ROWS,
    WORDS,
    compiled,
    fetch_line,
    in_order,
    load,
    looked_up,
    shuffled,
    spread,
    store,
)

STEP = 16  # bytes per row that are turned into columns at a time


@compiled(types.void, PLACE, PLACE, PLACE)
def turn(builder, columns, row, stride):
    """Write byte j of row r at columns + 32*j + r, for 32 rows `stride` bytes apart and j < 16."""
    for j, column in enumerate(_columns(builder, row, stride)):
        store(builder, column, builder.add(columns, I64(ROWS * j)))


def _columns(builder, row, stride):
    """Return 16 registers; register j holds byte j of 32 rows."""
    rows = [load(builder, place, LANE) for place in _rows(builder, row, stride)]
    whole = [shuffled(builder, rows[r], rows[r + 16], range(ROWS)) for r in range(16)]
    return _transposed(builder, whole)


def _rows(builder, row, stride):
    """Return 32 addresses as x86 reaches them best: four bases with the same seven offsets."""
    offsets = [builder.mul(stride, I64(n)) for n in range(8)]
    bases = [builder.add(row, builder.mul(stride, I64(8 * n))) for n in range(4)]
    return [builder.add(base, offset) for base in bases for offset in offsets]


def _transposed(builder, rows):
    """Transpose 16 x 16 bytes per lane, by four rounds that interleave registers n and n + 8."""
    lanes = [16 * lane for lane in range(LANES)]
    low = [at for lane in lanes for n in range(8) for at in (lane + n, ROWS + lane + n)]
    high = [at + 8 for at in low]
    for _ in range(4):
        rows = [shuffled(builder, rows[n], rows[n + 8], part) for n in range(8) for part in (low, high)]
    return rows


@compiled(types.void, *[PLACE] * 6)
def sums_of_nibbles(builder, sums, columns, apart, tables, B, ahead):
    """Write, as uint16 at sums, the sum over j < B of the entries of both nibbles of byte j, for 64 rows.

    columns: as `turn` writes them for 32 rows; those of the next 32 are `apart` bytes further. tables: 16
    entries for the low nibble of byte j at tables + 32*j, then 16 for the high one, all below 128. Sums are
    modulo 2**16. B is even and at least 2. Meanwhile as many bytes are fetched that are `ahead` of the first
    column, in the order of their addresses, which a CPU reads fastest.
    """
    low, first = ir.Constant(BYTES, [15] * ROWS), columns

    def step(columns, tables):
        """Two bytes: four entries, whose tables serve both halves of the rows."""
        place = builder.add(builder.add(first, ahead), builder.shl(builder.sub(columns, first), I64(1)))
        for line in (0, 2 * ROWS):
            fetch_line(builder, builder.add(place, I64(line)))
        of_nibbles = [
            spread(builder, load(builder, builder.add(tables, I64(16 * n)), LANE)) for n in range(4)
        ]
        found = []
        for half in range(2):
            column, sums = builder.add(columns, builder.mul(apart, I64(half))), []
            for n in range(2):
                codes = load(builder, builder.add(column, I64(ROWS * n)), BYTES)
                shifted = builder.lshr(builder.bitcast(codes, HALVES), ir.Constant(HALVES, [4] * 16))
                nibbles = codes, builder.bitcast(shifted, BYTES)
                both = (
                    looked_up(builder, of_nibbles[2 * n + i], builder.and_(nibble, low))
                    for i, nibble in enumerate(nibbles)
                )
                sums.append(builder.add(*both))
            found.append(sums)
        return found

    accumulated(builder, sums, (columns, 2 * ROWS), (tables, 4 * 16), B, step, halves=2)


@compiled(types.void, *[PLACE] * 6)
def sums_of_bytes(builder, sums, columns, apart, tables, B, ahead):
    """Write, as uint16 at sums, the sum over j < B of the entry of byte j, for 64 rows.

    columns: as `turn` writes them for 32 rows; those of the next 32 are `apart` bytes further. tables: 256
    entries for byte j at tables + 256*j, each below 128. Sums are modulo 2**16. B is even and at least 2.
    Meanwhile as many bytes are fetched that are `ahead` of those of the columns.
    """
    for half in range(2):

        def step(columns, tables):
            """Two bytes: two entries."""
            fetch_line(builder, builder.add(columns, ahead))
            places = (
                (builder.add(columns, I64(ROWS * n)), builder.add(tables, I64(256 * n))) for n in range(2)
            )
            return [[builder.add(*(_entry_of_byte(builder, *place) for place in places))]]

        column = builder.add(columns, builder.mul(apart, I64(half)))
        place = builder.add(sums, I64(2 * ROWS * half))
        accumulated(builder, place, (column, 2 * ROWS), (tables, 2 * 256), B, step)


def _entry_of_byte(builder, column, table):
    """Look up 16 parts of a table of 256 by the low nibble, and keep the one that the high nibble names.

    A shuffle gives 0 where the highest bit of its index is set. So bit 4 chooses of two parts by two indices
    and an "or", and bits 5 to 7 by selections, which other ports of a CPU execute.
    """
    codes, highest = load(builder, column, BYTES), ir.Constant(BYTES, [128] * ROWS)
    low, zero = builder.and_(codes, ir.Constant(BYTES, [15] * ROWS)), ir.Constant(BYTES, [0] * ROWS)
    doubled = [codes]
    for _ in range(3):
        doubled.append(builder.add(doubled[-1], doubled[-1]))
    off = builder.and_(doubled[3], highest)
    indices = [builder.or_(low, bit) for bit in (off, builder.xor(off, highest))]

    def chosen(bits, first):
        """Choose by so many bits from bit 4 on, of parts from the first one on, as soon as two are there."""
        if bits == 1:
            found = []
            for n, index in enumerate(indices):
                part = load(builder, builder.add(table, I64(16 * (first + n))), LANE)
                found.append(looked_up(builder, spread(builder, part), index))
            return builder.or_(*found)
        parts = [chosen(bits - 1, first + at) for at in (0, 1 << (bits - 1))]
        return builder.select(builder.icmp_signed("<", doubled[4 - bits], zero), parts[1], parts[0])

    return chosen(4, 0)


def accumulated(builder, sums, columns, tables, B, step, halves=1, kind=HALVES):
    """Loop over two bytes at a time and store the sums of what `step` returns: for some rows some bytes.

    columns and tables: an address, and what a step adds to it. halves: how many times as many rows as the
    bytes of a register, which `kind` holds as uint16.
    """
    entry, loop, done = builder.block, builder.append_basic_block(), builder.append_basic_block()
    builder.branch(loop)
    builder.position_at_end(loop)
    j, column, table = (builder.phi(I64) for _ in range(3))
    before = [(builder.phi(kind), builder.phi(kind)) for _ in range(halves)]
    eight, zeros = (ir.Constant(kind, [n] * kind.count) for n in (8, 0))
    after = builder.add(j, I64(2))
    changed = [
        (j, I64(0), after),
        (column, columns[0], builder.add(column, I64(columns[1]))),
        (table, tables[0], builder.add(table, I64(tables[1]))),
    ]
    totals = []
    for (every, odd), found in zip(before, step(column, table), strict=True):
        new_every, new_odd = every, odd
        for entries in found:
            entries = builder.bitcast(entries, kind)
            new_every = builder.add(new_every, entries)  # of even rows, plus 256 times that of odd rows
            new_odd = builder.add(new_odd, builder.lshr(entries, eight))
        changed += [(every, zeros, new_every), (odd, zeros, new_odd)]
        totals.append((new_every, new_odd))
    for phi, first, value in changed:
        phi.add_incoming(first, entry)
        phi.add_incoming(value, loop)
    builder.cbranch(builder.icmp_unsigned("<", after, B), loop, done)
    builder.position_at_end(done)
    size = 2 * kind.count
    for n, (every, odd) in enumerate(totals):
        for half, rows in enumerate(in_order(builder, every, odd)):
            store(builder, rows, builder.add(sums, I64(size * (2 * n + half))))


@compiled(types.void, PLACE, PLACE, PLACE)
def turn_words(builder, columns, row, stride):
    """Write the 8 bytes w of row r at columns + 256*w + 8*r, for 32 rows `stride` bytes apart and w < 4."""
    rows = [load(builder, place, WORDS) for place in _rows(builder, row, stride)]
    for first in range(0, ROWS, 4):
        four = rows[first : first + 4]
        low, high = (
            [shuffled(builder, *pair, order) for pair in (four[:2], four[2:])]
            for order in ((0, 4, 2, 6), (1, 5, 3, 7))
        )
        turned = [
            shuffled(builder, *pair, order) for order in ((0, 1, 4, 5), (2, 3, 6, 7)) for pair in (low, high)
        ]
        for w, column in enumerate(turned):
            store(builder, column, builder.add(columns, I64(8 * ROWS * w + 8 * first)))


@compiled(types.boolean, *[PLACE] * 5)
def differing(builder, distances, columns, query, W, bound):
    """Write in how many bits 32 rows differ from a query, as int64; return whether any is below `bound`.

    columns: as `turn_words` writes them, W words; query: W words, W >= 1.
    """
    groups, zeros = range(ROWS // 4), ir.Constant(WORDS, [0] * 4)
    low, nothing = (ir.Constant(BYTES, [n] * ROWS) for n in (15, 0))
    counts = ir.Constant(BYTES, [n.bit_count() for n in range(16)] * LANES)
    kind = ir.FunctionType(WORDS, [BYTES, BYTES])
    total = builder.module.declare_intrinsic("llvm.x86.avx2.psad.bw", (), kind)  # of eight bytes
    entry, loop, done = builder.block, builder.append_basic_block(), builder.append_basic_block()
    builder.branch(loop)
    builder.position_at_end(loop)
    w, sums = builder.phi(I64), [builder.phi(WORDS) for _ in groups]
    asked = load(builder, builder.add(query, builder.mul(w, I64(8))), I64)
    asked = builder.insert_element(ir.Constant(WORDS, ir.Undefined), asked, I32(0))
    asked, new = shuffled(builder, asked, asked, [0] * 4), []
    for group, before in zip(groups, sums, strict=True):
        place = builder.add(columns, builder.add(builder.mul(w, I64(8 * ROWS)), I64(32 * group)))
        bits = builder.xor(load(builder, place, WORDS), asked)
        high = builder.bitcast(builder.lshr(bits, ir.Constant(WORDS, [4] * 4)), BYTES)
        halves = (builder.and_(part, low) for part in (builder.bitcast(bits, BYTES), high))
        count = builder.add(*(looked_up(builder, counts, half) for half in halves))
        new.append(builder.add(before, builder.call(total, [count, nothing])))
    after = builder.add(w, I64(1))
    w.add_incoming(I64(0), entry)
    w.add_incoming(after, loop)
    for phi, value in zip(sums, new, strict=True):
        phi.add_incoming(zeros, entry)
        phi.add_incoming(value, loop)
    builder.cbranch(builder.icmp_unsigned("<", after, W), loop, done)
    builder.position_at_end(done)
    limit = builder.insert_element(ir.Constant(WORDS, ir.Undefined), bound, I32(0))
    limit, nearer = shuffled(builder, limit, limit, [0] * 4), zeros
    for group, distance in zip(groups, new, strict=True):
        store(builder, distance, builder.add(distances, I64(32 * group)))
        nearer = builder.or_(nearer, builder.sub(distance, limit))  # negative where nearer
    nearer = builder.bitcast(builder.icmp_signed("<", nearer, zeros), ir.IntType(4))
    return builder.icmp_unsigned("!=", nearer, ir.IntType(4)(0))
