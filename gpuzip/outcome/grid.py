"""The codecs that are tried for an outcome, in families whose codecs lose less the more bytes they take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from gpuzip.ops import code_bytes

_STEP = 1.06  # from one size to the next, where any is possible
_ROWS_PER_CENTROID = 8  # fewer learn codes that serve no other rows
_WIDEST = 32  # dimensions of a sub-space


@dataclass(frozen=True)
class Candidate:
    """A codec by its spec, and what it will take at most: bytes a row, and bytes of its own."""

    spec: str
    code_size: int
    state: int

    def nbytes(self, n: int) -> int:
        """Of the codes of n rows, with what decodes them."""
        return n * self.code_size + self.state


def families(n: int, d: int) -> dict[str, list[Candidate]]:
    """What n rows of d columns can train, each family ascending in bytes a row. Another is one line."""
    turned = 2 * d * d
    found = {
        "OPQ, PQ x8": list(_product(n, d, 8, "OPQ{m}_{dims},")),
        "OPQ, PQ x4": list(_product(n, d, 4, "OPQ{m}_{dims},")),
        "PQ x8": list(_product(n, d, 8, "")),
        "PQ x4": list(_product(n, d, 4, "")),
        "PCA, MixedLloydMax": list(_mixed(d, "PCA,", turned)),
        "MixedLloydMax": list(_mixed(d, "", 0)),
        "LloydMax": [Candidate(f"LloydMax{b}", code_bytes(d, b), 4 << b) for b in range(1, 9)],
        "HR, LloydMax": [
            Candidate(f"HR,LloydMax{b}", code_bytes(d, b), (4 << b) + 4 * d) for b in range(1, 9)
        ],
        "SQ": [Candidate(f"SQ{b}", code_bytes(d, b), 8 * d) for b in (4, 6, 8)],
        "SQfp16": [Candidate("SQfp16", 2 * d, 4)],
        "Binary": [Candidate("Binary", code_bytes(d, 1), 8 * d + 4)],
    }
    return {name: family for name, family in found.items() if family}


def _product(n: int, d: int, nbits: int, rotation: str) -> Iterator[Candidate]:
    """Sub-spaces of S = 32, 31, ... dimensions; with a rotation, up to S - 1 of the least are left out."""
    K, last = 1 << nbits, 0
    for S in range(min(_WIDEST, d), 0, -1) if n >= _ROWS_PER_CENTROID * K else ():
        m = d // S
        dims = m * S if rotation else d
        if m == last or dims % m or K.bit_length() - 1 > 8 * S:
            continue
        last = m
        turn = (
            rotation.format(m=m, dims=dims) if dims < d else rotation.format(m=m, dims=d).replace(f"_{d}", "")
        )
        state = 2 * K * dims + (2 * d * dims if rotation else 0)
        yield Candidate(f"{turn}PQ{m}x{nbits}", code_bytes(m, nbits), state)


def _mixed(d: int, rotation: str, turned: int) -> Iterator[Candidate]:
    size = 1
    while size <= d:
        bits = min(8.0, math.ceil(8e4 * size / d) / 1e4)
        yield Candidate(f"{rotation}MixedLloydMax{bits:g}", size, 9 * d + 1112 + turned)
        size = max(size + 1, round(size * _STEP))
