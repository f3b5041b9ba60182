"""Sums of look-up tables that stay in registers, for 32 rows at a time.

Codes are turned into columns, so that a register holds one byte of 32 rows, and a shuffle looks up 16 entries
at once. Source: FAISS's FastScan (Andre, Kermarrec, Le Scouarnec, "Cache locality is not enough", VLDB 2015),
whose codes are stored as columns. Here they stay as they are, and the columns of a tile live in a cache.

Arguments are addresses. Nothing is checked.
"""

from functools import cache
from inspect import signature

from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

ROWS = 32  # rows per call
STEP = 16  # bytes per row that are turned into columns at a time

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_LANES = 2  # of 16 bytes; a shuffle reads its table within a lane
_LANE, _BYTES = ir.VectorType(_I8, 16), ir.VectorType(_I8, ROWS)
_HALVES, _FLOATS = ir.VectorType(_I16, 16), ir.VectorType(ir.FloatType(), 8)
_WORDS = ir.VectorType(_I64, 4)
_PLACES = range(0, ROWS, _FLOATS.count)


@cache
def is_here():
    """Return whether this CPU has the instructions and numba may use them."""
    if not config.ENABLE_AVX:
        return False
    if config.CPU_FEATURES is not None:
        return "+avx2" in config.CPU_FEATURES.split(",")
    return config.CPU_NAME is None and bool(binding.get_host_cpu_features().get("avx2", False))


def _compiled(result, *kinds):
    """Return a decorator that makes generate(builder, *arguments) a function of these types for loops."""

    def decorated(generate):
        def typed(context, *given):
            def lowered(context, builder, _, arguments):
                value = generate(builder, *arguments)
                return context.get_dummy_value() if value is None else value

            return result(*kinds), lowered

        typed.__name__, typed.__signature__ = generate.__name__, signature(generate)  # numba reads both
        return intrinsic(typed)

    return decorated


_PLACE, _REAL = types.intp, types.float32


@intrinsic
def address_of(context, array):
    """Return the address of an array's first entry."""

    def generate(context, builder, signature, arguments):
        return builder.ptrtoint(context.make_array(array)(context, builder, arguments[0]).data, _I64)

    return types.intp(array), generate


@_compiled(types.intp, types.uint32)
def lowest(builder, bits):
    """Return the number of the lowest bit that is set, of which there must be one."""
    return builder.zext(builder.cttz(bits, ir.IntType(1)(1)), _I64)


@_compiled(types.void, *[_PLACE] * 5)
def copy_rows(builder, target, source, stride, width, count):
    """Copy `count` rows of `width` bytes, `stride` bytes apart, next to each other."""
    with cgutils.for_range(builder, count) as loop:
        places = (builder.add(x, builder.mul(loop.index, y)) for x, y in ((target, width), (source, stride)))
        into, row = (builder.inttoptr(place, _I8.as_pointer()) for place in places)
        cgutils.raw_memcpy(builder, into, row, width, 1)


def fetch_line(builder, line):
    """Ask for a cache line, which may be anywhere."""
    _fetch(builder, line)


def _fetch(builder, line):
    pointer = builder.inttoptr(line, _I8.as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, _I32, _I32, _I32])
    call = builder.module.declare_intrinsic("llvm.prefetch", (pointer.type,), kind)
    builder.call(call, [pointer, _I32(0), _I32(3), _I32(1)])  # to read, and to keep


prefetch = _compiled(types.void, _PLACE)(fetch_line)


@_compiled(types.void, _PLACE, _PLACE, _PLACE)
def turn(builder, columns, row, stride):
    """Write byte j of row r at columns + 32*j + r, for 32 rows `stride` bytes apart and j < 16."""
    for j, column in enumerate(_columns(builder, row, stride)):
        _store(builder, column, builder.add(columns, _I64(ROWS * j)))


def _columns(builder, row, stride):
    """Return 16 registers; register j holds byte j of 32 rows."""
    rows = [_load(builder, place, _LANE) for place in _rows(builder, row, stride)]
    whole = [_shuffled(builder, rows[r], rows[r + 16], range(ROWS)) for r in range(16)]
    return _transposed(builder, whole)


def _rows(builder, row, stride):
    """Return 32 addresses as x86 reaches them best: four bases with the same seven offsets."""
    offsets = [builder.mul(stride, _I64(n)) for n in range(8)]
    bases = [builder.add(row, builder.mul(stride, _I64(8 * n))) for n in range(4)]
    return [builder.add(base, offset) for base in bases for offset in offsets]


def _transposed(builder, rows):
    """Transpose 16 x 16 bytes per lane, by four rounds that interleave registers n and n + 8."""
    lanes = [16 * lane for lane in range(_LANES)]
    low = [at for lane in lanes for n in range(8) for at in (lane + n, ROWS + lane + n)]
    high = [at + 8 for at in low]
    for _ in range(4):
        rows = [_shuffled(builder, rows[n], rows[n + 8], part) for n in range(8) for part in (low, high)]
    return rows


@_compiled(types.void, *[_PLACE] * 6)
def sums_of_nibbles(builder, sums, columns, apart, tables, B, ahead):
    """Write, as uint16 at sums, the sum over j < B of the entries of both nibbles of byte j, for 64 rows.

    columns: as `turn` writes them for 32 rows; those of the next 32 are `apart` bytes further. tables: 16
    entries for the low nibble of byte j at tables + 32*j, then 16 for the high one, all below 128. Sums are
    modulo 2**16. B is even and at least 2. Meanwhile as many bytes are fetched that are `ahead` of the first
    column, in the order of their addresses, which a CPU reads fastest.
    """
    low, first = ir.Constant(_BYTES, [15] * ROWS), columns

    def step(columns, tables):
        """Two bytes: four entries, whose tables serve both halves of the rows."""
        place = builder.add(builder.add(first, ahead), builder.shl(builder.sub(columns, first), _I64(1)))
        for line in (0, 2 * ROWS):
            _fetch(builder, builder.add(place, _I64(line)))
        spread = [
            _spread(builder, _load(builder, builder.add(tables, _I64(16 * n)), _LANE)) for n in range(4)
        ]
        found = []
        for half in range(2):
            column, sums = builder.add(columns, builder.mul(apart, _I64(half))), []
            for n in range(2):
                codes = _load(builder, builder.add(column, _I64(ROWS * n)), _BYTES)
                shifted = builder.lshr(builder.bitcast(codes, _HALVES), ir.Constant(_HALVES, [4] * 16))
                nibbles = codes, builder.bitcast(shifted, _BYTES)
                looked_up = (
                    _looked_up(builder, spread[2 * n + i], builder.and_(nibble, low))
                    for i, nibble in enumerate(nibbles)
                )
                sums.append(builder.add(*looked_up))
            found.append(sums)
        return found

    _accumulated(builder, sums, (columns, 2 * ROWS), (tables, 4 * 16), B, 2, step)


@_compiled(types.void, *[_PLACE] * 6)
def sums_of_bytes(builder, sums, columns, apart, tables, B, ahead):
    """Write, as uint16 at sums, the sum over j < B of the entry of byte j, for 64 rows.

    columns: as `turn` writes them for 32 rows; those of the next 32 are `apart` bytes further. tables: 256
    entries for byte j at tables + 256*j, each below 128. Sums are modulo 2**16. B is even and at least 2.
    Meanwhile as many bytes are fetched that are `ahead` of those of the columns.
    """
    for half in range(2):

        def step(columns, tables):
            """Two bytes: two entries."""
            _fetch(builder, builder.add(columns, ahead))
            places = (
                (builder.add(columns, _I64(ROWS * n)), builder.add(tables, _I64(256 * n))) for n in range(2)
            )
            return [[builder.add(*(_entry_of_byte(builder, *place) for place in places))]]

        column = builder.add(columns, builder.mul(apart, _I64(half)))
        place = builder.add(sums, _I64(2 * ROWS * half))
        _accumulated(builder, place, (column, 2 * ROWS), (tables, 2 * 256), B, 1, step)


@_compiled(types.uint64, _PLACE, types.uint16)
def sums_below(builder, sums, bound):
    """Return the bits of those of 64 sums, uint16, that are below the bound."""
    one = builder.insert_element(ir.Constant(_HALVES, ir.Undefined), bound, _I32(0))
    bounds, words = _shuffled(builder, one, one, [0] * _HALVES.count), []
    for at in range(0, 2 * ROWS, _HALVES.count):
        some = _load(builder, builder.add(sums, _I64(2 * at)), _HALVES)
        words.append(builder.icmp_unsigned("<", some, bounds))
    low, high = (_shuffled(builder, *pair, range(ROWS)) for pair in (words[:2], words[2:]))
    return builder.bitcast(_shuffled(builder, low, high, range(2 * ROWS)), _I64)


def _entry_of_byte(builder, column, table):
    """Look up 16 parts of a table of 256 by the low nibble, and keep the one that the high nibble names.

    A shuffle gives 0 where the highest bit of its index is set. So bits 4 and 5 choose among four parts by
    four indices and an "or", and bits 6 and 7 by selections, which fewer ports of a CPU execute.
    """
    codes, highest = _load(builder, column, _BYTES), ir.Constant(_BYTES, [128] * ROWS)
    low = builder.and_(codes, ir.Constant(_BYTES, [15] * ROWS))
    doubled = [codes]
    for _ in range(3):
        doubled.append(builder.add(doubled[-1], doubled[-1]))
    off4, off5 = builder.and_(doubled[3], highest), builder.and_(doubled[2], highest)
    on4, on5 = builder.xor(off4, highest), builder.xor(off5, highest)
    indices = [builder.or_(low, builder.or_(four, five)) for five in (off5, on5) for four in (off4, on4)]
    quarters = []
    for quarter in range(4):
        found = []
        for n in range(4):
            part = _load(builder, builder.add(table, _I64(64 * quarter + 16 * n)), _LANE)
            found.append(_looked_up(builder, _spread(builder, part), indices[n]))
        quarters.append(builder.or_(builder.or_(found[0], found[1]), builder.or_(found[2], found[3])))
    zero = ir.Constant(_BYTES, [0] * ROWS)
    is_6, is_7 = (builder.icmp_signed("<", bits, zero) for bits in (doubled[1], doubled[0]))
    halves = [builder.select(is_6, quarters[n + 1], quarters[n]) for n in (0, 2)]
    return builder.select(is_7, halves[1], halves[0])


def _accumulated(builder, sums, columns, tables, B, halves, step):
    """Loop over two bytes at a time and store the sums of what `step` returns: for each 32 rows some bytes.

    columns and tables: an address, and what a step adds to it. halves: how many times 32 rows.
    """
    entry, loop, done = builder.block, builder.append_basic_block(), builder.append_basic_block()
    builder.branch(loop)
    builder.position_at_end(loop)
    j, column, table = (builder.phi(_I64) for _ in range(3))
    before = [(builder.phi(_HALVES), builder.phi(_HALVES)) for _ in range(halves)]
    eight, zeros = (ir.Constant(_HALVES, [n] * 16) for n in (8, 0))
    after = builder.add(j, _I64(2))
    changed = [
        (j, _I64(0), after),
        (column, columns[0], builder.add(column, _I64(columns[1]))),
        (table, tables[0], builder.add(table, _I64(tables[1]))),
    ]
    totals = []
    for (every, odd), found in zip(before, step(column, table), strict=True):
        new_every, new_odd = every, odd
        for entries in found:
            entries = builder.bitcast(entries, _HALVES)
            new_every = builder.add(new_every, entries)  # of even rows, plus 256 times that of odd rows
            new_odd = builder.add(new_odd, builder.lshr(entries, eight))
        changed += [(every, zeros, new_every), (odd, zeros, new_odd)]
        totals.append((new_every, new_odd))
    for phi, first, value in changed:
        phi.add_incoming(first, entry)
        phi.add_incoming(value, loop)
    builder.cbranch(builder.icmp_unsigned("<", after, B), loop, done)
    builder.position_at_end(done)
    for n, (every, odd) in enumerate(totals):
        even = builder.sub(every, builder.shl(odd, eight))
        for half in range(2):
            order = [at for i in range(8 * half, 8 * half + 8) for at in (i, 16 + i)]
            rows = _shuffled(builder, even, odd, order)
            _store(builder, rows, builder.add(sums, _I64(2 * ROWS * n + ROWS * half)))


@_compiled(types.uint32, _PLACE, _PLACE, _REAL, _REAL, _REAL)
def plain_bounds(builder, bounds, sums, low, step, worst):
    """Write low + step * sum of 32 rows as floats at bounds; return the bits of those above `worst`."""
    low, step, worst = (_floats(builder, value) for value in (low, step, worst))
    above = []
    for at in _PLACES:
        value = builder.fadd(low, builder.fmul(step, _sums_as_floats(builder, sums, at)))
        _store(builder, value, _float_at(builder, bounds, at))
        above.append(builder.fcmp_ordered(">", value, worst))
    return _bits(builder, above)


@_compiled(types.void, _PLACE, _PLACE, _PLACE, _REAL, _REAL, _REAL, _PLACE)
def scaled_bounds(builder, bounds, sizes, sums, low, step, room, scale):
    """Write f * (low + step * sum) + |f| * room of 32 rows at bounds, f the row's float at scale.

    room has the sign of f before it is multiplied, as a sum of two products may be inf - inf.
    sizes: upper bounds of the values that this adds up, which say how far rounding may move it.
    """
    line = [_floats(builder, value) for value in (low, step, room)]
    for at in _PLACES:
        value, size = _scaled(builder, sums, line, scale, at)
        _store(builder, value, _float_at(builder, bounds, at))
        _store(builder, size, _float_at(builder, sizes, at))


def _scaled(builder, sums, line, scale, at):
    """Return what `scaled_bounds` writes for eight rows: bounds and sizes."""
    (low, step, room), zero = line, ir.Constant(_FLOATS, [0.0] * _FLOATS.count)
    factor = _load(builder, _float_at(builder, scale, at), _FLOATS)
    size, part = _absolute(builder, factor), builder.fmul(step, _sums_as_floats(builder, sums, at))
    most = builder.fadd(builder.fadd(_absolute(builder, low), part), room)
    signed = builder.select(builder.fcmp_ordered("<", factor, zero), builder.fneg(room), room)
    value = builder.fmul(factor, builder.fadd(builder.fadd(low, part), signed))
    return value, builder.fmul(size, most)


@_compiled(types.uint32, *[_PLACE] * 3, *[_REAL] * 3, *[_PLACE] * 2, *[_REAL] * 4)
def column_bounds(builder, bounds, sizes, sums, low, step, room, scale, column, coef, shift, slack, worst):
    """Do what `scaled_bounds`, `add_column` and `shifted_bounds` do for one column, in registers."""
    line = [_floats(builder, value) for value in (low, step, room)]
    coef, shift, slack, worst = (_floats(builder, value) for value in (coef, shift, slack, worst))
    above = []
    for at in _PLACES:
        value, size = _scaled(builder, sums, line, scale, at)
        added = builder.fmul(coef, _load(builder, _float_at(builder, column, at), _FLOATS))
        value, size = builder.fadd(value, added), builder.fadd(size, _absolute(builder, added))
        hidden = builder.fmul(slack, builder.fadd(size, _absolute(builder, shift)))
        value = builder.fadd(builder.fadd(value, shift), hidden)
        _store(builder, value, _float_at(builder, bounds, at))
        _store(builder, size, _float_at(builder, sizes, at))
        above.append(builder.fcmp_ordered(">", value, worst))
    return _bits(builder, above)


@_compiled(types.void, _PLACE, _PLACE, _PLACE, _REAL)
def add_column(builder, bounds, sizes, column, factor):
    """Add factor times the floats at column to the bounds of 32 rows, and its size to their sizes."""
    factor = _floats(builder, factor)
    for at in _PLACES:
        added = builder.fmul(factor, _load(builder, _float_at(builder, column, at), _FLOATS))
        for total, value in ((bounds, added), (sizes, _absolute(builder, added))):
            place = _float_at(builder, total, at)
            _store(builder, builder.fadd(_load(builder, place, _FLOATS), value), place)


@_compiled(types.uint32, _PLACE, _PLACE, _REAL, _REAL, _REAL)
def shifted_bounds(builder, bounds, sizes, shift, slack, worst):
    """Add shift + slack * (size + |shift|) to the bounds of 32 rows; return bits of those above `worst`."""
    shift, slack, worst = (_floats(builder, value) for value in (shift, slack, worst))
    above = []
    for at in _PLACES:
        place = _float_at(builder, bounds, at)
        size = _load(builder, _float_at(builder, sizes, at), _FLOATS)
        hidden = builder.fmul(slack, builder.fadd(size, _absolute(builder, shift)))
        value = builder.fadd(builder.fadd(_load(builder, place, _FLOATS), shift), hidden)
        _store(builder, value, place)
        above.append(builder.fcmp_ordered(">", value, worst))
    return _bits(builder, above)


def _sums_as_floats(builder, sums, at):
    halves = _load(builder, builder.add(sums, _I64(2 * at)), ir.VectorType(_I16, _FLOATS.count))
    return builder.uitofp(builder.zext(halves, ir.VectorType(_I32, _FLOATS.count)), _FLOATS)


def _float_at(builder, address, n):
    return builder.add(address, _I64(4 * n))


def _floats(builder, value):
    """Return a register whose floats are all this one."""
    one = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, _I32(0))
    return _shuffled(builder, one, one, [0] * _FLOATS.count)


def _absolute(builder, value):
    kind, name = ir.FunctionType(_FLOATS, [_FLOATS]), f"llvm.fabs.v{_FLOATS.count}f32"
    return builder.call(builder.module.declare_intrinsic(name, (), kind), [value])


def _bits(builder, parts):
    """Return the bits of four vectors of booleans, the first lowest."""
    low, high = (_shuffled(builder, *pair, range(16)) for pair in (parts[:2], parts[2:]))
    return builder.bitcast(_shuffled(builder, low, high, range(ROWS)), _I32)


@_compiled(types.void, _PLACE, _PLACE, _PLACE)
def turn_words(builder, columns, row, stride):
    """Write the 8 bytes w of row r at columns + 256*w + 8*r, for 32 rows `stride` bytes apart and w < 4."""
    rows = [_load(builder, place, _WORDS) for place in _rows(builder, row, stride)]
    for first in range(0, ROWS, 4):
        four = rows[first : first + 4]
        low, high = (
            [_shuffled(builder, *pair, order) for pair in (four[:2], four[2:])]
            for order in ((0, 4, 2, 6), (1, 5, 3, 7))
        )
        turned = [
            _shuffled(builder, *pair, order) for order in ((0, 1, 4, 5), (2, 3, 6, 7)) for pair in (low, high)
        ]
        for w, column in enumerate(turned):
            _store(builder, column, builder.add(columns, _I64(8 * ROWS * w + 8 * first)))


@_compiled(types.boolean, *[_PLACE] * 5)
def differing(builder, distances, columns, query, W, bound):
    """Write in how many bits 32 rows differ from a query, as int64; return whether any is below `bound`.

    columns: as `turn_words` writes them, W words; query: W words, W >= 1.
    """
    groups, zeros = range(ROWS // 4), ir.Constant(_WORDS, [0] * 4)
    low, nothing = (ir.Constant(_BYTES, [n] * ROWS) for n in (15, 0))
    counts = ir.Constant(_BYTES, [n.bit_count() for n in range(16)] * _LANES)
    kind = ir.FunctionType(_WORDS, [_BYTES, _BYTES])
    total = builder.module.declare_intrinsic("llvm.x86.avx2.psad.bw", (), kind)  # of eight bytes
    entry, loop, done = builder.block, builder.append_basic_block(), builder.append_basic_block()
    builder.branch(loop)
    builder.position_at_end(loop)
    w, sums = builder.phi(_I64), [builder.phi(_WORDS) for _ in groups]
    asked = _load(builder, builder.add(query, builder.mul(w, _I64(8))), _I64)
    asked = builder.insert_element(ir.Constant(_WORDS, ir.Undefined), asked, _I32(0))
    asked, new = _shuffled(builder, asked, asked, [0] * 4), []
    for group, before in zip(groups, sums, strict=True):
        place = builder.add(columns, builder.add(builder.mul(w, _I64(8 * ROWS)), _I64(32 * group)))
        bits = builder.xor(_load(builder, place, _WORDS), asked)
        high = builder.bitcast(builder.lshr(bits, ir.Constant(_WORDS, [4] * 4)), _BYTES)
        halves = (builder.and_(part, low) for part in (builder.bitcast(bits, _BYTES), high))
        count = builder.add(*(_looked_up(builder, counts, half) for half in halves))
        new.append(builder.add(before, builder.call(total, [count, nothing])))
    after = builder.add(w, _I64(1))
    w.add_incoming(_I64(0), entry)
    w.add_incoming(after, loop)
    for phi, value in zip(sums, new, strict=True):
        phi.add_incoming(zeros, entry)
        phi.add_incoming(value, loop)
    builder.cbranch(builder.icmp_unsigned("<", after, W), loop, done)
    builder.position_at_end(done)
    limit = builder.insert_element(ir.Constant(_WORDS, ir.Undefined), bound, _I32(0))
    limit, nearer = _shuffled(builder, limit, limit, [0] * 4), zeros
    for group, distance in zip(groups, new, strict=True):
        _store(builder, distance, builder.add(distances, _I64(32 * group)))
        nearer = builder.or_(nearer, builder.sub(distance, limit))  # negative where nearer
    nearer = builder.bitcast(builder.icmp_signed("<", nearer, zeros), ir.IntType(4))
    return builder.icmp_unsigned("!=", nearer, ir.IntType(4)(0))


def _looked_up(builder, table, indices):
    """Return table[index] within each lane for indices below 16, and 0 for those above 127."""
    kind = ir.FunctionType(_BYTES, [_BYTES, _BYTES])
    return builder.call(builder.module.declare_intrinsic("llvm.x86.avx2.pshuf.b", (), kind), [table, indices])


def _spread(builder, lane):
    """Return a register whose lanes are all this one."""
    return _shuffled(builder, lane, lane, list(range(16)) * _LANES)


def _shuffled(builder, x, y, order):
    order = list(order)
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(_I32, len(order)), order))


def _load(builder, address, kind):
    value = builder.load(builder.inttoptr(address, kind.as_pointer()))
    value.align = 1
    return value


def _store(builder, value, address):
    builder.store(value, builder.inttoptr(address, value.type.as_pointer())).align = 1
