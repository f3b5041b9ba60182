"""Codecs of as many bytes per vector: gpuzip's and FAISS's, by one signature. A method is one line here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gpuzip
from bench.recall.coders import Coder, Faiss, Gpuzip

#: Bytes a vector that the table is about.
SIZES = (24, 48, 96, 192, 384)

GPUZIP, FAISS = "gpuzip", "FAISS"

Forms = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Method:
    """side: whose it is. recipe: how that library has it made. size: of SIZES, that it is compared at.

    form: the recipe without its numbers, the same in all sizes.
    """

    side: str
    recipe: str
    size: int
    form: str

    @property
    def label(self) -> str:
        return f"{self.side}: {self.recipe}"

    def why_not(self, d: int) -> str | None:
        """Why the library that is here can't make it for rows of d columns; None where it can."""
        try:
            self.coder(d)
        except (NameError, ValueError, RuntimeError) as error:
            return str(error).splitlines()[0]
        return None

    def coder(self, d: int) -> Coder:
        """A new, untrained one, for rows of d columns."""
        if self.side == GPUZIP:
            return Gpuzip(eval(self.recipe, vars(gpuzip)))
        return Faiss(self.recipe, d)


# {B}: bytes per vector; {Q}: a quarter of them. "np": without polysemous training, which takes time alone.
_ANY_SIZE: Forms = {
    GPUZIP: (
        "ProductQuantizer(m={B})",
        "ProductQuantizer(m={B}, rotation='balanced')",
        "ProductQuantizer(m={B}, rotation='opq')",
        "MixedLloydMaxQuantizer({bits:g}, rotation='pca')",
        "ResidualQuantizer({B})",
        "ResidualQuantizer(4, nsplits={Q})",
        "ResidualQuantizer(4, nsplits={Q}, rotation='balanced')",
    ),
    FAISS: ("PQ{B}x8np", "OPQ{B},PQ{B}x8np", "RQ{B}x8", "PRQ{Q}x4x8", "LSQ{B}x8", "PLSQ{Q}x4x8"),
}
# {M}: twice the bytes, of 4 bits each; there are none of more than d.
_HALF_BYTES: Forms = {
    GPUZIP: (
        "ProductQuantizer(m={M}, nbits=4)",
        "ProductQuantizer(m={M}, nbits=4, rotation='balanced')",
        "ProductQuantizer(m={M}, nbits=4, rotation='opq')",
    ),
    FAISS: ("PQ{M}x4np", "OPQ{M},PQ{M}x4np"),
}
# {bits:g}: a whole number of bits per value.
_WHOLE_BITS: Forms = {
    GPUZIP: (
        "ScalarQuantizer({bits:g}, range='mse')",
        "LloydMaxQuantizer({bits:g}, rotation='hadamard')",
        "RaBitQuantizer({bits:g})",
    ),
    FAISS: ("RR{d},RaBitQ{bits:g}", "RR{d},SQtqmse{bits:g}", "RR{d},EDEN{bits:g}"),
}
_BY_BITS: dict[float, Forms] = {
    0.5: {GPUZIP: ("BinaryQuantizer(rotation=Rotation('pca', dims=192))",), FAISS: ("PCAR192,SQtqmse1",)},
    1: {GPUZIP: ("BinaryQuantizer()", "BinaryQuantizer('dim_mean', rotation='hadamard')"), FAISS: ()},
    2: {GPUZIP: (), FAISS: ("RR{d},SQtq2",)},
    4: {GPUZIP: (), FAISS: ("SQ4", "RR{d},SQtq4")},
    8: {GPUZIP: (), FAISS: ("SQ8",)},
}


def methods(d: int = 384) -> Iterator[Method]:
    """For rows of d columns, by size, ours first."""
    for B in SIZES:
        bits, tables = B * 8 / d, [_ANY_SIZE]
        tables += [_HALF_BYTES] if d >= B * 2 else []
        tables += [_WHOLE_BITS] if bits.is_integer() else []
        tables += [_BY_BITS[bits]] if bits in _BY_BITS else []
        for side in (GPUZIP, FAISS):
            for form in (form for table in tables for form in table[side]):
                yield Method(side, form.format(B=B, Q=B // 4, M=2 * B, bits=bits, d=d), B, form)
