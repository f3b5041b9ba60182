"""The codecs by the id they have in files. A new codec is one file and one line here."""

from gpuzip.codecs.base import Codec
from gpuzip.codecs.binary import BinaryQuantizer
from gpuzip.codecs.half import HalfQuantizer
from gpuzip.codecs.lloyd_max import LloydMaxQuantizer
from gpuzip.codecs.lloyd_max_mixed import MixedLloydMaxQuantizer
from gpuzip.codecs.pq import ProductQuantizer
from gpuzip.codecs.scalar import ScalarQuantizer
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
    )
}


def codec_class(id: str) -> type[Codec]:
    """The codec of a file's id. Raises UnknownCodecError."""
    if id not in CODECS:
        raise UnknownCodecError(
            f"codec {id!r} is not one of {', '.join(CODECS)}. A newer gpuzip may have it."
        )
    return CODECS[id]


__all__ = [
    "CODECS",
    "BinaryQuantizer",
    "Codec",
    "HalfQuantizer",
    "LloydMaxQuantizer",
    "MixedLloydMaxQuantizer",
    "ProductQuantizer",
    "ScalarQuantizer",
    "codec_class",
]
