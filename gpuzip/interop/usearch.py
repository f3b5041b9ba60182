"""Conversions between USearch indexes of int8 or bits and Codes. Needs usearch."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.extras import needs
from gpuzip.codecs import BinaryQuantizer, ScalarQuantizer
from gpuzip.codecs.codes import Codes, check_codes
from gpuzip.errors import GpuzipError
from gpuzip.interop._values import check_int8, int8, signs

_METRICS = {"cosine": "cos", "ip": "ip", "l2": "l2sq"}  # for int8


def to_usearch(codes: Codes, metric: str | None = None) -> Any:
    """Convert Codes to a usearch.index.Index with the same bytes. The keys are the row numbers.

    Parameters
    ----------
    codes : Codes
        Codes of a `BinaryQuantizer` become a "b1" index with metric "hamming"; add and search
        `codec.encode(x).data`. Codes of a `ScalarQuantizer` become an "i8" index if all values are int8
        multiples of one step: made with symmetric=True, signed=True, per="tensor", or for rows of norm 1 with
        signed=True, range=(-128.5 / 127, 127.5 / 127).
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
    USearch's distances are 1 - cosine, and 1 - inner product or squared distance of the int8 numbers. It
    quantizes a float query like a row: x / |x| * 127, truncated. `Codes.search` scores the float query
    itself.
    """
    who = "to_usearch"
    usearch = require_usearch()
    codec, data = check_codes(who, codes).codec, codes.packed.data[:].cpu().numpy()
    codec.check_unrotated(who)
    if isinstance(codec, BinaryQuantizer):
        _check_metric(who, metric, ("hamming",), "bits")
        index = usearch.Index(ndim=codec.d, metric="hamming", dtype="b1")
    elif isinstance(codec, ScalarQuantizer):
        check_int8(who, codec)
        known = _METRICS[_check_metric(who, metric, tuple(_METRICS), "int8")]
        index, data = usearch.Index(ndim=codec.d, metric=known, dtype="i8"), data.view(np.int8)
    else:
        raise GpuzipError(
            f"{who}: codes must be of a BinaryQuantizer or of "
            f"ScalarQuantizer(signed=True, range=(-128.5 / 127, 127.5 / 127)); got {type(codec).__name__}."
        )
    if len(codes):
        index.add(np.arange(len(codes)), data)
    return index


@overload
def from_usearch(index: Any, *, return_keys: Literal[False] = ...) -> Codes: ...


@overload
def from_usearch(index: Any, *, return_keys: Literal[True]) -> tuple[Codes, Tensor]: ...


def from_usearch(index: Any, *, return_keys: bool = False) -> Codes | tuple[Codes, Tensor]:
    """Convert a USearch index of "i8" or "b1" to Codes with the same bytes, in ascending order of keys.

    Parameters
    ----------
    index : usearch.index.Index
        An index of dtype "i8" or "b1".
    return_keys : bool, default False
        Whether to return the keys of the rows too.

    Returns
    -------
    Codes
        An int8 v decodes to v / 127, the value of the added row over its norm. Bits decode to 1 and -1.
    keys : (N,) int64 tensor
        USearch's key of each row, if return_keys is True. Keys of 2**63 and more, which are uint64, come as
        negative numbers.

    Raises
    ------
    GpuzipError
        For another dtype, and for an index with several vectors per key.
    """
    who = "from_usearch"
    usearch = require_usearch()
    if not isinstance(index, usearch.Index):
        raise GpuzipError(f"{who}: index must be a usearch.index.Index; got {type(index).__name__}.")
    kind = index.dtype.name.lower()
    if kind not in ("i8", "b1"):
        raise GpuzipError(
            f"{who}: the index must hold i8 or b1; got {kind}. Encode its vectors with a codec."
        )
    if index.multi:
        raise GpuzipError(f"{who}: the index must hold one vector per key; got one with multi=True.")
    codec = signs(index.ndim) if kind == "b1" else int8(index.ndim)
    keys = np.sort(np.array(index.keys[: len(index)], np.uint64))
    codes = Codes(codec, _vectors(index, keys, codec.code_size))
    return (codes, torch.from_numpy(keys.view(np.int64))) if return_keys else codes


def _vectors(index: Any, keys: np.ndarray[Any, Any], B: int) -> Tensor:
    """Return the (N, B) uint8 rows of these keys."""
    if len(keys) == 0:
        return torch.empty((0, B), dtype=torch.uint8, device="cpu")
    return torch.from_numpy(np.vstack(index.get(keys)).view(np.uint8))


def _check_metric(who: str, metric: str | None, known: tuple[str, ...], of: str) -> str:
    if metric is not None and metric not in known:
        raise GpuzipError(
            f"{who}: metric must be one of {', '.join(known)} for an index of {of}; got {metric!r}."
        )
    return metric or known[0]


def require_usearch() -> Any:
    with needs("usearch", "usearch"):
        import usearch.index
    return usearch.index
