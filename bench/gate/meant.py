"""The instructions that kernels are meant to have, and what is wrong with one that lacks them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from bench.gate.rows import Row


class Meant(NamedTuple):
    """need: a class of `machine_code.CLASSES`. op: an operator that launches the kernel.

    rows: the constexpr that is the rows of its product, "" for none; 64 rows or more have to be a product of
    a whole warp group on sm_90. where: a constexpr that has to be set for the need to hold, "" for always.
    """

    need: str
    op: str
    rows: str = ""
    where: str = ""


#: Kernels that are not named here need nothing.
MEANT = {
    "_assign_halves": Meant("tensor", "encode", rows="BN"),
    "_decode_rotated": Meant("tensor", "decode_rotated", rows="BN", where="SPLIT=True"),
    "_gather": Meant("popc", "hamming_gather"),
    "_lloyd": Meant("tensor", "lloyd", rows="BN"),
    "_product_scan": Meant("tensor", "product_scan", rows="BN", where="HALF=True"),
    "_scalar_scan": Meant("tensor", "scalar_scan", rows="BQ", where="TENSOR=True"),
    "_scan_dot": Meant("tensor", "hamming_scan", rows="BQ"),
    "_scan_rows": Meant("tensor", "product_scan", rows="BQ"),
    "_scan_popcount": Meant("popc", "hamming_scan"),
}


def problem(row: Row) -> str:
    """What is wrong with a kernel that did compile; nothing where nothing is."""
    if row.stack or row.counts.get("spill"):
        return f"spills: {row.stack} bytes of stack"
    if row.counts.get("float_atomic"):
        return "adds floats atomically, in no fixed order"
    meant = MEANT.get(row.kernel)
    if meant is None or meant.where not in ("", *row.tile.split()):
        return ""
    fast = meant.need == "tensor" and row.target == "sm_90" and _constexpr(row.tile, meant.rows) >= 64
    need = "wgmma" if fast else meant.need
    return "" if row.counts.get(need) else f"no {need} instruction"


def never_built(kernels: Collection[str], ops: Collection[str]) -> Iterator[str]:
    """What the table names and no launcher compiles, of the operators that there are."""
    for kernel, meant in MEANT.items():
        if kernel not in kernels and meant.op in ops:
            yield f"{kernel}: bench/gate/meant.py names it, and no launcher compiles it"


def _constexpr(tile: str, name: str) -> int:
    found = re.search(rf"\b{name}=(\d+)\b", tile) if name else None
    return int(found[1]) if found else 0
