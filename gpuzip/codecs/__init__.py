"""The codecs by the id they have in files. A new codec is one file and one line here."""

from gpuzip.codecs.base import Codec
from gpuzip.codecs.pq import ProductQuantizer
from gpuzip.errors import UnknownCodecError

CODECS: dict[str, type[Codec]] = {codec.id: codec for codec in (ProductQuantizer,)}


def codec_class(id: str) -> type[Codec]:
    """The codec of a file's id. Raises UnknownCodecError."""
    if id not in CODECS:
        raise UnknownCodecError(
            f"codec {id!r} is not one of {', '.join(CODECS)}. A newer gpuzip may have it."
        )
    return CODECS[id]


__all__ = ["CODECS", "Codec", "ProductQuantizer", "codec_class"]
