"""Warps that repeat each other's work: read from the layouts that triton gives the results of products."""

from __future__ import annotations

import re

_LAYOUT = re.compile(
    r"^(#\w+) = #ttg\.nvidia_mma<\{.*?warpsPerCTA = \[(\d+), (\d+)\].*?instrShape = \[(\d+), (\d+)"
)
_RESULT = r"(?:warp_group_dot|tt\.dot) .*tensor<(\d+)x(\d+)x\w+, {}>"


def repeated(ttgir: str) -> str:
    """`8 x 16 rows of a product of 64`, or "": the warps of a program side by side reach past its result."""
    for line in ttgir.splitlines():
        if not (found := _LAYOUT.match(line)):
            continue
        name, *numbers = found.groups()
        warps, tile = tuple(map(int, numbers[:2])), tuple(map(int, numbers[2:]))
        for shape in re.findall(_RESULT.format(re.escape(name)), ttgir):
            for axis, what in enumerate(("rows", "columns")):
                if warps[axis] > 1 and warps[axis] * tile[axis] > int(shape[axis]):
                    return f"{warps[axis]} warps of {tile[axis]} {what} in a product of {shape[axis]}"
    return ""
