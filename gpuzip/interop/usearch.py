"""USearch: indexes of int8 and of bits, both ways. Needs usearch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip.codecs import BinaryQuantizer, ScalarQuantizer
from gpuzip.codecs.binary import Halves
from gpuzip.codecs.codes import Codes
from gpuzip.codecs.scalar import Steps
from gpuzip.errors import GpuzipError, MissingDependencyError

_METRICS = {"cosine": "cos", "ip": "ip", "l2": "l2sq"}  # of int8
_MIDDLE = 128.5  # steps from the start of the range to 0, so that int8 number v stands for v * step


def to_usearch(codes: Codes, metric: str | None = None) -> Any:
    """Convert Codes to a usearch.index.Index with the same bytes. The keys are the row numbers.

    Parameters
    ----------
    codes : Codes
        Codes of a `BinaryQuantizer` become a "b1" index by "hamming"; add and search `codec.encode(x).data`.
        Codes of a `ScalarQuantizer` become an "i8" index if they are int8 numbers in one unit: with
        symmetric=True, signed=True, per="tensor"; or with signed=True, range=(-128.5 / 127, 127.5 / 127), for
        rows of norm 1.
    metric : {"cosine", "ip", "l2"}, optional
        Metric of an int8 index. Default: "cosine".

    Returns
    -------
    usearch.index.Index
        The index.

    Raises
    ------
    GpuzipError
        For other codes.

    Notes
    -----
    USearch's distances are 1 - cosine, and 1 - product or squared distance of the int8 numbers. It quantizes
    float queries as it does rows, x / |x| * 127 cut to whole numbers; `Codes.search` scores the float query.
    """
    who = "to_usearch"
    usearch = _usearch()
    if not isinstance(codes, Codes):
        raise GpuzipError(f"{who}: codes must be Codes; got {type(codes).__name__}.")
    codec, data = codes.codec, codes.data[:].cpu().numpy()
    codec.check_unrotated(who)
    if isinstance(codec, BinaryQuantizer):
        _check_metric(who, metric, ("hamming",), "bits")
        index = usearch.Index(ndim=codec.d, metric="hamming", dtype="b1")
    elif isinstance(codec, ScalarQuantizer):
        _check_int8(who, codec)
        known = _METRICS[_check_metric(who, metric, tuple(_METRICS), "int8")]
        index, data = usearch.Index(ndim=codec.d, metric=known, dtype="i8"), data.view(np.int8)
    else:
        raise GpuzipError(
            f"{who}: {type(codec).__name__} has no USearch twin; BinaryQuantizer and "
            "ScalarQuantizer(signed=True, range=(-128.5 / 127, 127.5 / 127)) have."
        )
    if len(codes):
        index.add(np.arange(len(codes)), data)
    return index


def from_usearch(index: Any) -> Codes:
    """Convert a USearch index of "i8" or "b1" to codes with the same bytes, rows in ascending order of key.

    Parameters
    ----------
    index : usearch.index.Index
        An index of dtype "i8" or "b1".

    Returns
    -------
    Codes
        int8 number v is decoded to v / 127: the row that was added, over its norm. Bits are decoded to 1 and
        -1.

    Raises
    ------
    GpuzipError
        For another dtype, and for an index that may hold several vectors per key.
    """
    who = "from_usearch"
    usearch = _usearch()
    if not isinstance(index, usearch.Index):
        raise GpuzipError(f"{who}: index must be a usearch.index.Index; got {type(index).__name__}.")
    kind = index.dtype.name.lower()
    if kind not in ("i8", "b1"):
        raise GpuzipError(
            f"{who}: the index must hold i8 or b1; got {kind}. Encode its vectors with a codec."
        )
    if index.multi:
        raise GpuzipError(f"{who}: the index must hold one vector per key; got one with multi=True.")
    codec = _signs(index.ndim) if kind == "b1" else _int8(index.ndim)
    return Codes(codec, _vectors(index, codec.code_size))


def _vectors(index: Any, B: int) -> Tensor:
    """(N, B) uint8 in ascending order of key."""
    if len(index) == 0:
        return torch.empty((0, B), dtype=torch.uint8, device="cpu")
    keys = np.sort(index.keys[: len(index)])
    return torch.from_numpy(np.vstack(index.get(keys)).view(np.uint8))


def _signs(d: int) -> BinaryQuantizer:
    levels = torch.tensor([[-1.0], [1.0]], dtype=torch.float32, device="cpu").expand(2, d).contiguous()
    return BinaryQuantizer(
        levels="sign", fitted=Halves(torch.zeros(1, dtype=torch.float32, device="cpu"), levels)
    )


def _int8(d: int) -> ScalarQuantizer:
    steps = Steps(
        torch.tensor([-_MIDDLE / 127], dtype=torch.float32, device="cpu"),
        torch.tensor([1 / 127], dtype=torch.float32, device="cpu"),
        d,
    )
    return ScalarQuantizer(range="given", per="tensor", signed=True, fitted=steps)


def _check_metric(who: str, metric: str | None, known: tuple[str, ...], of: str) -> str:
    if metric is not None and metric not in known:
        raise GpuzipError(
            f"{who}: metric must be one of {', '.join(known)} for an index of {of}; got {metric!r}."
        )
    return metric or known[0]


def _check_int8(who: str, codec: ScalarQuantizer) -> None:
    """One unit for all columns, and 0 for 0: else sums of products of the codes are not those of the rows."""
    assert codec.fitted is not None
    start, step = codec.fitted.start, codec.fitted.step
    one_unit = bool((step == step[0]).all())
    if codec.bits == 8 and codec.signed and one_unit and bool((start / step + _MIDDLE).abs().max() < 1e-3):
        return
    raise GpuzipError(
        f"{who}: {codec!r} does not hold int8 numbers in one unit. Fit ScalarQuantizer(signed=True, "
        "range=(-128.5 / 127, 127.5 / 127)), or range=(-128.5 * unit, 127.5 * unit) of another unit."
    )


def _usearch() -> Any:
    try:
        import usearch.index
    except ModuleNotFoundError as error:
        raise MissingDependencyError("usearch is not installed: pip install 'gpuzip[usearch]'.") from error
    return usearch.index
