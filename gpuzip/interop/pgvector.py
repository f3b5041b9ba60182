"""Values of pgvector's `bit` and `halfvec` columns as text, in binary and as a COPY stream, and back.

Any driver sends and returns them; no package is needed. Sources: bit_send and halfvec_send of the server, and
"Binary Format" on PostgreSQL's page about COPY.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from gpuzip.codecs import Codec
from gpuzip.codecs.codes import Codes
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.interop._values import BITS, HALF, codes_of, values_of

_KINDS = {BITS: "bit", HALF: "halfvec"}
_VALUES = {"bit": BITS, "halfvec": HALF}
_FORMATS = ("text", "binary", "copy")
_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # no flags, and an extension of 0 bytes
_TRAILER = b"\xff\xff"
_MOST_DIMS = 16_000  # of a halfvec
_BLOCK = 1 << 22  # bytes per block of a COPY stream
_MOST_FIELDS = 2

_Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def to_pgvector(codes: Codes, *, format: str = "text", ids: Any = None) -> Any:
    """Convert codes to values of a pgvector column: `bit(D)` or `halfvec(D)`.

    Parameters
    ----------
    codes : Codes
        Codes of a `BinaryQuantizer` become bits, the first dimension first. Codes of a `HalfQuantizer` of
        float16 become halfvecs.
    format : {"text", "binary", "copy"}, default "text"
        "text": a str per row, for INSERT. "binary": bytes per row, as drivers send binary parameters. "copy":
        the blocks of a stream for `COPY t (embedding) FROM STDIN (FORMAT BINARY)`.
    ids : (N,) ints, optional
        Ids for a bigint column before the values, for "copy": `COPY t (id, embedding) FROM STDIN ...`.

    Returns
    -------
    list of str, list of bytes, or iterator of bytes
        One value per row, or the blocks of the stream.

    Raises
    ------
    GpuzipError
        For other codes, for more than 16,000 dimensions of a halfvec, or for ids that do not fit.

    Notes
    -----
    `a <~> b` of bits is the distance that `search` finds by "hamming". For halfvecs, up to rounding, `<->` is
    the root of that by "l2", `<#>` is minus that by "ip", and `<=>` is 1 minus that by "cosine".

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.tensor([[1.0, -1, 0.5]])
    >>> gpuzip.to_pgvector(gpuzip.BinaryQuantizer().fit(x).encode(x))
    ['101']
    >>> gpuzip.to_pgvector(gpuzip.HalfQuantizer().fit(x).encode(x))
    ['[1.0,-1.0,0.5]']
    """
    who = "to_pgvector"
    if format not in _FORMATS:
        raise GpuzipError(f"{who}: format must be one of {', '.join(_FORMATS)}; got {format!r}.")
    kind, data = values_of(who, codes, tuple(_KINDS))
    d = codes.codec.d
    if kind == HALF and d > _MOST_DIMS:
        raise GpuzipError(f"{who}: a halfvec must have at most {_MOST_DIMS} dimensions; got {d}.")
    if ids is not None and format != "copy":
        raise GpuzipError(f"{who}: ids must be None for format={format!r}. Pass them to your INSERT.")
    rows = data.numpy()
    if format == "text":
        return _bit_texts(rows, d) if kind == BITS else _half_texts(rows)
    if format == "binary":
        return [row.tobytes() for row in _binary(kind, rows, d)]
    return _copy(kind, rows, d, None if ids is None else _checked_ids(who, ids, len(rows)))


def from_pgvector(values: Any, kind: str, *, codec: Codec | None = None, return_ids: bool = False) -> Any:
    """Convert values of a pgvector column to Codes.

    Parameters
    ----------
    values : list of str, list of bytes, or bytes
        Values of a column as a driver returns them, in text or binary format, or as objects of the package
        pgvector. Or a whole stream of `COPY ... TO STDOUT (FORMAT BINARY)` of the column, or of a bigint
        column and the column.
    kind : {"bit", "halfvec"}
        Type of the column.
    codec : Codec, optional
        The codec that made them. Default: bits decode to 1 and -1, halfvecs to themselves.
    return_ids : bool, default False
        Whether to return the bigint column of a stream too.

    Returns
    -------
    Codes
        The codes, in the order of the values.
    ids : (N,) int64 tensor
        If return_ids is True.

    Raises
    ------
    GpuzipError
        If there are no values, or the codec is not one of such values.
    FormatError
        If values are damaged, or have several lengths.

    Examples
    --------
    >>> import gpuzip
    >>> codes = gpuzip.from_pgvector(["101", "011"], "bit")
    >>> codes.decode().tolist()
    [[1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]]
    """
    who = "from_pgvector"
    if kind not in _VALUES:
        raise GpuzipError(f"{who}: kind must be 'bit' or 'halfvec'; got {kind!r}.")
    ids = None
    if isinstance(values, bytes | bytearray | memoryview):
        cells, ids = _of_copy(who, np.frombuffer(values, np.uint8))
        rows, d = _of_binary(who, kind, cells)
    else:
        rows, d = _of_values(who, kind, values)
    codes = codes_of(who, _VALUES[kind], torch.from_numpy(rows), d, codec)
    if not return_ids:
        return codes
    if ids is None:
        raise GpuzipError(
            f"{who}: return_ids must be False for values without ids. Pass a stream of COPY (id, embedding)."
        )
    return codes, torch.from_numpy(ids)


def _bit_texts(rows: _Bytes, d: int) -> list[str]:
    digits = np.unpackbits(rows, axis=1, count=d) + np.uint8(ord("0"))
    return [row.tobytes().decode() for row in digits]


def _half_texts(rows: _Bytes) -> list[str]:
    return [f"[{','.join(map(str, row))}]" for row in rows.view(np.float16).tolist()]


def _binary(kind: str, rows: _Bytes, d: int) -> _Bytes:
    """(N, 4 + B): a header and the bits, or the values with their highest byte first."""
    header = np.array([d] if kind == BITS else [d << 16], ">i4").view(np.uint8)
    values = rows if kind == BITS else rows.view("<u2").byteswap().view(np.uint8)
    return np.hstack([np.broadcast_to(header, (len(rows), 4)), values])


def _copy(kind: str, rows: _Bytes, d: int, ids: np.ndarray[Any, Any] | None) -> Iterator[bytes]:
    fields = _MOST_FIELDS - (ids is None)
    yield _SIGNATURE
    step = max(1, _BLOCK // (rows.shape[1] + 22))
    for at in range(0, len(rows), step):
        cells = _binary(kind, rows[at : at + step], d)
        parts = [_repeated(fields, ">i2", len(cells))]
        if ids is not None:
            parts += [
                _repeated(8, ">i4", len(cells)),
                ids[at : at + step].astype(">i8").view(np.uint8).reshape(-1, 8),
            ]
        parts += [_repeated(cells.shape[1], ">i4", len(cells)), cells]
        yield np.hstack(parts).tobytes()
    yield _TRAILER


def _repeated(number: int, dtype: str, n: int) -> _Bytes:
    one = np.array([number], dtype).view(np.uint8)
    return np.broadcast_to(one, (n, len(one)))


def _checked_ids(who: str, ids: Any, n: int) -> np.ndarray[Any, Any]:
    found = np.asarray(ids.cpu() if isinstance(ids, torch.Tensor) else ids)
    if found.shape != (n,) or found.dtype.kind not in "iu" or (n and found.max() > np.iinfo(np.int64).max):
        raise GpuzipError(
            f"{who}: ids must be {n} whole numbers of 64 bits, one per row; got shape {found.shape} "
            f"of {found.dtype}."
        )
    return found.astype(np.int64)


def _of_copy(who: str, stream: _Bytes) -> tuple[_Bytes, np.ndarray[Any, Any] | None]:
    """The (N, size) cells of the last column of a stream, and the ids of a column before it."""
    head, body = stream[:19].tobytes(), stream[19:-2]
    if head != _SIGNATURE or stream[-2:].tobytes() != _TRAILER:
        raise FormatError(
            f"{who}: the stream must be one of COPY in binary format, from its signature to its trailer; got "
            f"{len(stream)} bytes from {head[:11]!r}. Join all blocks that the driver returns."
        )
    if not len(body):
        raise GpuzipError(f"{who}: values must have at least one row, whose length is known; got none.")
    fields = int(body[:2].view(">i2")[0])
    before = 2 + 12 * (fields - 1)  # fields, then a length and a bigint
    if fields not in (1, _MOST_FIELDS) or len(body) < before + 4:
        raise FormatError(
            f"{who}: the stream must have 1 or 2 columns; got {fields}. COPY t (id, embedding)."
        )
    size = int(body[before : before + 4].view(">i4")[0])
    width = before + 4 + max(size, 0)
    rows = body[: len(body) // width * width].reshape(-1, width)
    heads = np.hstack(
        [rows[:, :2], rows[:, 2:6] if fields > 1 else rows[:, :0], rows[:, before : before + 4]]
    )
    if size < 0 or len(body) % width or bool((heads != heads[0]).any()):
        raise FormatError(f"{who}: all rows of the stream must have values of one length, without NULL.")
    if fields == 1:
        return rows[:, before + 4 :], None
    if rows[0, 2:6].tobytes() != b"\0\0\0\x08":
        raise FormatError(
            f"{who}: the first of two columns must be a bigint. Cast it: COPY (SELECT id::bigint, e ...)."
        )
    return rows[:, before + 4 :], np.ascontiguousarray(rows[:, 6:14]).view(">i8")[:, 0].astype(np.int64)


def _of_values(who: str, kind: str, values: Sequence[Any]) -> tuple[_Bytes, int]:
    cells = [value.to_binary() if hasattr(value, "to_binary") else value for value in values]
    if not cells:
        raise GpuzipError(f"{who}: values must have at least one row, whose length is known; got none.")
    if all(isinstance(cell, str) for cell in cells):
        return _of_texts(who, kind, cells)
    if not all(isinstance(cell, bytes | bytearray | memoryview) for cell in cells):
        wrong = next(
            cell for cell in cells if not isinstance(cell, type(cells[0])) or not isinstance(cell, str)
        )
        raise GpuzipError(
            f"{who}: values must all be str, or all bytes; got {type(wrong).__name__}. Leave out rows "
            "that are NULL."
        )
    _check_lengths(who, cells)
    return _of_binary(who, kind, np.frombuffer(b"".join(cells), np.uint8).reshape(len(cells), -1))


def _of_texts(who: str, kind: str, texts: list[str]) -> tuple[_Bytes, int]:
    if kind == "bit":
        _check_lengths(who, texts)
        digits = np.frombuffer("".join(texts).encode("ascii", "replace"), np.uint8).reshape(len(texts), -1)
        bits = digits - np.uint8(ord("0"))
        if bool((bits > 1).any()):
            raise FormatError(f"{who}: text of bits must be zeros and ones; got {texts[0][:20]!r}.")
        return np.packbits(bits, axis=1), bits.shape[1]
    try:
        rows = [np.array(text.strip().strip("[]").split(","), np.float32) for text in texts]
    except ValueError as error:
        raise FormatError(f"{who}: text of a halfvec must be as '[1,2.5]': {error}.") from error
    _check_lengths(who, rows)
    exact = np.stack(rows)
    halves = exact.astype(np.float16)
    if bool((halves != exact).any()):
        raise FormatError(
            f"{who}: text of a halfvec must hold values of float16; got others. Is it a vector?"
        )
    return halves.view(np.uint8), exact.shape[1]


def _of_binary(who: str, kind: str, cells: _Bytes) -> tuple[_Bytes, int]:
    header, values = cells[:, :4], np.ascontiguousarray(cells[:, 4:])
    first = int.from_bytes(header[0].tobytes(), "big")
    d = first if kind == "bit" else first >> 16
    needed = -(-d // 8) if kind == "bit" else 2 * d
    if (
        d < 1
        or values.shape[1] != needed
        or bool((header != header[0]).any())
        or (kind != "bit" and first & 0xFFFF)
    ):
        raise FormatError(
            f"{who}: values must be {kind} of one number of dimensions, in binary format; got "
            f"{cells.shape[1]} bytes that begin with {header[0].tobytes()!r}."
        )
    return (values if kind == "bit" else values.view("<u2").byteswap().view(np.uint8)), d


def _check_lengths(who: str, values: Sequence[Any]) -> None:
    lengths = {len(value) for value in values}
    if len(lengths) > 1 or 0 in lengths:
        raise FormatError(f"{who}: values must have one length; got {sorted(lengths)[:9]}.")
