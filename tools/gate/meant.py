"""The instructions that kernels are meant to have, and what is wrong with one that lacks them, or is slow.

Slow on sm_90, where the loops are read: values of 2 bytes gathered or stored one by one in a loop, one
program a multiprocessor where a warp group multiplies, and warps that repeat each other's work.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from tools.gate import sass
from tools.gate.rows import Row
from tools.gate.sass import Code


class Meant(NamedTuple):
    """need: a class of `machine_code.CLASSES`. op: an operator that launches the kernel.

    rows: the constexpr that is the rows of its product, "" for none; 64 rows or more have to be a product of
    a whole warp group on sm_90. where: a constexpr that has to be set for the need to hold, "" for always.
    gathers: tables are gathered 16 bytes at a time, so that no load of 2 bytes is in a loop.
    """

    need: str
    op: str
    rows: str = ""
    where: str = ""
    gathers: bool = False


#: Kernels that are not named here need nothing.
MEANT = {
    "_assign_halves": Meant("tensor", "encode", rows="BN"),
    "_decode_rotated": Meant("tensor", "decode_rotated", rows="BN", where="SPLIT=True", gathers=True),
    "_gather": Meant("popc", "hamming_gather"),
    "_lloyd": Meant("tensor", "lloyd", rows="BN"),
    "_product_scan": Meant("tensor", "product_scan", rows="BN", where="HALF=True", gathers=True),
    "_scalar_scan": Meant("tensor", "scalar_scan", rows="BN"),
    "_scan_dot": Meant("tensor", "hamming_scan", rows="BQ"),
    "_scan_few": Meant("tensor", "hamming_scan", rows="BN"),
    "_scan_rows": Meant("tensor", "product_scan", rows="BQ"),
    "_scan_popcount": Meant("popc", "hamming_scan"),
}


_FEW = 8  # stores of 2 bytes: those of a block's codes, not of its values


class Excuse(NamedTuple):
    """Why a kernel may do what is slow. kind: warps, gathers, stores or blocks. where: as in Meant."""

    kernel: str
    kind: str
    why: str
    where: str = ""


EXCUSED = [
    Excuse("_assign_halves", "stores", "rows of 4 or 8 values: each loaded four times takes more", "BK=16"),
    Excuse("_decode_rotated", "stores", "chunks of 8 bytes or less become rows of an operand", "W=4"),
    Excuse("_decode_rotated", "stores", "chunks of 8 bytes or less become rows of an operand", "W=2"),
    Excuse("_lloyd", "stores", "few programs run, and wait for each other's loads longer than for stores"),
    Excuse("_lloyd", "blocks", "there are fewer programs than multiprocessors"),
    Excuse("_lloyd", "warps", "sums of 16 centroids are a product of 16 rows"),
    Excuse("_scan_rows", "blocks", "the copies of three steps are under way beside each product"),
    Excuse("_product_scan", "blocks", "fewer queries per program would decode rows once more", "BQ=128"),
    Excuse("_scan_dot", "blocks", "a key of every row leaves the chip, which takes longer", "G=1"),
]


def problem(row: Row, code: Code = (), layouts: str = "") -> str:
    """What is wrong with a kernel that did compile; nothing where nothing is. layouts: of `repeated`."""
    if row.stack or row.counts.get("spill"):
        return f"spills: {row.stack} bytes of stack"
    if row.counts.get("float_atomic"):
        return "adds floats atomically, in no fixed order"
    meant = MEANT.get(row.kernel)
    if meant is not None and _holds(meant.where, row):
        fast = meant.need == "tensor" and row.target == "sm_90" and _constexpr(row.tile, meant.rows) >= 64
        need = "wgmma" if fast else meant.need
        if not row.counts.get(need):
            return f"no {need} instruction"
    return next((what for kind, what in _slow(row, code, layouts) if not _excused(row, kind)), "")


def _slow(row: Row, code: Code, layouts: str) -> Iterator[tuple[str, str]]:
    """What makes a kernel slower on sm_90 than it need be: the kind, for EXCUSED, and the words."""
    if row.target != "sm_90":
        return
    if layouts:
        yield "warps", f"warps repeat each other's work: {layouts}"
    inside = {i for loop in sass.loops(code) for i in range(loop.first, loop.last + 1)}
    looped, meant = [code[i].opcode for i in inside], MEANT.get(row.kernel)
    gathers, stores = (
        sum(re.match(pattern, opcode) is not None for opcode in looped)
        for pattern in (r"LDG\.\S*[US]16\b", r"STS\.[US]16\b")
    )
    if gathers and meant is not None and meant.gathers:
        yield "gathers", f"{gathers} loads of 2 bytes in a loop, where 16 are gathered"
    if stores > _FEW:
        yield "stores", f"{stores} stores of 2 bytes into shared memory in a loop"
    if row.counts.get("wgmma") and row.blocks == 1:
        yield "blocks", "one program a multiprocessor, so that nothing runs beside its products"


def _excused(row: Row, kind: str) -> bool:
    return any((one.kernel, one.kind) == (row.kernel, kind) and _holds(one.where, row) for one in EXCUSED)


def _holds(where: str, row: Row) -> bool:
    return where in ("", *row.tile.split())


def never_built(kernels: Collection[str], ops: Collection[str]) -> Iterator[str]:
    """What the table names and no launcher compiles, of the operators that there are."""
    for kernel, meant in MEANT.items():
        if kernel not in kernels and meant.op in ops:
            yield f"{kernel}: tools/gate/meant.py names it, and no launcher compiles it"


def _constexpr(tile: str, name: str) -> int:
    found = re.search(rf"\b{name}=(\d+)\b", tile) if name else None
    return int(found[1]) if found else 0
