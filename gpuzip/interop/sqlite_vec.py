"""Blobs for sqlite-vec's `bit` and `int8` columns, and back. No package is needed."""

from __future__ import annotations

from collections.abc import Sequence

from gpuzip.codecs import Codec
from gpuzip.codecs.binary import mirrored
from gpuzip.codecs.codes import Codes
from gpuzip.errors import GpuzipError
from gpuzip.interop._values import BITS, INT8, codes_of, rows_of, values_of

_KINDS = (BITS, INT8)


def to_sqlite_vec(codes: Codes) -> list[bytes]:
    """Convert codes to the blobs of a vec0 column: `bit[D]` or `int8[D]`.

    Parameters
    ----------
    codes : Codes
        Codes of a `BinaryQuantizer` of a multiple of 8 dimensions become bits. Codes of a `ScalarQuantizer`
        of 8 signed bits become int8, if they are multiples of one step, as for `to_usearch`.

    Returns
    -------
    list of bytes
        One blob per row. Insert it as `vec_bit(?)` or `vec_int8(?)`.

    Raises
    ------
    GpuzipError
        For other codes.

    Notes
    -----
    sqlite-vec keeps the first dimension of each byte in its lowest bit, as `vec_quantize_binary` makes it:
    blobs hold the bytes of the codes with their bits in reverse order. `vec_distance_hamming` is the distance
    that `search` finds by "hamming". Distances of int8 are those of the numbers: `vec_distance_l2` times the
    step is the root of that by "l2", and `vec_distance_cosine` is 1 minus that by "cosine".

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.tensor([[1.0, -1, 1, 1, -1, 1, 1, 1]])
    >>> gpuzip.to_sqlite_vec(gpuzip.BinaryQuantizer().fit(x).encode(x))[0].hex()
    'ed'
    """
    who = "to_sqlite_vec"
    kind, data = values_of(who, codes, _KINDS)
    if kind == BITS:
        if codes.codec.d % 8:
            raise GpuzipError(
                f"{who}: d must be a multiple of 8 for a bit column; got {codes.codec.d}. Append zero "
                "columns to x."
            )
        data = mirrored(data)
    return [row.tobytes() for row in data.numpy()]


def from_sqlite_vec(blobs: Sequence[bytes], kind: str, *, codec: Codec | None = None) -> Codes:
    """Convert blobs of a vec0 column to Codes.

    Parameters
    ----------
    blobs : list of bytes
        Values of the column, as SQLite returns them.
    kind : {"bit", "int8"}
        Type of the column.
    codec : Codec, optional
        The codec that made them. Default: bits decode to 1 and -1, and an int8 v to v / 127.

    Returns
    -------
    Codes
        The codes, in the order of the blobs.

    Raises
    ------
    GpuzipError
        If there are no blobs, or the codec is not one of such values.
    FormatError
        If blobs have several lengths.

    Examples
    --------
    >>> import gpuzip
    >>> gpuzip.from_sqlite_vec([bytes([0xED])], "bit").decode().tolist()
    [[1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0, 1.0]]
    """
    who = "from_sqlite_vec"
    if kind not in _KINDS:
        raise GpuzipError(f"{who}: kind must be 'bit' or 'int8'; got {kind!r}.")
    data = rows_of(who, "blobs", blobs)
    if kind == BITS:
        data = mirrored(data)
    return codes_of(who, kind, data, data.shape[1] * (8 if kind == BITS else 1), codec)
