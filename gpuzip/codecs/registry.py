"""The codecs by the id they have in files: ours, and those that programs and packages register."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TypeVar

from gpuzip.codecs.binary import BinaryQuantizer
from gpuzip.codecs.half import HalfQuantizer
from gpuzip.codecs.lloyd_max import LloydMaxQuantizer
from gpuzip.codecs.lloyd_max_mixed import MixedLloydMaxQuantizer
from gpuzip.codecs.pq import ProductQuantizer
from gpuzip.codecs.quantizer import Quantizer
from gpuzip.codecs.rabitq import RaBitQuantizer
from gpuzip.codecs.residual import ResidualQuantizer
from gpuzip.codecs.scalar import ScalarQuantizer
from gpuzip.codecs.spec import read_spec
from gpuzip.errors import GpuzipError, UnknownCodecError

#: The codecs of gpuzip. A new one is one file and one line here.
CODECS: dict[str, type[Quantizer]] = {
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

#: The group of entry points under which a package offers codecs of its own.
ENTRY_POINTS = "gpuzip.codecs"

_registered: dict[str, type[Quantizer]] = {}

Registered = TypeVar("Registered", bound=type[Quantizer])


def register_codec(codec: Registered) -> Registered:
    """Make a codec known, so that files of it open and `from_spec` reads its words. Also a class decorator.

    An installed package registers its codecs by entry points of the group ``gpuzip.codecs``, which are
    loaded when a file or a spec names a codec that is not known otherwise.

    Parameters
    ----------
    codec : type
        A subclass of `gpuzip.Quantizer` with an `id` of its own.

    Returns
    -------
    type
        The same class.

    Raises
    ------
    GpuzipError
        For anything else, or if another codec has this id.

    Examples
    --------
    >>> import gpuzip
    >>> gpuzip.register_codec(gpuzip.ProductQuantizer).id
    'pq'
    """
    id = getattr(codec, "id", None)
    if not (isinstance(codec, type) and issubclass(codec, Quantizer) and isinstance(id, str)):
        raise GpuzipError(
            f"register_codec: codec must be a subclass of gpuzip.Quantizer with an id; got {codec!r}."
        )
    known = CODECS.get(id) or _registered.get(id, codec)
    written_anew = id not in CODECS and known.__qualname__ == codec.__qualname__  # as in a notebook
    if known is not codec and not written_anew:
        raise GpuzipError(
            f"register_codec: {known.__qualname__} has the id {id!r} already. "
            f"Give {codec.__qualname__} another."
        )
    if id not in CODECS:
        _registered[id] = codec
    return codec


def codec_class(id: str) -> type[Quantizer]:
    """The codec of a file's id. Raises UnknownCodecError."""
    if id not in CODECS and id not in _registered:
        _load_installed()
    if id in CODECS:
        return CODECS[id]
    if id in _registered:
        return _registered[id]
    raise UnknownCodecError(
        f"codec {id!r} is not one of {', '.join((*CODECS, *_registered))}. A newer gpuzip may have it, or a "
        "package that is not installed; gpuzip.register_codec makes one of yours known."
    )


def from_spec(text: str) -> Quantizer:
    """Make an unfitted codec from a FAISS factory string, such as "OPQ48,PQ48x8" or "PCA128,SQ8".

    Parameters
    ----------
    text : str
        At most one rotation, then "L2norm" if rows are to have length 1 after it, then a codec.

    Returns
    -------
    Quantizer
        The codec, not fitted. Its `spec` is such a text again.

    Raises
    ------
    GpuzipError
        If the text cannot be read; the message says what is known.

    Notes
    -----
    Rotations: "PCA64", "OPQ48", "OPQ48_96" (96 columns), "RR", "HR" (which adds no columns here), and
    gpuzip's own "Balanced48" and "Truncate128".

    Codecs: "PQ48x8" ("PQ48" is the same), "RQ8x8", "PRQ4x6x8", "RaBitQ4", "SQ8", "SQ6", "SQ4", "SQfp16",
    "SQbf16", "LSH", and gpuzip's own "Binary", "LloydMax2" and "MixedLloydMax1.5".

    Other settings follow in parentheses: "SQ4(range=mse,per=tensor)". "RaBitQ4" has its default rotation;
    "RaBitQ4(rotation=None)" has none.

    Source: FAISS index_factory.

    Examples
    --------
    >>> import gpuzip
    >>> codec = gpuzip.from_spec("OPQ4,PQ4x8")
    >>> codec.m, codec.nbits, codec.rotation.kind
    (4, 8, 'opq')
    """
    try:
        return read_spec(text, (*CODECS.values(), *_registered.values()))
    except GpuzipError:
        if not _load_installed():
            raise
    return read_spec(text, (*CODECS.values(), *_registered.values()))


def _load_installed() -> bool:
    """Register what installed packages offer; whether that was anything new."""
    before = len(_registered)
    for point in entry_points(group=ENTRY_POINTS):
        try:
            register_codec(point.load())
        except (ImportError, AttributeError, GpuzipError) as error:
            raise GpuzipError(
                f"The codec {point.name!r} of an installed package ({point.value}) cannot be loaded: "
                f"{error}. Update the package, or remove it."
            ) from error
    return len(_registered) > before
