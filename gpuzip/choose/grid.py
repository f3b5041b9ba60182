"""The codecs that `gpuzip.compress` tries, in families. In a family, larger codecs lose less."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from gpuzip.codecs.pq import nearest_divisors
from gpuzip.ops import code_bytes

_STEP = 17 / 16  # ratio of neighbouring sizes, in a family of any size
_ROWS_PER_CENTROID = 8  # with fewer, centroids do not suit other rows
_WIDEST = 32  # most dimensions per sub-space


SizeLimit = Callable[[int], int | None]


@dataclass(frozen=True)
class Candidate:
    """A codec by its spec, with its bytes per row and an upper estimate of the bytes of its state."""

    spec: str
    code_size: int
    state: int

    def nbytes(self, n: int) -> int:
        """Bytes of the codes of n rows and of the codec."""
        return n * self.code_size + self.state


def families(
    n: int, d: int, trained: int | None = None, limit: SizeLimit = lambda state: None
) -> dict[str, list[Candidate]]:
    """Families by name for n rows of d columns, each by rising bytes per row. A new family is one line.

    trained: number of rows to fit on; default all. limit: most bytes per row for a codec whose state has a
    given number of bytes, or None; a family of any size has a codec that fills it.
    """
    most = int(math.log2(max(2, (trained or n) / _ROWS_PER_CENTROID)))  # most bits per code
    found = {
        "LloydMax": [Candidate(f"LloydMax{b}", code_bytes(d, b), 4 << b) for b in range(1, 9)],
        "Binary": [Candidate("Binary", code_bytes(d, 1), 8 * d + 4)],
        "SQ": [Candidate(f"SQ{b}", code_bytes(d, b), 8 * d) for b in (4, 6, 8)],
        "SQfp16": [Candidate("SQfp16", 2 * d, 4)],
        "Balanced, PQ": _product(d, min(8, most), rotated=True),
        "PCA, MixedLloydMax": _mixed(d, limit, rotated=True),
        "MixedLloydMax": _mixed(d, limit, rotated=False),
        "HR, LloydMax": [
            Candidate(f"HR,LloydMax{b}", code_bytes(d, b), 4 * d + (4 << b)) for b in range(1, 9)
        ],
        "HR, RaBitQ": [
            Candidate(f"HR,RaBitQ{b}", b * code_bytes(d, 1) + (6 if b == 1 else 10), 8 * d)
            for b in range(1, 9)
        ],
        "PQ": _product(d, min(8, most), rotated=False),
        "Balanced, PQ x4": _product(d, min(4, most), rotated=True),
        "PQ x4": _product(d, min(4, most), rotated=False),
        "PRQ": _residual(n, d) if most >= 8 else [],
    }
    return {name: family for name, family in found.items() if family}


def _product(d: int, nbits: int, rotated: bool) -> list[Candidate]:
    """Sub-spaces of 32 to 2 dimensions with nbits, and of 4 to 2 with fewer bits for sizes in between.

    A rotation drops up to S - 1 directions of least variance, so that all sub-spaces have S dimensions.
    """
    found: dict[int, Candidate] = {}
    for bits, widths in ((nbits, range(min(_WIDEST, d), 1, -1)), (nbits - 1, (4, 3, 2)), (nbits - 2, (2,))):
        for S in widths if bits > 0 else ():
            m, dims = d // S, d // S * S
            size = code_bytes(m, bits)
            if m and (dims == d or rotated) and size not in found:
                rotation = f"Balanced{m}_{dims}," if dims < d else f"Balanced{m},"
                state = 2 * (dims << bits) + (2 * d * dims if rotated else 0)
                found[size] = Candidate(f"{rotation * rotated}PQ{m}x{bits}", size, state)
    return [found[size] for size in sorted(found)]


def _residual(n: int, d: int) -> list[Candidate]:
    """Stages of splits about 48 columns wide, if the codebooks take at most a tenth of the codes' bytes."""
    splits = nearest_divisors(d, max(1, d // 48))[0]
    found = [Candidate(f"PRQ{splits}x{m}x8", splits * m, 512 * m * d) for m in range(2, 9)]
    return [candidate for candidate in found if 10 * candidate.state <= n * candidate.code_size]


def _mixed(d: int, limit: SizeLimit, rotated: bool) -> list[Candidate]:
    """Codecs from 1 byte per row on, each a sixteenth larger, and one that fills the limit."""
    state = 9 * d + 1112 + (2 * d * d if rotated else 0)
    sizes = [1]
    while sizes[-1] < d:
        sizes.append(max(sizes[-1] + 1, round(sizes[-1] * _STEP)))
    sizes = sorted({*sizes, min(d, max(1, limit(state) or 1))})
    bits = [min(8.0, math.ceil(8e4 * size / d) / 1e4) for size in sizes]  # floor(d * bits / 8) is the size
    return [
        Candidate(f"{'PCA,' * rotated}MixedLloydMax{b:g}", min(size, d), state)
        for b, size in zip(bits, sizes, strict=True)
    ]
