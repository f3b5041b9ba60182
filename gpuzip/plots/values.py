"""Checks of the numbers, bytes, bits and points to draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.rows import Matrix
from gpuzip.codecs import BinaryQuantizer, ScalarQuantizer
from gpuzip.codecs.codes import Codes
from gpuzip.errors import DtypeError, GpuzipError
from gpuzip.rotations.spectrum import variances

Values = Matrix | Codes | Sequence[Any]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class CodecRecall:
    """Hold a codec's point for `recall_against_bytes`.

    Parameters
    ----------
    name : str
        Name beside the point.
    family : str
        Points of a family share a marker and a line.
    nbytes : float
        Bytes per vector.
    recall : float
        Recall from 0 to 1, such as `gpuzip.recall` returns.
    """

    name: str
    family: str
    nbytes: float
    recall: float


def numeric(who: str, name: str, v: Values) -> Array:
    """Return (D,) or (N, D) finite numbers of any dtype as an array."""
    if isinstance(v, Codes):
        v = v.decode(torch.float32)
    if isinstance(v, Tensor):
        v = v.detach().cpu()
        v = v.float() if v.dtype == torch.bfloat16 else v
    try:
        values = np.asarray(v)
    except (TypeError, ValueError, RuntimeError) as error:
        raise GpuzipError(f"{who}: {name} must be a vector or matrix of numbers: {error}") from error
    if values.dtype.name == "bfloat16":
        values = values.astype(np.float32)
    if values.dtype.kind not in "biuf":
        raise DtypeError(f"{who}: {name} must be real numbers; got {values.dtype}. Convert it.")
    if values.ndim not in (1, 2):
        raise GpuzipError(
            f"{who}: {name} must be (D,) or (N, D); got shape {values.shape}. Pass one vector or one matrix."
        )
    if not values.size:
        raise GpuzipError(f"{who}: {name} must have at least one value; got shape {values.shape}.")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise GpuzipError(
            f"{who}: {name} holds NaN or inf ({bad} of {values.size} values). Drop or replace them."
        )
    return values


def matrix(who: str, name: str, v: Values) -> Array:
    """Return (N, D) finite numbers as float64. Raises GpuzipError for a vector."""
    values = numeric(who, name, v)
    if values.ndim != 2:
        raise GpuzipError(f"{who}: {name} must be (N, D); got shape {values.shape}. Pass rows, x[None].")
    return values.astype(np.float64)


def unit_variances(who: str, name: str, v: Values) -> Tensor:
    """Return (D,) float64: the variances of the rows, scaled to length 1, along principal directions."""
    rows = torch.from_numpy(matrix(who, name, v))
    return variances(torch.nn.functional.normalize(rows, dim=1))


def one_row(who: str, values: Array) -> Array:
    """Return a vector (D,) from (D,) or (1, D). Raises GpuzipError for more rows."""
    if values.ndim == 2 and len(values) > 1:
        raise GpuzipError(f"{who}: v must be one vector; got shape {values.shape}. Pass one row, v[0].")
    return values.ravel()


def bytes_of(who: str, name: str, codes: Values) -> Array:
    """Return integers of one byte, in the shape of the values that they encode."""
    if isinstance(codes, Codes):
        codec = codes.codec
        if not isinstance(codec, ScalarQuantizer) or codec.bits != 8:
            raise GpuzipError(f"{who}: {name} must be of an 8-bit ScalarQuantizer; got codes of {codec!r}.")
        codec.check_unrotated(who)
        codes = codes.packed.data.view(torch.int8) if codec.signed else codes.packed.data
    numbers = numeric(who, name, codes)
    least, most = numbers.min(), numbers.max()
    one_byte = (least >= 0 and most <= 255) or (least >= -128 and most <= 127)
    if numbers.dtype.kind not in "iu" or not one_byte:
        raise GpuzipError(
            f"{who}: {name} must be integers of one byte; got {numbers.dtype} from {least} to "
            f"{most}. Pass Codes of an 8-bit ScalarQuantizer, or uint8 or int8."
        )
    return numbers


def bits_of(who: str, name: str, bits: Values) -> Array:
    """Return True for bit 1, in the shape of the values that the bits encode."""
    if isinstance(bits, Codes):
        if not isinstance(bits.codec, BinaryQuantizer):
            raise GpuzipError(f"{who}: {name} must be of a BinaryQuantizer; got codes of {bits.codec!r}.")
        bits.codec.check_unrotated(who)
        data = bits.packed.data.cpu().numpy()
        bits = np.unpackbits(data, axis=1, count=bits.codec.d)
    values = numeric(who, name, bits)
    if not ((values == 0) | (values == 1)).all():
        raise GpuzipError(
            f"{who}: {name} must be 0 and 1; got values from {values.min()} to {values.max()}. "
            "Pass Codes of a BinaryQuantizer, or unpack the bits with numpy.unpackbits."
        )
    ones: Array = values == 1
    return ones


def check_same(who: str, name: str, values: Array, other_name: str, others: Array) -> None:
    """Raise GpuzipError unless the shapes are equal. A vector counts as a matrix of one row."""
    if np.atleast_2d(values).shape != np.atleast_2d(others).shape:
        raise GpuzipError(
            f"{who}: {name} and {other_name} must have one shape; got {values.shape} and "
            f"{others.shape}. Pass the same rows."
        )


def counted(who: str, values: Array, bins: int | str | Sequence[float]) -> tuple[Array, Array]:
    """Return the counts and edges of a histogram, with bins of whole width for integers."""
    if isinstance(bins, int) and bins > 0 and values.dtype.kind in "biu":
        bins = whole_edges(values, bins).tolist()
    try:
        return np.histogram(values.astype(np.float64), bins)
    except (TypeError, ValueError) as error:
        raise GpuzipError(
            f"{who}: bins must be what numpy.histogram takes; got {bins!r}: {error}. Pass an int above 0."
        ) from error


def whole_edges(numbers: Array, most: int) -> Array:
    """Return the edges of at most `most` bins of one whole width, halfway between numbers."""
    low, high = int(numbers.min()), int(numbers.max())
    width = -(-(high - low + 1) // most)
    count = -(-(high - low + 1) // width)
    return low - 0.5 + width * np.arange(count + 1)


def listed(who: str, rows: Iterable[CodecRecall | Mapping[str, Any]]) -> list[Any]:
    """Return rows as a list. Raises GpuzipError for another object or an empty one."""
    listed = list(rows) if isinstance(rows, Iterable) and not isinstance(rows, str | Mapping) else []
    if not listed:
        raise GpuzipError(
            f"{who}: rows must be a list of at least one CodecRecall or mapping; got an empty "
            f"{type(rows).__name__}."
        )
    return listed


def as_point(who: str, row: CodecRecall | Mapping[str, Any]) -> CodecRecall:
    """Return a CodecRecall or a mapping of its fields as a checked CodecRecall."""
    names = [field.name for field in fields(CodecRecall)]
    if isinstance(row, Mapping):
        if set(row) != set(names):
            raise GpuzipError(f"{who}: a row must have {', '.join(names)}; got {sorted(map(str, row))}.")
        row = CodecRecall(**row)
    if not isinstance(row, CodecRecall):
        raise GpuzipError(
            f"{who}: a row must be a CodecRecall or a mapping of {', '.join(names)}; got {row!r}."
        )
    try:
        nbytes, recall = float(row.nbytes), float(row.recall)
    except (TypeError, ValueError):
        nbytes = recall = np.nan
    if not (0 < nbytes < np.inf and 0 <= recall <= 1):
        raise GpuzipError(
            f"{who}: {row.name!r} must have bytes above 0 and a recall from 0 to 1; got "
            f"{row.nbytes!r} and {row.recall!r}. Pass gpuzip.recall(ids, truth)."
        )
    return CodecRecall(str(row.name), str(row.family), nbytes, recall)
