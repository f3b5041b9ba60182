"""Columns of codes in Arrow tables, and so in Parquet and Feather files. Needs pyarrow."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Any

import torch
from torch import Tensor

from gpuzip._core.extras import needs
from gpuzip._core.planes import split
from gpuzip.api import open as open_codes
from gpuzip.codecs import Codec
from gpuzip.codecs.codes import Codes, check_codes
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.interop._values import HALF, INT8, kind_of

#: Key of a field's metadata. Its value is an .ezip file of the codec without rows, in base64.
KEY = b"gpuzip.codec"
_LAYOUTS = ("binary", "list")


def to_arrow(codes: Codes, table: Any = None, *, column: str = "codes", layout: str = "binary") -> Any:
    """Make a pyarrow.Table with a column of codes, whose metadata holds the codec.

    Parameters
    ----------
    codes : Codes
        The codes, one row each.
    table : pyarrow.Table, optional
        Columns to put the codes beside, such as ids and texts: a table of N rows, or what pyarrow.table
        converts to one (a dict, a data frame). Default: none.
    column : str, default "codes"
        Name of the new column.
    layout : {"binary", "list"}, default "binary"
        "binary": fixed-size binary of B bytes per row. "list": fixed-size lists, which other programs read as
        vectors: D float16 of a `HalfQuantizer`, D int8 of a `ScalarQuantizer` of 8 signed bits, B uint8 of
        other codecs.

    Returns
    -------
    pyarrow.Table
        The table, whose last column shares the memory of the codes if they are on the CPU.

    Raises
    ------
    GpuzipError
        If the table has another number of rows, or already has that column.
    MissingDependencyError
        If pyarrow is not installed.

    Notes
    -----
    The metadata of the column holds the codec as an .ezip file without rows, in base64, under the key
    "gpuzip.codec". Parquet and Feather files that pyarrow writes keep it.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    >>> codes = gpuzip.ScalarQuantizer().fit(x).encode(x)
    >>> table = gpuzip.to_arrow(codes, {"id": range(64)})
    >>> table.column_names, str(table.schema.field("codes").type)
    (['id', 'codes'], 'fixed_size_binary[8]')
    """
    who, pa = "to_arrow", pyarrow()
    check_codes(who, codes).codec.check_fitted(who)
    if layout not in _LAYOUTS:
        raise GpuzipError(f"{who}: layout must be 'binary' or 'list'; got {layout!r}.")
    array = array_of(pa, codes, layout)
    field = pa.field(column, array.type, nullable=False, metadata={KEY: packed_codec(codes)})
    if table is None:
        return pa.table([array], schema=pa.schema([field]))
    table = table if isinstance(table, pa.Table) else pa.table(table)
    if len(table) != len(codes):
        raise GpuzipError(f"{who}: table must have {len(codes)} rows, one per code; got {len(table)}.")
    if column in table.column_names:
        raise GpuzipError(
            f"{who}: column must be a new name; the table already has {column!r}. Pass column= with another."
        )
    return table.append_column(field, array)


def from_arrow(source: Any, *, column: str | None = None, codec: Codec | None = None) -> Codes:
    """Read a column of codes from an Arrow table.

    Parameters
    ----------
    source : pyarrow.Table, RecordBatch, RecordBatchReader, Array or ChunkedArray
        What holds the codes, or any object that exports an Arrow stream. Columns of fixed-size or other
        binary, or of lists of bytes or of float16, are read.
    column : str, optional
        Name of the column. Default: the only one whose metadata holds a codec.
    codec : Codec, optional
        The codec that made the codes. Default: the one in the metadata of the column. Needed for arrays, and
        for columns that lost their metadata on the way.

    Returns
    -------
    Codes
        The codes, which share the memory of a column that is one chunk.

    Raises
    ------
    GpuzipError
        If there is no such column, a row is null, or the codec is not known.
    FormatError
        If the metadata or the bytes are not those of a codec.
    MissingDependencyError
        If pyarrow is not installed.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    >>> codes = gpuzip.ScalarQuantizer().fit(x).encode(x)
    >>> again = gpuzip.from_arrow(gpuzip.to_arrow(codes))
    >>> torch.equal(again.data, codes.data)
    True
    """
    who, pa = "from_arrow", pyarrow()
    if isinstance(source, pa.Array | pa.ChunkedArray):
        return codes_of_column(pa, who, source, None, column or "column", codec)
    table = _table(pa, who, source)
    name = column_of(who, table.schema, column)
    packed = (table.schema.field(name).metadata or {}).get(KEY)
    return codes_of_column(pa, who, table[name], packed, name, codec)


def packed_codec(codes: Codes) -> bytes:
    """The codec and the dtype of the source, as an .ezip file without rows in base64."""
    file = io.BytesIO()
    Codes(codes.codec, codes.data[:0], codes.dtype).save(file)
    return base64.b64encode(file.getvalue())


def unpacked_codec(who: str, name: str, packed: bytes | str) -> Codes:
    """Codes without rows, of the codec that `packed_codec` packed. Raises FormatError."""
    try:
        codes = open_codes(base64.b64decode(packed, validate=True))
    except (binascii.Error, FormatError) as error:
        raise FormatError(
            f"{who}: the metadata of {name!r} must hold a codec as to_{who.removeprefix('from_')} writes it: "
            f"{error}. Pass codec=."
        ) from error
    assert isinstance(codes, Codes)
    return codes


def pyarrow() -> Any:
    """The module pyarrow. Raises MissingDependencyError."""
    with needs("pyarrow", "arrow"):
        import pyarrow
    return pyarrow


def array_of(pa: Any, codes: Codes, layout: str) -> Any:
    """The codes as a pyarrow.Array, which shares their memory if they are on the CPU."""
    data = codes.packed.data[:].cpu().contiguous()
    N, B = data.shape
    if layout == "binary":
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(B), N, [None, pa.py_buffer(data.numpy())])
    kind = kind_of(codes.codec)
    value: Any = {INT8: pa.int8(), HALF: pa.float16()}.get(str(kind), pa.uint8())
    width = 8 * B // value.bit_width
    values = pa.Array.from_buffers(value, N * width, [None, pa.py_buffer(data.numpy())])
    return pa.FixedSizeListArray.from_arrays(values, width)


def _table(pa: Any, who: str, source: Any) -> Any:
    if isinstance(source, pa.Table):
        return source
    if isinstance(source, pa.RecordBatch):
        return pa.Table.from_batches([source])
    if hasattr(source, "__arrow_c_stream__"):  # a RecordBatchReader has it too
        return pa.table(source)
    raise GpuzipError(
        f"{who}: source must be a pyarrow.Table, RecordBatch, RecordBatchReader, Array or ChunkedArray; got "
        f"{type(source).__name__}."
    )


def column_of(who: str, schema: Any, column: str | None) -> str:
    named = [field.name for field in schema if KEY in (field.metadata or {})]
    if column is None and len(named) == 1:
        return str(named[0])
    if schema.names.count(column) == 1:
        return str(column)
    if column is None:
        raise GpuzipError(
            f"{who}: column must be given where not one column has a codec in its metadata; {len(named)} of "
            f"{schema.names} have. Pass column=, and codec= if there is none in the metadata."
        )
    raise GpuzipError(f"{who}: column must be the name of one column of {schema.names}; got {column!r}.")


def codes_of_column(
    pa: Any, who: str, array: Any, packed: bytes | str | None, name: str, codec: Codec | None
) -> Codes:
    """Codes of a column, and of the codec that is given or else packed.

    Raises GpuzipError without a codec and for columns of other types, FormatError for bytes of no codes.
    """
    dtype = torch.float32
    if codec is None:
        if packed is None:
            raise GpuzipError(
                f"{who}: codec must be given for {name!r}, whose metadata holds none; got None. Pass codec=, "
                "which gpuzip.load_codec reads from a file that codec.save wrote."
            )
        like = unpacked_codec(who, name, packed)
        codec, dtype = like.codec, like.dtype
    codec.check_fitted(who)
    data = bytes_of(pa, who, name, array, codec.code_size)
    parts = data if len(codec.plane_sizes) == 1 else split(data, codec.plane_sizes)
    return Codes(codec, parts, dtype)


def bytes_of(pa: Any, who: str, name: str, array: Any, B: int) -> Tensor:
    """The (N, B) bytes of a column, which share its memory if it is one chunk.

    Raises GpuzipError for nulls and other types, FormatError for rows of another size.
    """
    chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
    if array.null_count:
        raise GpuzipError(f"{who}: {name!r} must have codes in every row; {array.null_count} are null.")
    parts = [_bytes_of_chunk(pa, who, name, chunk, B) for chunk in chunks if len(chunk)]
    if len(parts) == 1:
        return parts[0]
    return torch.cat(parts) if parts else torch.empty((0, B), dtype=torch.uint8, device="cpu")


def _bytes_of_chunk(pa: Any, who: str, name: str, chunk: Any, B: int) -> Tensor:
    kind, N = chunk.type, len(chunk)
    try:
        chunk.validate()  # sizes of buffers and ends of offsets, which pyarrow trusts where it reads
    except pa.ArrowInvalid as error:
        raise FormatError(f"{who}: {name!r} must be a sound column: {error}. Write it again.") from error
    if isinstance(chunk, pa.ExtensionArray):
        return _bytes_of_chunk(pa, who, name, chunk.storage, B)
    if pa.types.is_fixed_size_binary(kind):
        start, stop, buffer = chunk.offset * kind.byte_width, N * kind.byte_width, chunk.buffers()[1]
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        offset = pa.int64() if pa.types.is_large_binary(kind) else pa.int32()
        ends = pa.Array.from_buffers(offset, N + 1, [None, chunk.buffers()[1]], offset=chunk.offset)
        _check_lengths(pa, who, name, ends, 1, B)
        start, buffer = ends[0].as_py(), chunk.buffers()[2]
        stop = ends[N].as_py() - start
    elif pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _bytes_of_lists(pa, who, name, chunk, B)
    else:
        raise GpuzipError(
            f"{who}: {name!r} must be a column of binary, or of lists of uint8, int8 or float16; got {kind}."
        )
    _check_size(who, name, stop, N, B)
    return _viewed(pa, buffer, start, stop).view(N, B)


def _bytes_of_lists(pa: Any, who: str, name: str, chunk: Any, B: int) -> Tensor:
    value, N = chunk.type.value_type, len(chunk)
    if value not in (pa.uint8(), pa.int8(), pa.float16()):
        raise GpuzipError(f"{who}: {name!r} must be lists of uint8, int8 or float16; got {chunk.type}.")
    size = value.bit_width // 8
    if not pa.types.is_fixed_size_list(chunk.type):
        _check_lengths(pa, who, name, chunk.offsets, size, B)
    values = chunk.flatten()
    if values.null_count:
        raise GpuzipError(f"{who}: {name!r} must have all its values; {values.null_count} are null.")
    _check_size(who, name, len(values) * size, N, B)
    return _viewed(pa, values.buffers()[1], values.offset * size, N * B).view(N, B)


def _check_lengths(pa: Any, who: str, name: str, ends: Any, size: int, B: int) -> None:
    """Raise FormatError unless all rows between these offsets have B bytes."""
    ends = torch.utils.dlpack.from_dlpack(ends.cast(pa.int64()))
    if bool((ends.diff() * size != B).any()):
        row = int((ends.diff() * size != B).nonzero()[0])
        raise FormatError(
            f"{who}: rows of {name!r} must have {B} bytes for this codec; row {row} of a chunk has "
            f"{int(ends.diff()[row]) * size}."
        )


def _check_size(who: str, name: str, nbytes: int, N: int, B: int) -> None:
    if nbytes != N * B:
        raise FormatError(
            f"{who}: rows of {name!r} must have {B} bytes for this codec; they have {nbytes // N}. Pass the "
            "codec that made them."
        )


def _viewed(pa: Any, buffer: Any, start: int, count: int) -> Tensor:
    view = pa.Array.from_buffers(pa.uint8(), count, [None, buffer], offset=start)
    return torch.utils.dlpack.from_dlpack(view)
