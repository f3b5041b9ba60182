"""How much of its code each kernel runs: trips of its loops, and the bytes that its launch moves.

`c` has the values of the kernel's parameters by name, constexprs and tensors too, and `warps`. A kernel whose
loops are others than stated here fails the model with a message that names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import NamedTuple

from torch import Tensor

from tools.roof import floors

Values = SimpleNamespace

TENSOR = r"[HI]G?MMA\."
LOOKUP = r"LDS$"


#: Turns that topk searches until k to 128 scores are left, of groups and then of their columns: the means
#: of 100 rows of 100,000 normal scores, k = 100.
_TURNS_OF_GROUPS, _TURNS_OF_COLUMNS = 5, 0.5


def cdiv(a: int, b: int) -> int:
    return -(-a // b)


def size(*tensors: Tensor | None) -> int:
    """Bytes."""
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


class Work(NamedTuple):
    """moved: bytes from and to memory of a whole launch. nests: of `sass.runs`, around `anchor`.

    units: multiply-adds of a program where the anchor is a product, else how many lanes run an anchor; the
    code has to agree. It may have more in a loop's turn than stated: then the loop is unrolled. conflicts:
    cycles of a look-up in shared memory. gathers: loads of 16 bytes are of random places. again: bytes of a
    launch that reach other programs from L2, besides asynchronous copies, which are read in the code.
    """

    moved: Callable[[Values], float]
    anchor: str = ""
    nests: Callable[[Values], Sequence[Sequence[float]]] = lambda c: ()
    units: Callable[[Values], float] | None = None
    conflicts: Callable[[Values], float] = lambda c: 1.0
    gathers: bool = False
    again: Callable[[Values], float] = lambda c: 0.0

    def is_anchor(self, opcode: str) -> bool:
        return bool(self.anchor) and re.match(self.anchor, opcode) is not None


def all_of(names: str) -> Callable[[Values], float]:
    """The bytes of these tensors, each once."""
    return lambda c: size(*(getattr(c, f"{name}_ptr") for name in names.split()))


def _parts(c: Values) -> int:
    return max(1, int(c.G // c.BN))


def _searches(c: Values) -> list[tuple[float]]:
    """The loops of topk: for groups and then their columns, or for all columns at once."""
    return [(_TURNS_OF_GROUPS,), (_TURNS_OF_COLUMNS,)] if c.G > 1 else [(_TURNS_OF_GROUPS,)]


def _tiles(c: Values) -> int:
    return 1 if c.ONE else cdiv(int(c.K), int(c.BK))


def _chunks(c: Values) -> int:
    return cdiv(c.units * c.UNIT, c.CB)


def _decoded(c: Values) -> float:
    rows = int(c.packed_ptr.shape[1])
    read = int(c.R) * (rows if c.ids_ptr is None else 8 + floors.sectors(rows))
    return read + size(c.out_ptr)


def _blocks_of_rows(c: Values) -> float:
    """x once, and the columns of the result that this launch writes."""
    return size(c.x_ptr, c.queries_ptr) + 4 * int(c.Q) * cdiv(c.N, c.G)


def _rounds(c: Values) -> list[tuple[float]]:
    """The loop over the rows of a table, in blocks."""
    return [(cdiv(c.rows, c.BN),)]


def _words(c: Values) -> int:
    return cdiv(c.units * c.UNIT, c.CW)


def _gathered(c: Values) -> float:
    row = c.packed_ptr.element_size() * c.packed_ptr.shape[1]
    return float(c.ids_ptr.numel() * (12 + floors.sectors(row)))


def _rescored(c: Values) -> float:
    return int(c.ids_ptr.numel()) * (12 + floors.sectors(c.D * c.store_ptr.element_size()))


def _codes_again(name: str) -> Callable[[Values], float]:
    """Rows of codes, once for each tile of queries."""
    return lambda c: size(getattr(c, name)) * int(c.q_tiles)


def _bank(c: Values) -> float:
    return 1.0 if c.NBITS <= 4 else floors.CONFLICTS


_BITS_BY_PRODUCTS = Work(
    all_of("codes mask out"),
    TENSOR,
    lambda c: [(c.steps, _chunks(c))],
    lambda c: c.steps * c.BQ * c.BN * 8 * c.CB * _chunks(c),
    again=_codes_again("codes_ptr"),
)
_ADC = (LOOKUP, lambda c: [(c.loads,)], lambda c: c.BN * c.M, _bank)

WORK: dict[str, Work] = {
    "_add_rows": Work(all_of("x labels")),
    "_adc_gather": Work(_gathered, *_ADC),
    "_adc_scan": Work(all_of("packed scale mask extra out"), *_ADC),
    "_assign_halves": Work(
        all_of("x out unsure"),
        TENSOR,
        lambda c: [(c.COLUMNS, c.STEPS, _tiles(c))],
        lambda c: c.COLUMNS * c.STEPS * c.PER * c.BN * 4 * c.SP * c.BK * _tiles(c),
    ),
    "_center": Work(all_of("c")),
    "_count": Work(all_of("x out"), r"FSETP", _rounds, lambda c: c.rows * c.BW * c.PER_WORD * c.L),
    "_decode": Work(_decoded, gathers=True),
    "_decode_rotated": Work(
        _decoded,
        TENSOR,
        lambda c: [(cdiv(c.chunks, c.BC),)],
        lambda c: c.BN * c.BE * cdiv(c.chunks, c.BC) * c.BC * c.W * (2 if c.lo_ptr is None else 3),
        gathers=True,
    ),
    "_few": Work(
        all_of("x out"), r"FFMA", lambda c: [(c.BK / c.UNROLLED,)], lambda c: c.BN * c.BM * c.SP * (c.BK + 1)
    ),
    "_few_table": Work(all_of("table")),
    "_finish": Work(all_of("best values ids"), r"REDUX", lambda c: [*_searches(c), (cdiv(c.k, c.BJ),)]),
    "_group_best": Work(all_of("scores out")),
    "_member_keys": Work(lambda c: 3 * size(c.out_ptr) / 2),
    "_product_scan": Work(
        all_of("packed scale bias mask out"),
        TENSOR,
        lambda c: [(_parts(c), c.steps)],
        lambda c: c.BN * c.BQ * c.BM * c.BS * c.steps * _parts(c),
        gathers=True,
        again=_codes_again("packed_ptr"),
    ),
    "_rescore": Work(_rescored, r"FFMA", lambda c: [(cdiv(c.D, c.BD),)], lambda c: c.BR * c.D),
    "_scalar_encode": Work(all_of("x out")),
    "_scalar_scan": Work(
        all_of("codes scale bias mask out"),
        TENSOR,
        lambda c: [(c.steps, 1 if c.CHUNKS else _chunks(c))],
        lambda c: c.steps * c.BQ * c.BN * c.CB * (8 // c.NBITS) * _chunks(c),
        again=_codes_again("codes_ptr"),
    ),
    "_scan_dot": _BITS_BY_PRODUCTS,
    "_scan_few": _BITS_BY_PRODUCTS,
    "_scan_popcount": Work(
        all_of("codes mask out"),
        r"POPC",
        lambda c: [(c.steps, _words(c))],
        lambda c: c.steps * c.BQ * c.BN * _words(c) * c.CW,
    ),
    "_scan_rows": Work(
        _blocks_of_rows,
        TENSOR,
        lambda c: [(_parts(c), cdiv(c.D, c.BD))],
        lambda c: c.BN * c.BQ * c.D * _parts(c),
    ),
    "_search": Work(all_of("x out"), r"FSETP", _rounds),
    "_split": Work(all_of("queries parts")),
    "_table": Work(all_of("table")),
    "_to_floats": Work(all_of("whole sums")),
    "_weigh": Work(all_of("weights")),
}
