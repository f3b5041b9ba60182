"""The instructions that kernels are meant to have, and what is wrong with one that lacks them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from bench.gate.rows import Row

#: kernel -> (class of `machine_code.CLASSES`, constexpr that is the rows of its product, "" for none).
#: A product of 64 rows or more has to be one of a whole warp group on sm_90. Kernels that are not named here
#: need nothing.
MEANT: dict[str, tuple[str, str]] = {}


def problem(row: Row) -> str:
    """What is wrong with a kernel that did compile; nothing where nothing is."""
    if row.stack or row.counts.get("spill"):
        return f"spills: {row.stack} bytes of stack"
    if row.counts.get("float_atomic"):
        return "adds floats atomically, in no fixed order"
    need, rows = MEANT.get(row.kernel, ("", ""))
    if need == "tensor" and row.target == "sm_90" and _constexpr(row.tile, rows) >= 64:
        need = "wgmma"
    return f"no {need} instruction" if need and not row.counts.get(need) else ""


def never_built(kernels: Collection[str]) -> Iterator[str]:
    """What the table names and nothing compiled."""
    for kernel in MEANT:
        if kernel not in kernels:
            yield f"{kernel}: bench/gate/meant.py names it, and no launcher compiles it"


def _constexpr(tile: str, name: str) -> int:
    found = re.search(rf"\b{name}=(\d+)\b", tile) if name else None
    return int(found[1]) if found else 0
