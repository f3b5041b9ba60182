"""Make the golden files, once for each format; what exists is never written again.

    python -m tests.golden.make

Beside NAME.ezip, NAME.json holds what the file must decode to, worked out by plain Python from the
formulas below, and not by gpuzip. Values are small multiples of 1/8, which all four dtypes hold, but for
those of "wide", which only float32 and float64 do.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

import gpuzip
from gpuzip.codecs.pq import Codebook

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """n rows of d columns in m sub-spaces; stamped: with the quality against `source`."""

    m: int
    nbits: int
    d: int
    n: int
    dtype: str = "float32"
    seed: int | None = None
    scale: float = 1
    stamped: bool = False

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


CASES = {
    "bits1": Case(m=5, nbits=1, d=10, n=7),
    "bits4": Case(m=6, nbits=4, d=12, n=9, dtype="float16", seed=0, stamped=True),
    "bits5": Case(m=5, nbits=5, d=5, n=11, dtype="bfloat16", seed=123456789),
    "bits8": Case(m=2, nbits=8, d=4, n=13, dtype="float64", seed=7, stamped=True),
    "bits12": Case(m=2, nbits=12, d=2, n=5),
    "pad": Case(m=3, nbits=4, d=7, n=6, stamped=True),
    "wide": Case(m=2, nbits=2, d=4, n=5, scale=1e5),
    "empty": Case(m=2, nbits=3, d=4, n=0, dtype="float16"),
}


def main() -> None:
    for name, case in CASES.items():
        ezip, expected = FOLDER / f"{name}.ezip", FOLDER / f"{name}.json"
        if ezip.exists() or expected.exists():
            raise SystemExit(f"{ezip} exists. Golden files are never made again: give a new one a new name.")
        case.codes().save(ezip, case.source())
        expected.write_text(json.dumps(asdict(case) | {"packed": case.packed(), "rows": case.rows()}) + "\n")
        print(ezip)


if __name__ == "__main__":
    main()
