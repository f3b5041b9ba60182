"""The codecs of a report: those given, or one or two of each kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gpuzip.choose.grid import Candidate, families
from gpuzip.codecs import Quantizer, from_spec
from gpuzip.errors import GpuzipError

Codecs = Sequence[str | Quantizer[Any]] | str | Quantizer[Any]

#: Families of the grid of `gpuzip.pareto`, with the bits per dimension to take from them.
_TELLING = (
    *(("SQfp16", 16.0), ("SQ", 8.0), ("HR, LloydMax", 4.0), ("Balanced, PQ", 2.0), ("HR, RaBitQ", 2.0)),
    *(("PCA, MixedLloydMax", 1.0), ("Balanced, PQ", 1.0), ("HR, RaBitQ", 1.0), ("Binary", 1.0)),
    ("Balanced, PQ", 0.5),
)

_KINDS = {
    "pq": "product quantizer",
    "scalar": "integers of {bits} bits",
    "binary": "1 bit per value",
    "half": "16-bit floats",
    "lloydmax": "levels of {bits} bits",
    "lloydmax-mixed": "bits by variance",
    "residual": "residual quantizer",
    "rabitq": "RaBitQ, {bits} bits",
}

_ROTATIONS = {"pca": "PCA", "opq": "OPQ", "hadamard": "Hadamard"}


def selected(who: str, codecs: Codecs | None, n: int, d: int, trained: int) -> dict[str, Quantizer[Any]]:
    """Unfitted codecs by name. Raises GpuzipError for what is no codec, none, or one twice."""
    if codecs is None:
        return {spec: from_spec(spec) for spec in _telling(n, d, trained)}
    alone = isinstance(codecs, str | Quantizer)
    listed = [codecs] if alone else list(codecs) if isinstance(codecs, Iterable) else []
    if not listed:
        raise GpuzipError(f"{who}: codecs must be a list of at least one spec or codec; got {codecs!r}.")
    named: dict[str, Quantizer[Any]] = {}
    for codec in listed:
        if not isinstance(codec, str | Quantizer):
            raise GpuzipError(
                f"{who}: codecs must be specs such as 'PQ48x8', or codecs that are not fitted; got {codec!r}."
            )
        made = from_spec(codec) if isinstance(codec, str) else codec
        name = codec if isinstance(codec, str) else _name(codec)
        if name in named:
            raise GpuzipError(f"{who}: codecs must differ; got {name!r} twice. Omit one.")
        named[name] = made
    return named


def kind_of(codec: Any) -> str:
    """What kind of codes a codec makes, in a few words; its class's name for one that is not gpuzip's."""
    kind = _KINDS.get(codec.id, type(codec).__name__)
    words = kind.format(bits=getattr(codec, "bits", ""))
    rotation = codec.rotation
    words = words.replace(" 1 bits", " 1 bit")
    return words if rotation is None else f"{words}, {_ROTATIONS.get(rotation.kind, rotation.kind)} rotation"


def _name(codec: Quantizer[Any]) -> str:
    try:
        return codec.spec
    except GpuzipError:  # of settings that have no text
        return repr(codec)


def _telling(n: int, d: int, trained: int) -> list[str]:
    grid = families(n, d, trained)
    some = [_nearest(grid[name], bits * d / 8) for name, bits in _TELLING if name in grid]
    return list(dict.fromkeys(some))


def _nearest(family: list[Candidate], size: float) -> str:
    return min(family, key=lambda c: abs(c.code_size - size)).spec
