"""Codecs by the id that files store: gpuzip's own, and those that programs and packages register."""

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

#: The codecs of gpuzip. A new codec is a file and a line here.
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

#: Group of entry points by which packages register codecs.
ENTRY_POINTS = "gpuzip.codecs"

_registered: dict[str, type[Quantizer]] = {}

Registered = TypeVar("Registered", bound=type[Quantizer])


def register_codec(codec: Registered) -> Registered:
    """Register a codec, so that `open` reads its files and `from_spec` its words. Also a class decorator.

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
        If codec is no such class, or another codec has this id.

    Notes
    -----
    An installed package registers its codecs by entry points of the group ``gpuzip.codecs``. They are loaded
    when a file or a spec names a codec that is not known yet.

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
            f"register_codec: the id must be new; got {id!r}, which {known.__qualname__} has. "
            f"Give {codec.__qualname__} another id."
        )
    if id not in CODECS:
        _registered[id] = codec
    return codec


def codec_class(id: str) -> type[Quantizer]:
    """The codec with this id. Raises UnknownCodecError if there is none."""
    if id not in CODECS and id not in _registered:
        _load_installed()
    if id in CODECS:
        return CODECS[id]
    if id in _registered:
        return _registered[id]
    raise UnknownCodecError(
        f"codec must be one of {', '.join((*CODECS, *_registered))}; got {id!r}. A newer gpuzip may have it, "
        "or a package that is not installed. Register your own with gpuzip.register_codec."
    )


def from_spec(text: str) -> Quantizer:
    """Make an unfitted codec from a FAISS factory string, such as "OPQ48,PQ48x8" or "PCA128,SQ8".

    Parameters
    ----------
    text : str
        At most one rotation, then optionally "L2norm" to scale rotated rows to length 1, then a codec.

    Returns
    -------
    Quantizer
        The codec, not fitted. Its `spec` returns such a text.

    Raises
    ------
    GpuzipError
        If the text cannot be read. The message lists the known words.

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
    """Register the codecs of installed packages; return whether any was new."""
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
