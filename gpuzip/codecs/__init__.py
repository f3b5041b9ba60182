"""The codecs by the id they have in files. A new codec is one file and one line here."""

from gpuzip.codecs.base import Codec
from gpuzip.codecs.binary import BinaryQuantizer
from gpuzip.codecs.half import HalfQuantizer
from gpuzip.codecs.lloyd_max import LloydMaxQuantizer
from gpuzip.codecs.lloyd_max_mixed import MixedLloydMaxQuantizer
from gpuzip.codecs.pq import ProductQuantizer
from gpuzip.codecs.rabitq import RaBitQuantizer
from gpuzip.codecs.residual import ResidualQuantizer
from gpuzip.codecs.scalar import ScalarQuantizer
from gpuzip.codecs.spec import read_spec
from gpuzip.errors import UnknownCodecError

CODECS: dict[str, type[Codec]] = {
    codec.id: codec
    for codec in (
        ProductQuantizer,
        ScalarQuantizer,
        BinaryQuantizer,
        HalfQuantizer,
        LloydMaxQuantizer,
        MixedLloydMaxQuantizer,
        ResidualQuantizer,
        RaBitQuantizer,
    )
}


def codec_class(id: str) -> type[Codec]:
    """The codec of a file's id. Raises UnknownCodecError."""
    if id not in CODECS:
        raise UnknownCodecError(
            f"codec {id!r} is not one of {', '.join(CODECS)}. A newer gpuzip may have it."
        )
    return CODECS[id]


def from_spec(text: str) -> Codec:
    """The codec, not fitted, that a FAISS factory string stands for, such as "OPQ48,PQ48x8" or "PCA128,SQ8".

    At most one rotation, then "L2norm" if rows are to have length 1 after it, then a codec. Rotations are
    "PCA64", "OPQ48", "OPQ48_96" (96 columns), "RR" and "HR" (which adds no columns here), and of our own
    "Balanced48" and "Truncate128"; codecs are "PQ48x8" ("PQ48" is the same), "RQ8x8", "PRQ4x6x8", "RaBitQ4",
    "SQ8", "SQ6", "SQ4", "SQfp16", "SQbf16" and "LSH", and of our own "Binary", "LloydMax2" and
    "MixedLloydMax1.5". Other settings follow in parentheses: "SQ4(range=mse,per=tensor)". "RaBitQ4" has its
    usual rotation, "RaBitQ4(rotation=None)" none. `codec.spec` is the text of a codec.
    Raises GpuzipError for other text, and says what is known.
    Source: FAISS index_factory.
    """
    return read_spec(text, CODECS.values())


__all__ = [
    "CODECS",
    "BinaryQuantizer",
    "Codec",
    "HalfQuantizer",
    "LloydMaxQuantizer",
    "MixedLloydMaxQuantizer",
    "ProductQuantizer",
    "RaBitQuantizer",
    "ResidualQuantizer",
    "ScalarQuantizer",
    "codec_class",
    "from_spec",
]
