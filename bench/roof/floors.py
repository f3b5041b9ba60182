"""The least time that a kernel's work can take on a GPU: that of its slowest pipe, the others behind it.

Every constant comes from the GPU at hand: bytes and products a second are measured, and the pipes of a
multiprocessor run at the clock that was seen while it worked. Their widths, the same from sm_80 to sm_100,
are those of NVIDIA's table of instruction throughputs.
Sizes: N vectors, D dims, M sub-spaces, K centroids, Q queries, B bytes a code, R candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Instructions on the pipe of compares and integers for one distance: the row's minimum, and the lowest index
#: that has it.
ARGMIN = 3.7
#: The same and the one-hot operand of the sums.
STEP = 5.06
#: Cycles of 32 random look-ups in a row of 256 floats in shared memory: banks are hit more than once.
CONFLICTS = 3.15
#: Instructions of a look-up in a row of 16, where no bank is hit twice and issuing them is the bound.
LOOKUP = 5.6
#: Bytes a cycle that a multiprocessor gathers from its L1, in runs of 16.
GATHER = 47


@dataclass(frozen=True)
class Roofs:
    """copy: bytes read and written a second. half, int8: operations of products a second. clock: Hz."""

    copy: float
    half: float
    int8: float
    sms: int
    clock: float

    @property
    def cycles(self) -> float:
        """Of all multiprocessors together, a second."""
        return self.sms * self.clock

    @property
    def compares(self) -> float:
        return self.cycles * 64

    @property
    def popcounts(self) -> float:
        """Of words of 32 bits."""
        return self.cycles * 16

    def lookups(self, K: int) -> float:
        return self.cycles * (128 / LOOKUP if K <= 16 else 32 / CONFLICTS)


def moved(roofs: Roofs, count: float) -> float:
    """Seconds that `count` bytes take."""
    return count / roofs.copy


def assign(roofs: Roofs, N: int, D: int, M: int, K: int, itemsize: int, out: int) -> float:
    """out: bytes of codes a vector."""
    return max(
        moved(roofs, N * (D * itemsize + out)),
        8 * N * D * K / roofs.half,  # four half-precision products a term
        ARGMIN * N * M * K / roofs.compares,
    )


def kmeans_step(roofs: Roofs, N: int, D: int, M: int, K: int) -> float:
    return max(
        moved(roofs, 4 * N * D),
        16 * N * D * K / roofs.half,
        STEP * N * M * K / roofs.compares,
    )


def table_scan(roofs: Roofs, N: int, M: int, K: int, Q: int, B: int) -> float:
    return max(moved(roofs, N * B), N * M * Q / roofs.lookups(K))


def product_scan(roofs: Roofs, N: int, D: int, Q: int, B: int) -> float:
    """Codes become halves once for each 128 queries."""
    rounds = math.ceil(Q / 128)
    return max(
        moved(roofs, N * B * rounds),
        2 * N * D * rounds / (GATHER * roofs.cycles),
        2 * N * D * Q / roofs.half,
    )


def hamming_scan(roofs: Roofs, N: int, Q: int, B: int) -> float:
    """Counting bits for few queries, products of bytes for many, whichever is the sooner."""
    counted = max(moved(roofs, N * B), N * Q * math.ceil(B / 4) / roofs.popcounts)
    return min(counted, scalar_scan(roofs, N, 8 * B, Q, B))


def scalar_scan(roofs: Roofs, N: int, D: int, Q: int, B: int) -> float:
    """The least tile of a product has 64 queries; the rows are read once for each 128."""
    return max(moved(roofs, N * B * math.ceil(Q / 128)), 2 * N * D * max(Q, 64) / roofs.int8)


def rotated(roofs: Roofs, N: int, D: int, B: int, itemsize: int) -> float:
    return max(moved(roofs, N * (B + D * itemsize)), 2 * N * D * D / roofs.half)


def sectors(count: int) -> int:
    """Bytes that reading `count` of them at a random place moves."""
    return 32 * math.ceil(count / 32)
