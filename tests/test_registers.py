"""Instructions of AVX2 beside plain numpy."""

from functools import cache

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from numba import config  # noqa: E402

from gpuzip.loops import (  # noqa: E402
    _bit_sums,
    _bit_sums512,
    _nibbles,
    _nibbles512,
    _register_bounds,
    _registers,
    _registers512,
    _vectors256,
)
from gpuzip.loops._registers import STEP  # noqa: E402
from gpuzip.loops._vectors256 import ROWS  # noqa: E402

needs_registers = pytest.mark.skipif(not _vectors256.is_here(), reason="this CPU or numba has no AVX2")
WIDTHS = [(16, 16), (17, 16), (40, 33), (3, 3)]  # bytes from row to row, and of a row


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"ENABLE_AVX": 0}, False),
        ({"ENABLE_AVX": 1, "CPU_NAME": "haswell", "CPU_FEATURES": "+avx,+avx2,+fma"}, True),
        ({"ENABLE_AVX": 1, "CPU_NAME": "nehalem", "CPU_FEATURES": "+popcnt,+sse4.2"}, False),
        ({"ENABLE_AVX": 1, "CPU_FEATURES": "+avx,-avx2"}, False),
        ({"ENABLE_AVX": 1, "CPU_NAME": "haswell", "CPU_FEATURES": None}, False),
        ({"ENABLE_AVX": 0, "CPU_FEATURES": "+avx2"}, False),
    ],
)
def test_instructions_are_used_where_numba_may(monkeypatch, settings, found):
    for name, value in {"CPU_NAME": None, "CPU_FEATURES": None, **settings}.items():
        monkeypatch.setattr(config, name, value)
    assert _vectors256.is_here.__wrapped__() is found


def call(intrinsic, *arguments):
    return compiled(intrinsic, len(arguments))(*arguments)


@cache
def compiled(intrinsic, count):
    """A function of one intrinsic; it is compiled in each run, as numba's cache would not see a change."""
    names = ", ".join(f"x{n}" for n in range(count))
    space = {"intrinsic": intrinsic}
    exec(f"def function({names}):\n    return intrinsic({names})", space)
    return numba.njit(space["function"])


def at(array):
    return array.ctypes.data


def some_rows(stride, width, extra=2 * STEP):
    """Bytes of 32 rows from an odd address, with room for reads of whole steps, and the rows."""
    g = np.random.default_rng(stride + width)
    memory = g.integers(0, 256, 1 + ROWS * stride + extra).astype(np.uint8)
    rows = np.stack([memory[1 + r * stride : 1 + r * stride + width] for r in range(ROWS)])
    return memory[1:], rows


@needs_registers
@pytest.mark.parametrize(("stride", "width"), WIDTHS)
def test_turn(stride, width):
    memory, rows = some_rows(stride, width)
    for first in range(0, width, STEP):
        columns = np.zeros((STEP, ROWS), np.uint8)
        call(_registers.turn, at(columns), at(memory) + first, stride)
        part = rows[:, first : first + STEP].T
        assert (columns[: len(part)] == part).all()


@needs_registers
@pytest.mark.parametrize("stride", [32, 33, 40, 100])
def test_turn_words(stride):
    memory, rows = some_rows(stride, 32)
    columns = np.zeros((4, ROWS), np.uint64)
    call(_registers.turn_words, at(columns), at(memory), stride)
    assert (columns == np.ascontiguousarray(rows).view(np.uint64).T).all()


@needs_registers
@pytest.mark.parametrize("count", [0, 1, 31, 32])
def test_copy_rows(count):
    memory, rows = some_rows(37, 19)
    target = np.full(ROWS * 19, 99, np.uint8)
    call(_vectors256.copy_rows, at(target), at(memory), 37, 19, count)
    assert (target[: count * 19].reshape(count, 19) == rows[:count]).all()
    assert (target[count * 19 :] == 99).all()


def columns_and_tables(B, entries, top):
    """Codes of 64 rows as columns, with a gap after 32, tables, and sums, of which some are the greatest."""
    g = np.random.default_rng(B)
    codes = g.integers(0, entries, (2, B, ROWS)).astype(np.uint8)
    tables = g.integers(0, top + 1, (B, entries)).astype(np.uint8)
    codes[:, :, :3] = tables.argmax(1)[None, :, None]
    tables[np.arange(B), codes[0, :, 0]] = top
    sums = np.stack([tables[np.arange(B)[:, None], half].sum(0, dtype=np.int64) for half in codes])
    gap = np.full((2, 3 * ROWS), 255, np.uint8)
    return np.concatenate([codes.reshape(2, -1), gap], 1).reshape(2, -1), tables, sums


@needs_registers
@pytest.mark.parametrize(("B", "top"), [(2, 127), (4, 1), (6, 127), (48, 127), (258, 126), (1024, 31)])
def test_sums_of_nibbles(B, top):
    nibbles, tables, sums = columns_and_tables(2 * B, 16, top)
    low, high = nibbles[:, : 2 * B * ROWS].reshape(2, B, 2, ROWS).transpose(2, 0, 1, 3)
    columns, found = np.full((2, (B + 3) * ROWS), 255, np.uint8), np.zeros(2 * ROWS, np.uint16)
    columns[:, : B * ROWS] = (low | high << 4).reshape(2, -1)
    call(_registers.sums_of_nibbles, at(found), at(columns), columns.shape[1], at(tables), B, 1 << 14)
    assert (found == sums.reshape(-1)).all()


of_each_width = pytest.mark.parametrize(
    "registers",
    [
        pytest.param(_registers, marks=needs_registers),
        pytest.param(
            _registers512,
            marks=pytest.mark.skipif(not _registers512.is_here(), reason="this CPU has no VBMI"),
        ),
    ],
)


@of_each_width
@pytest.mark.parametrize(("B", "top"), [(2, 127), (4, 1), (6, 127), (48, 127), (516, 127)])
def test_sums_of_bytes(registers, B, top):
    columns, tables, sums = columns_and_tables(B, 256, top)
    found = np.zeros(2 * ROWS, np.uint16)
    call(registers.sums_of_bytes, at(found), at(columns), columns.shape[1], at(tables), B, 1 << 14)
    assert (found == sums.reshape(-1)).all()


@pytest.mark.parametrize(
    "counted",
    [
        pytest.param(_bit_sums, marks=needs_registers),
        pytest.param(
            _bit_sums512,
            marks=pytest.mark.skipif(not _bit_sums512.is_here(), reason="this CPU has no BITALG"),
        ),
    ],
)
@pytest.mark.parametrize("B", [1, 2, 27, 28, 30, 32, 62, 63, 64, 130, 4095, 4096])
def test_bits_that_differ(B, counted):
    """Bounds as great as the greatest sums, 2**15, and one more."""
    g = np.random.default_rng(B)
    codes, query = g.integers(0, 256, (2, B, ROWS)).astype(np.uint8), g.integers(0, 256, B).astype(np.uint8)
    codes[0, :, :2], codes[1, :, -1] = query[:, None], ~query
    sums = np.unpackbits(codes ^ query[:, None], axis=1).reshape(2, B, 8, ROWS).sum((1, 2)).reshape(-1)
    tables, columns = np.zeros((B + B % 2, ROWS), np.uint8), np.full((2, (B + 3) * ROWS), 255, np.uint8)
    columns[:, : B * ROWS] = codes.reshape(2, -1)
    call(counted.tables_of_bits, at(tables), at(query), B)
    for bound in (0, 1, int(np.median(sums)), 8 * B, 8 * B + 1):
        found = np.zeros(2 * ROWS, np.uint16)
        place = at(columns), columns.shape[1], at(tables)
        below = call(counted.bits_below, at(found), *place, B, 1 << 14, bound)
        assert (found == sums).all()
        assert below == sum(1 << r for r in range(2 * ROWS) if sums[r] < bound)


each_nibbles = pytest.mark.parametrize(
    "nibbles",
    [
        pytest.param(_nibbles, marks=needs_registers),
        pytest.param(
            _nibbles512, marks=pytest.mark.skipif(not _nibbles512.is_here(), reason="this CPU has no GFNI")
        ),
    ],
)


def rounded_to_themselves(nibbles, tables):
    """Tables (Q, M, 16) of whole numbers below 128, as `round_entries` writes them."""
    Q, M, _ = tables.shape
    rounded, values = np.zeros((Q, nibbles.TABLE * M // 2), np.uint8), tables.astype(np.float32)
    for q in range(Q):
        for m in range(M):
            call(nibbles.round_entries, at(rounded[q]), m, at(values[q, m]), np.float32(-1), np.float32(1))
    return rounded


@each_nibbles
@pytest.mark.parametrize("name", ["sums_of_one", "sums_of_four"])
@pytest.mark.parametrize(("B", "top"), [(2, 127), (48, 127), (512, 63)])
def test_sums_of_several_queries_and_those_not_below_floors(nibbles, name, B, top):
    """Every nibble has its own table, and entries are rounded as said: one is added to each."""
    queries, halves = (1, 2) if name == "sums_of_one" else (4, nibbles.HALVES_OF_FOUR)
    g = np.random.default_rng(B)
    codes = g.integers(0, 16, (halves, 2 * B, ROWS)).astype(np.uint8)
    tables = g.integers(0, top + 1, (queries, 2 * B, 16)).astype(np.uint8)
    tables[:, 0, codes[0, 0, 0]] = top
    rounded = rounded_to_themselves(nibbles, tables.astype(int) - 1)
    sums = np.array(
        [[t[np.arange(2 * B)[:, None], half].sum(0, dtype=int) for half in codes] for t in tables]
    )
    columns = np.ascontiguousarray(codes[:, ::2] | codes[:, 1::2] << 4)
    for rank in (0, 7, ROWS):  # of the row whose sum is the floor
        floors = np.append(np.sort(sums[:, 0]), np.full((queries, 1), 65535), 1)[:, rank].astype(np.uint16)
        found, near = np.zeros(sums.shape, np.uint16), np.zeros((queries, halves), np.uint32)
        places = at(columns), B * ROWS, at(rounded), rounded.shape[1], B, 1 << 14, at(floors), at(near)
        bits = call(getattr(nibbles, name), at(found), *places)
        assert (found == sums).all()
        is_near = sums >= floors[:, None, None].astype(int)
        assert (near == (is_near << np.arange(ROWS)).sum(-1)).all()
        assert bits == np.bitwise_or.reduce(near, None)


@needs_registers
@pytest.mark.parametrize("K", [8, 16, 256])
def test_ends_of_a_table(K):
    table, ends = np.random.default_rng(K).standard_normal(K).astype(np.float32), np.zeros(2, np.float32)
    for least, most in ((0, K - 1), (K - 1, 0), (K // 2, K // 2 + 1)):
        table[least], table[most] = -9, 9
        call(_register_bounds.ends_of_table, at(ends), at(table), K)
        assert ends.tolist() == [-9, 9]
        table[least], table[most] = np.nan, 0
        call(_register_bounds.ends_of_table, at(ends), at(table), K)
        expected = [np.nanmin(table), np.nanmax(table)] if least else [np.nan] * 2
        np.testing.assert_array_equal(ends, expected)
        table[least] = 0


@of_each_width
def test_every_entry_of_a_table_of_bytes_is_found(registers):
    for first in range(0, 256, 2 * ROWS):
        codes = np.zeros((2, 2, ROWS), np.uint8)
        codes[:, 0] = np.arange(first, first + 2 * ROWS).reshape(2, ROWS)
        tables = np.zeros((2, 256), np.uint8)
        tables[0] = np.random.default_rng(0).permutation(256) % 128
        found = np.zeros(2 * ROWS, np.uint16)
        call(registers.sums_of_bytes, at(found), at(codes), 2 * ROWS, at(tables), 2, 0)
        assert (found == tables[0, first : first + 2 * ROWS]).all()


def above(bounds, worst):
    return sum(1 << r for r in range(ROWS) if bounds[r] > worst)


@needs_registers
def test_plain_bounds():
    g = np.random.default_rng(0)
    sums, low, step = g.integers(0, 2**16, ROWS).astype(np.uint16), np.float32(-3.25), np.float32(0.01)
    want = low + step * sums.astype(np.float32)
    for worst in (np.float32(-np.inf), want[5], np.sort(want)[16], np.float32(np.inf)):
        bounds = np.zeros(ROWS, np.float32)
        found = call(_register_bounds.plain_bounds, at(bounds), at(sums), low, step, worst)
        assert (bounds == want).all()
        assert found == above(want, worst)


@needs_registers
@pytest.mark.parametrize("columns", [0, 1, 3])
@pytest.mark.parametrize("large", [False, True])
def test_bounds_with_factors_are_above_every_score(columns, large):
    """Where the sum of entries is anywhere within `room`; the bits are those of the bounds."""
    g = np.random.default_rng(columns)
    sums = g.integers(0, 2**16, ROWS).astype(np.uint16)
    low, step, room, shift = (np.float32(x) for x in (-300, 0.01, 5, 2.5))
    factors = g.normal(size=ROWS).astype(np.float32) * np.float32(1e37 if large else 1)
    factors[3:5] = 0, -0.0
    extra, coef = g.normal(size=(2, 3, ROWS)).astype(np.float32)
    bounds, sizes = np.zeros(ROWS, np.float32), np.zeros(ROWS, np.float32)
    call(_register_bounds.scaled_bounds, at(bounds), at(sizes), at(sums), low, step, room, at(factors))
    for e in range(columns):
        call(_register_bounds.add_column, at(bounds), at(sizes), at(extra[e]), coef[e, 0])
    worst = np.float32(0.125)
    found = call(_register_bounds.shifted_bounds, at(bounds), at(sizes), shift, np.float32(2.0**-20), worst)
    assert found == above(bounds, worst)
    if columns == 1:
        together, whole = np.zeros((2, ROWS), np.float32), (at(factors), at(extra[0]), coef[0, 0], shift)
        line, slack = (at(sums), low, step, room), np.float32(2.0**-20)
        same = call(
            _register_bounds.column_bounds, at(together[0]), at(together[1]), *line, *whole, slack, worst
        )
        assert same == found
        assert np.array_equal(together, [bounds, sizes], equal_nan=True)
    middle = low.astype(np.float64) + np.float64(step) * sums
    scores = []
    with np.errstate(over="ignore"):
        for part in (-0.999, 0, 0.999):
            score = (middle + part * room).astype(np.float32) * factors
            for e in range(columns):
                score += extra[e] * coef[e, 0]
            scores.append(score + shift)
    most = np.max(scores, 0)
    assert (bounds >= most)[most > -np.inf].all()
    if not large:
        assert (bounds <= most + 0.01 + 0.01 * np.abs(most) + 2 * room * np.abs(factors)).all()


@needs_registers
@pytest.mark.parametrize("W", [1, 2, 5, 16, 600])
def test_differing(W):
    g = np.random.default_rng(W)
    columns = g.integers(0, 2**64 - 1, (W, ROWS), np.uint64, endpoint=True)
    query = g.integers(0, 2**64 - 1, W, np.uint64, endpoint=True)
    columns[:, 7], columns[:, 8] = query, ~query
    bits = np.unpackbits((columns ^ query[:, None]).view(np.uint8).reshape(W, ROWS, 8), axis=2)
    want = bits.sum((0, 2))
    for bound in (0, 1, np.sort(want)[1], np.sort(want)[1] + 1, 64 * W + 1):
        distances = np.zeros(ROWS, np.int64)
        found = call(_registers.differing, at(distances), at(columns), at(query), W, int(bound))
        assert (distances == want).all()
        assert found == (want < bound).any()


@needs_registers
def test_address_of():
    for dtype in (np.uint8, np.float32, np.uint64):
        array = np.zeros(5, dtype)
        assert call(_vectors256.address_of, array) == at(array)
        assert call(_vectors256.address_of, array[2:]) == at(array) + 2 * array.itemsize
