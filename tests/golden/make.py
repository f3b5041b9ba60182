"""Make the golden files, once for each format; what exists is never written again.

    python -m tests.golden.make

Files of format 1 are in this folder, those of format 2 in format2. Beside NAME.ezip, NAME.json holds what
the file must decode to, and for format 2 the checksums of its blocks, worked out by plain Python from the
formulas below, and not by gpuzip. Values are small multiples of 1/8, which all four dtypes hold, but for
those of "wide", which only float32 and float64 do.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

import gpuzip
from gpuzip._core.planes import split
from gpuzip.codecs.pq import Codebook
from gpuzip.codecs.rabitq import Mean
from gpuzip.storage import blocks

FOLDER = Path(__file__).parent / "format2"


@dataclass(frozen=True)
class Case:
    """n rows of d columns in m sub-spaces; stamped: with the quality against `source`.

    block_bytes: most bytes of codes per checksum.
    """

    m: int
    nbits: int
    d: int
    n: int
    dtype: str = "float32"
    seed: int | None = None
    scale: float = 1
    stamped: bool = False
    block_bytes: int = 1 << 18

    @property
    def sizes(self) -> list[int]:
        """Bytes per row of each plane."""
        return [-(-self.m * self.nbits // 8)]

    @property
    def width(self) -> int:
        """Columns of a sub-space, of which the last may be padding."""
        return -(-self.d // self.m)

    def value(self, m: int, k: int, s: int) -> float:
        """Entry s of centroid k of sub-space m."""
        inside = m * self.width + s < self.d
        return ((7 * m + 3 * k + 11 * s) % 33 - 16) / 8 * self.scale if inside else 0.0

    def label(self, n: int, m: int) -> int:
        """The centroid that row n has in sub-space m."""
        return (1 + n * n + 37 * n + 11 * m + 97 * n * m) % (1 << self.nbits)

    def rows(self) -> list[list[float]]:
        whole = [
            [self.value(m, self.label(n, m), s) for m in range(self.m) for s in range(self.width)]
            for n in range(self.n)
        ]
        return [row[: self.d] for row in whole]

    def packed(self) -> list[list[int]]:
        """Each row is one little-endian bit string, code m at bit m * nbits."""
        size = -(-self.m * self.nbits // 8)
        strings = [sum(self.label(n, m) << m * self.nbits for m in range(self.m)) for n in range(self.n)]
        return [list(string.to_bytes(size, "little")) for string in strings]

    def codes(self) -> gpuzip.Codes:
        K = 1 << self.nbits
        centroids = torch.tensor(
            [[[self.value(m, k, s) for s in range(self.width)] for k in range(K)] for m in range(self.m)]
        )
        codec = gpuzip.ProductQuantizer(
            m=self.m,
            nbits=self.nbits,
            pad=self.d % self.m > 0,
            fitted=Codebook(centroids, self.d, self.seed),
        )
        size = -(-self.m * self.nbits // 8)
        data = torch.tensor(self.packed(), dtype=torch.uint8).view(self.n, size)
        return gpuzip.Codes(codec, data, getattr(torch, self.dtype))

    def source(self) -> Tensor | None:
        """Rows of which the stamped quality is exact in any order of adding up: half of what is decoded."""
        return torch.tensor(self.rows(), dtype=getattr(torch, self.dtype)) / 2 if self.stamped else None


@dataclass(frozen=True)
class PlanesCase:
    """n rows of 8 columns in two bits by RaBitQ: four planes of codes, whose surplus and lean are 0."""

    n: int
    dtype: str = "float32"
    block_bytes: int = 1 << 18
    sizes = (1, 6, 1, 4)

    def bits(self, n: int) -> tuple[int, int]:
        """A byte of signs and one of second bits, the first column in the lowest bit."""
        return (37 * n + 11) % 256, (101 * n + 5) % 256

    def center(self) -> list[float]:
        return [((7 * s) % 9 - 4) / 8 for s in range(8)]

    def rows(self) -> list[list[float]]:
        """The center plus a grid of -3, -1, 1 and 3 times the step, which is 1/4, 1/2 or 1."""
        return [
            [c + self.step(n) * self.point(n, s) for s, c in enumerate(self.center())] for n in range(self.n)
        ]

    def step(self, n: int) -> float:
        return 2.0 ** (n % 3 - 2)

    def point(self, n: int, s: int) -> int:
        sign, second = (byte >> s & 1 for byte in self.bits(n))
        return 2 * (2 * sign - 1) + (2 * second - 1)

    def packed(self) -> list[list[int]]:
        """Signs, then their step, surplus and lean; second bits, then the step and surplus of both.

        A step is two bytes: 9 bits of mantissa, 0 here, and 7 of the exponent plus 63.
        """
        codes = []
        for n in range(self.n):
            (signs, seconds), step = self.bits(n), [0, 2 * (63 + n % 3 - 2)]
            codes.append([signs, *step, 0, 0, 0, 0, seconds, *step, 0, 0])
        return codes

    def codes(self) -> gpuzip.Codes:
        codec = gpuzip.RaBitQuantizer(2, fitted=Mean(torch.tensor(self.center())), rotation=None)
        data = split(torch.tensor(self.packed(), dtype=torch.uint8), self.sizes)
        return gpuzip.Codes(codec, data, getattr(torch, self.dtype))

    def source(self) -> None:
        return None


def table(case: Case | PlanesCase) -> list[list[int]]:
    """CRC-32 per block of rows and plane."""
    packed, step = case.packed(), max(1, case.block_bytes // sum(case.sizes))
    ends = [sum(case.sizes[: i + 1]) for i in range(len(case.sizes))]
    planes = [slice(end - size, end) for end, size in zip(ends, case.sizes, strict=True)]
    parts = [packed[at : at + step] for at in range(0, case.n, step)]
    return [[zlib.crc32(b"".join(bytes(row[p]) for row in part)) for p in planes] for part in parts]


def write(case: Case | PlanesCase, path: Path) -> None:
    with mock.patch.object(blocks, "BLOCK_BYTES", case.block_bytes):
        case.codes().save(path, case.source())


CASES_1: dict[str, Case | PlanesCase] = {
    "bits1": Case(m=5, nbits=1, d=10, n=7),
    "bits4": Case(m=6, nbits=4, d=12, n=9, dtype="float16", seed=0, stamped=True),
    "bits5": Case(m=5, nbits=5, d=5, n=11, dtype="bfloat16", seed=123456789),
    "bits8": Case(m=2, nbits=8, d=4, n=13, dtype="float64", seed=7, stamped=True),
    "bits12": Case(m=2, nbits=12, d=2, n=5),
    "pad": Case(m=3, nbits=4, d=7, n=6, stamped=True),
    "wide": Case(m=2, nbits=2, d=4, n=5, scale=1e5),
    "empty": Case(m=2, nbits=3, d=4, n=0, dtype="float16"),
}
CASES: dict[str, Case | PlanesCase] = CASES_1 | {
    "row": Case(m=6, nbits=4, d=12, n=1),
    "blocks": Case(m=6, nbits=4, d=12, n=11, block_bytes=12),
    "planes": PlanesCase(n=10, block_bytes=50),
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, case in CASES.items():
        ezip, expected = FOLDER / f"{name}.ezip", FOLDER / f"{name}.json"
        if ezip.exists() or expected.exists():
            raise SystemExit(f"{ezip} exists. Golden files are never made again: give a new one a new name.")
        write(case, ezip)
        right = {"packed": case.packed(), "rows": case.rows(), "crc32": table(case)}
        expected.write_text(json.dumps(asdict(case) | right) + "\n")
        print(ezip)


if __name__ == "__main__":
    main()
