"""The least time that a kernel's work can take on a GPU: that of its slowest pipe, the others behind it.

Every constant comes from the GPU at hand: bytes and products a second are measured, and the pipes of a
multiprocessor run at the clock that was seen while it worked. Their widths, the same from sm_80 to sm_100,
are those of NVIDIA's table of instruction throughputs.
Sizes: N vectors, D dims, M sub-spaces, K centroids, Q queries, B bytes per code, R candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Instructions on the pipe of compares and integers for one distance: the row's minimum, and the lowest index
#: that has it.
ARGMIN = 3.7
#: Cycles of 32 random look-ups in a row of 256 floats in shared memory: banks are hit more than once.
CONFLICTS = 3.15
#: Instructions of a look-up in a row of 16, where no bank is hit twice and issuing them is the bound.
LOOKUP = 5.6
#: Bytes a cycle that a multiprocessor gathers from its L1, in runs of 16.
GATHER = 47
#: Instructions of a value and a stretch of RaBitQ's grid: scale, clamp, a floor of two sums, and two sums.
SWEEP = 6


class Floor(float):
    """Seconds, and the pipe that takes them."""

    pipe: str

    def __new__(cls, seconds: float, pipe: str) -> Floor:
        found = super().__new__(cls, seconds)
        found.pipe = pipe
        return found

    def __getnewargs__(self) -> tuple[float, str]:  # type: ignore[override]
        """For pickle, by which the gate's processes answer."""
        return float(self), self.pipe


def slowest(**pipes: float) -> Floor:
    """The most of the seconds that each pipe takes."""
    pipe = max(pipes, key=lambda name: pipes[name])
    return Floor(pipes[pipe], pipe)


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
        """The rate of all multiprocessors together, per second."""
        return self.sms * self.clock

    @property
    def compares(self) -> float:
        return self.cycles * 64

    @property
    def issued(self) -> float:
        """Instructions of a lane, of any kind."""
        return self.cycles * 128

    @property
    def popcounts(self) -> float:
        """The rate for words of 32 bits."""
        return self.cycles * 16

    def lookups(self, K: int) -> float:
        return self.cycles * (128 / LOOKUP if K <= 16 else 32 / CONFLICTS)


#: What kernels/README.md and the model of the compile gate take for an H200: bytes copied, and operations of
#: large products.
H200 = Roofs(copy=4.3e12, half=790e12, int8=1.58e15, sms=132, clock=1.755e9)


def moved(roofs: Roofs, count: float) -> Floor:
    """Seconds that `count` bytes take."""
    return Floor(count / roofs.copy, "memory")


def assign(roofs: Roofs, N: int, D: int, M: int, K: int, itemsize: int, out: int) -> Floor:
    """out: bytes of codes per vector. Four half-precision products a term."""
    return slowest(
        memory=moved(roofs, N * (D * itemsize + out)),
        products=8 * N * D * K / roofs.half,
        compares=ARGMIN * N * M * K / roofs.compares,
    )


def kmeans_step(roofs: Roofs, N: int, D: int, M: int, K: int) -> Floor:
    """Nearest centroids; the sums of their rows are added meanwhile."""
    return assign(roofs, N, D, M, K, itemsize=4, out=0)


def table_scan(roofs: Roofs, N: int, M: int, K: int, Q: int, B: int) -> Floor:
    return slowest(memory=moved(roofs, N * B), lookups=N * M * Q / roofs.lookups(K))


def product_scan(roofs: Roofs, N: int, D: int, Q: int, B: int) -> Floor:
    """Codes become halves once for each 128 queries."""
    return slowest(
        memory=moved(roofs, N * B),
        gathers=2 * N * D * math.ceil(Q / 128) / (GATHER * roofs.cycles),
        products=2 * N * D * Q / roofs.half,
    )


def hamming_scan(roofs: Roofs, N: int, Q: int, B: int) -> Floor:
    """Counting bits for few queries, products of bytes for many, whichever is the sooner."""
    counted = slowest(memory=moved(roofs, N * B), popcounts=N * Q * math.ceil(B / 4) / roofs.popcounts)
    return min(counted, scalar_scan(roofs, N, 8 * B, Q, B))


def scalar_scan(roofs: Roofs, N: int, D: int, Q: int, B: int) -> Floor:
    """The least tile of a product has 64 queries; other tiles of queries have the rows from L2."""
    return slowest(memory=moved(roofs, N * B), products=2 * N * D * max(Q, 64) / roofs.int8)


def rotated(roofs: Roofs, N: int, D: int, B: int, itemsize: int) -> Floor:
    """Three half-precision products a term: high by high, high by low and low by high."""
    return slowest(memory=moved(roofs, N * (B + D * itemsize)), products=6 * N * D * D / roofs.half)


def float_products(roofs: Roofs, N: int, C: int, D: int) -> Floor:
    """Rows of C values times a matrix, in float32: an instruction for each term."""
    return slowest(memory=moved(roofs, 4 * N * (C + D)), issue=N * C * D / roofs.issued)


def rabitq_encode(roofs: Roofs, N: int, D: int, itemsize: int, stretches: int) -> Floor:
    return slowest(
        memory=moved(roofs, N * (D * (itemsize + 1) + 20)), issue=SWEEP * stretches * N * D / roofs.issued
    )


def beam_search(roofs: Roofs, N: int, M: int, K: int, beam: int) -> Floor:
    """Every stage reads a row of a table for each beginning and each stage before."""
    return moved(roofs, 4 * N * M * K * (1 + beam * (M - 1) / 2))


def sectors(count: int) -> int:
    """Bytes that reading `count` of them at a random place moves."""
    return 32 * math.ceil(count / 32)
