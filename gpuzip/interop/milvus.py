"""Values of Milvus' BINARY_VECTOR, INT8_VECTOR, FLOAT16_VECTOR and BFLOAT16_VECTOR fields, and back.

No package is needed: they are what pymilvus inserts and returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuzip.codecs import Codec
from gpuzip.codecs.codes import Codes
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.interop._values import BFLOAT, BITS, HALF, INT8, codes_of, rows_of, values_of

_KINDS = (BITS, INT8, HALF, BFLOAT)
_BYTES = {BITS: 0.125, INT8: 1, HALF: 2, BFLOAT: 2}  # per dimension


def to_milvus(codes: Codes) -> list[bytes]:
    """Convert codes to the values of a vector field of Milvus.

    Parameters
    ----------
    codes : Codes
        Codes of a `BinaryQuantizer` of a multiple of 8 dimensions are for a BINARY_VECTOR, of a
        `HalfQuantizer` for a FLOAT16_VECTOR or BFLOAT16_VECTOR, and of a `ScalarQuantizer` of 8 signed bits,
        if they are multiples of one step as for `to_usearch`, for an INT8_VECTOR.

    Returns
    -------
    list of bytes
        One value per row.

    Raises
    ------
    GpuzipError
        For other codes.

    Notes
    -----
    Milvus' HAMMING is the distance that `search` finds by "hamming". Its L2, IP and COSINE of half floats are
    those of the decoded rows; of int8, those of the numbers.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.tensor([[1.0, -1, 1, 1, -1, 1, 1, 1]])
    >>> values = gpuzip.to_milvus(gpuzip.BinaryQuantizer().fit(x).encode(x))
    >>> rows = [{"id": id, "vector": value} for id, value in enumerate(values)]
    >>> rows[0]["vector"].hex()
    'b7'
    """
    who = "to_milvus"
    kind, data = values_of(who, codes, _KINDS)
    if kind == BITS and codes.codec.d % 8:
        raise GpuzipError(
            f"{who}: d must be a multiple of 8 for a BINARY_VECTOR; got {codes.codec.d}. Append zero columns "
            "to x."
        )
    return [row.tobytes() for row in data.numpy()]


def from_milvus(values: Sequence[Any], kind: str, *, codec: Codec | None = None) -> Codes:
    """Convert values of a vector field of Milvus to Codes.

    Parameters
    ----------
    values : list
        Values of the field in the rows that pymilvus returns: bytes, lists of one bytes, or arrays.
    kind : {"bit", "int8", "float16", "bfloat16"}
        What the field holds: "bit" for a BINARY_VECTOR.
    codec : Codec, optional
        The codec that made them. Default: bits decode to 1 and -1, an int8 v to v / 127, half floats to
        themselves.

    Returns
    -------
    Codes
        The codes, in the order of the values.

    Raises
    ------
    GpuzipError
        If there are no values, or the codec is not one of such values.
    FormatError
        If values have several lengths.

    Examples
    --------
    >>> import gpuzip
    >>> gpuzip.from_milvus([bytes([0xB7])], "bit").decode().tolist()
    [[1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0, 1.0]]
    """
    who = "from_milvus"
    if kind not in _KINDS:
        raise GpuzipError(f"{who}: kind must be one of {', '.join(_KINDS)}; got {kind!r}.")
    data = rows_of(who, "values", [_as_bytes(value) for value in values])
    B = data.shape[1]
    if kind in (HALF, BFLOAT) and B % 2:
        raise FormatError(f"{who}: values must have whole numbers of {kind}; got {B} bytes.")
    d = int(B / _BYTES[kind])
    return codes_of(who, kind, data, d, codec)


def _as_bytes(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value.tobytes() if isinstance(value, np.ndarray) else value
