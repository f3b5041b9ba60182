"""Makes sentence-transformers' quantized arrays, byte for byte, and converts them to and from Codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.rows import BLOCK_BYTES, Matrix
from gpuzip.codecs import BinaryQuantizer, ScalarQuantizer
from gpuzip.codecs.binary import Halves, mirrored
from gpuzip.codecs.codes import Codes, check_codes
from gpuzip.codecs.scalar import Steps
from gpuzip.errors import DtypeError, GpuzipError
from gpuzip.interop.sentence_transformers.inputs import (
    as_bytes,
    checked_ranges,
    dtype_name,
    floats,
    limits_of,
    stacked,
)
from gpuzip.ops import bucketize_packed, scalar_encode

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
SCALAR = ("int8", "uint8")
_SIGNED = ("int8", "binary")  # computed as uint8, then the highest bit of every byte is flipped


def quantize_embeddings(
    embeddings: Any, precision: str, ranges: Any = None, calibration_embeddings: Any = None
) -> Any:
    """Quantize embeddings to the same bytes as sentence-transformers' function of this name.

    Not to be confused with `gpuzip.quantize`, which compresses and decodes a matrix, and
    `gpuzip.nn.quantize_embeddings_`, which compresses the tables of a model in place.

    Parameters
    ----------
    embeddings : (N, D) or (D,) float array or tensor, or list
        On any device. A list of rows is stacked. Matrices in a list share their ranges and give a list.
        Arithmetic is float32, or float64 for float64.
    precision : {"float32", "int8", "uint8", "binary", "ubinary"}
        "int8" and "uint8" divide each column's range into 255 steps. "binary" and "ubinary" store one bit,
        value > 0, in (N, ceil(D / 8)) bytes.
    ranges : (2, D) array, optional
        Minimum and maximum of every column, for "int8" and "uint8".
    calibration_embeddings : (n, D) array, optional
        Rows to take the ranges from if `ranges` is None. Without both, the embeddings give the ranges, with a
        warning below 100 rows.

    Returns
    -------
    array, tensor or list
        An array for arrays, and a tensor on the same device for tensors, where sentence-transformers returns
        an array.

    Raises
    ------
    DtypeError
        If the embeddings are not floats.
    GpuzipError
        For NaN, another shape, an unknown precision, or a single embedding without ranges for "int8" and
        "uint8".

    Notes
    -----
    Source: sentence-transformers 6.2.

    Examples
    --------
    >>> import gpuzip, numpy as np
    >>> x = np.array([[1, -1, 1, 1, -1, 1, 1, 1]], dtype=np.float32)
    >>> gpuzip.quantize_embeddings(x, "ubinary")
    array([[183]], dtype=uint8)
    """
    who = "quantize_embeddings"
    if precision not in PRECISIONS:
        raise GpuzipError(f"{who}: precision must be one of {', '.join(PRECISIONS)}; got {precision!r}.")
    if isinstance(embeddings, list) and not embeddings:
        return []
    several = isinstance(embeddings, list) and getattr(embeddings[0], "ndim", 0) == 2
    given = embeddings if several else [stacked(who, "embeddings", embeddings)]
    parts = [floats(who, "embeddings", part) for part in given]
    scaled = precision in SCALAR
    limits = limits_of(who, precision, parts, ranges, calibration_embeddings) if scaled else None
    out = [_like(part, _quantized(x, precision, limits)) for part, x in zip(given, parts, strict=True)]
    return out if several else out[0]


def from_sentence_transformers(
    array: Any, precision: str | None = None, ranges: Any = None, d: int | None = None
) -> Codes:
    """Convert an array of sentence-transformers' or gpuzip's `quantize_embeddings` to Codes.

    Parameters
    ----------
    array : (N, D) or (N, ceil(D / 8)) int8 or uint8
        The quantized embeddings. Wider integers, which Hugging Face's datasets hand back, are cast if they
        are bytes.
    precision : {"int8", "uint8", "binary", "ubinary"}, optional
        Precision of the array. Not needed if dtype, d and ranges fit only one.
    ranges : (2, D) array, optional
        Minimum and maximum of every column, for "int8" and "uint8".
    d : int, optional
        Columns of the source rows of bits. Default: 8 per byte.

    Returns
    -------
    Codes
        "int8" and "uint8" become codes of a `ScalarQuantizer`, which decode to the middle of their step. int8
        is stored as uint8, plus 128, which is faster to search. Bits become codes of a `BinaryQuantizer`,
        which decode to 1 and -1.

    Raises
    ------
    DtypeError
        For another dtype.
    GpuzipError
        For arguments that do not fit, or a precision that cannot be inferred.

    Examples
    --------
    >>> import gpuzip, numpy as np
    >>> gpuzip.from_sentence_transformers(np.array([[183]], dtype=np.uint8), "ubinary").shape
    (1, 8)
    """
    who = "from_sentence_transformers"
    return codes_of(who, "array", stacked(who, "array", array), precision, ranges, d)


def to_sentence_transformers(codes: Codes, precision: str) -> np.ndarray[Any, Any]:
    """Convert Codes to the array that sentence-transformers' `quantize_embeddings` makes.

    Parameters
    ----------
    codes : Codes
        What to convert.
    precision : {"int8", "uint8", "binary", "ubinary", "float32"}
        "int8" or "uint8" for an 8-bit `ScalarQuantizer`, "binary" or "ubinary" for a `BinaryQuantizer`,
        "float32" for the decoded rows of any codec.

    Returns
    -------
    numpy.ndarray
        (N, D) bytes or floats, or (N, ceil(D / 8)) bytes of bits.

    Raises
    ------
    GpuzipError
        If the codec does not have this precision.
    """
    who = "to_sentence_transformers"
    codec = check_codes(who, codes).codec
    if precision not in PRECISIONS:
        raise GpuzipError(f"{who}: precision must be one of {', '.join(PRECISIONS)}; got {precision!r}.")
    if precision == "float32":
        return _numpy(codes.decode(torch.float32))
    codec.check_unrotated(who)
    if isinstance(codec, ScalarQuantizer) and codec.bits == 8 and precision in SCALAR:
        held_signed = codec.signed
    elif isinstance(codec, BinaryQuantizer) and precision not in SCALAR:
        held_signed = False
    else:
        raise GpuzipError(
            f"{who}: codes of {codec!r} have no {precision}. ScalarQuantizer(bits=8) has int8 and uint8, "
            "BinaryQuantizer has binary and ubinary; float32 decodes any codes."
        )
    turned = held_signed != (precision in _SIGNED)
    data = _numpy(codes.packed.data ^ 0x80 if turned else codes.packed.data)
    return data.view(np.int8) if precision in _SIGNED else data


def _quantized(x: Tensor, precision: str, limits: Tensor | None) -> Tensor:
    if x.ndim == 1:
        return _quantized(x[None], precision, limits)[0]
    if precision == "float32":
        return x.to(torch.float32, copy=True)
    convert: Callable[[Tensor], Tensor] = _bits
    if limits is not None:
        start, step, _ = (t.to(x.device) for t in _steps(limits))
        convert = lambda block: _numbers(block, start, step)  # noqa: E731
    if precision in SCALAR and limits is None:  # there are no rows
        return x.new_empty(x.shape, dtype=getattr(torch, precision))
    rows = max(1, (BLOCK_BYTES if x.device.type == "cpu" else 1 << 30) // (8 * x.shape[1]))
    data = torch.cat([convert(x[at : at + rows]) for at in range(0, max(1, len(x)), rows)])
    return data.bitwise_xor_(0x80).view(torch.int8) if precision in _SIGNED else data


def _bits(x: Tensor) -> Tensor:
    if x.device.type == "cpu":
        values = x.float() if x.dtype == torch.bfloat16 else x
        return torch.from_numpy(np.packbits(values.numpy() > 0, axis=1))
    return _bits_on_gpu(x)


def _bits_on_gpu(x: Tensor) -> Tensor:
    if x.dtype == torch.float64:  # float32 would round the smallest values to 0
        x = (x > 0).half()
    return mirrored(bucketize_packed(x, x.new_zeros((1, 1), dtype=torch.float32), 1))


def _numbers(x: Tensor, start: Tensor, step: Tensor) -> Tensor:
    if x.dtype == torch.float64:
        return ((x - start) / step).floor_().clamp_(0, 255).to(torch.uint8)
    return scalar_encode(x, start, step, 255)


def _steps(limits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return start and step of 255 steps, (D,) float32, and which columns are constant. Their step is 1."""
    step = (limits[1] - limits[0]) / 255  # on a CPU: a GPU would multiply by 1 / 255
    constant = step == 0
    return limits[0], torch.where(constant, 1.0, step), constant


def codes_of(who: str, name: str, array: Matrix, precision: str | None, ranges: Any, d: int | None) -> Codes:
    array = as_bytes(who, name, array, precision)
    if dtype_name(array) not in SCALAR:
        raise DtypeError(
            f"{who}: {name} must be int8 or uint8; got {dtype_name(array)}. Make it with quantize_embeddings."
        )
    if array.ndim != 2 or array.shape[1] == 0:
        raise GpuzipError(f"{who}: {name} must be 2-D (N, B); got shape {tuple(array.shape)}.")
    data = array if isinstance(array, Tensor) else torch.from_numpy(np.require(array, None, ["C", "W"]))
    precision = _precision(who, name, array, precision, ranges is not None, d)
    data = data.view(torch.uint8) ^ 0x80 if precision in _SIGNED else data
    B = data.shape[1]
    if precision not in SCALAR:
        levels = (
            torch.tensor([[-1.0], [1.0]], dtype=torch.float32, device=data.device)
            .expand(2, d or 8 * B)
            .contiguous()
        )
        halves = Halves(torch.zeros(1, device=data.device, dtype=torch.float32), levels)
        return Codes(BinaryQuantizer(levels="sign", fitted=halves), data)
    if ranges is None:
        raise GpuzipError(
            f"{who}: {name} of {precision} cannot be decoded without ranges. Pass the (2, D) minima and "
            "maxima "
            "of columns that it was made with."
        )
    start, step, constant = _steps(checked_ranges(who, ranges, B))
    start = torch.where(constant, start - 0.5, start)  # code 0 then decodes to the constant
    steps = Steps(start.to(data.device), step.to(data.device), B)
    return Codes(ScalarQuantizer(range="given", steps=255, fitted=steps), data)


def _precision(who: str, name: str, array: Matrix, precision: str | None, scaled: bool, d: int | None) -> str:
    """Return the named precision, or the only one that fits. Raises GpuzipError."""
    kind, B = dtype_name(array), array.shape[1]
    scalar, binary = (kind, "binary" if kind == "int8" else "ubinary")
    if precision not in (None, scalar, binary):
        raise GpuzipError(
            f"{who}: precision must be {scalar!r} or {binary!r} for {name} of {kind}; got {precision!r}."
        )
    fits = {scalar: d in (None, B), binary: d is None or -(-d // 8) == B}
    if scaled and precision is None and fits[scalar]:
        return scalar
    left = [one for one in fits if fits[one] and precision in (None, one)]
    if not left:
        raise GpuzipError(
            f"{who}: {name} must have {d} columns for {scalar} or {-(-(d or 0) // 8)} for {binary}, as "
            f"d={d}; "
            f"got {B} columns of {kind}."
        )
    if len(left) > 1:
        raise GpuzipError(
            f"{who}: {name} of {kind} may be {scalar} or {binary}. Pass precision, or the ranges of {scalar}."
        )
    return left[0]


def _like(given: Any, out: Tensor) -> Any:
    return out if isinstance(given, Tensor) else out.numpy()


def _numpy(x: Tensor) -> np.ndarray[Any, Any]:
    copied: np.ndarray[Any, Any] = np.array(x.cpu().numpy())
    return copied
