"""Tables of codes in DuckDB, whose column's comment holds the codec. Needs duckdb and pyarrow."""

from __future__ import annotations

import secrets
from typing import Any

from gpuzip._core.extras import needs
from gpuzip.codecs import Codec
from gpuzip.codecs.codes import Codes, check_codes
from gpuzip.errors import GpuzipError
from gpuzip.interop._values import HALF, kind_of
from gpuzip.interop.arrow import codes_of_column, packed_codec, pyarrow, to_arrow

_MARK = "gpuzip.codec:"  # begins a comment; the codec follows as `to_arrow` packs it
_COLUMNS = (
    "SELECT column_name, comment FROM duckdb_columns() WHERE table_name = ? "
    "AND schema_name = current_schema() AND database_name = current_database() ORDER BY column_index"
)


def to_duckdb(
    codes: Codes,
    connection: Any,
    name: str,
    table: Any = None,
    *,
    column: str = "codes",
    layout: str = "binary",
) -> Any:
    """Make a DuckDB table with a column of codes, whose comment holds the codec.

    Parameters
    ----------
    codes : Codes
        The codes, one row each.
    connection : duckdb.DuckDBPyConnection
        Database to make the table in.
    name : str
        Name of the new table.
    table : pyarrow.Table, optional
        Columns to put the codes beside, as for `to_arrow`.
    column : str, default "codes"
        Name of the column of codes.
    layout : {"binary", "list"}, default "binary"
        "binary": a BLOB of B bytes per row. "list": an array, `TINYINT[D]` of a `ScalarQuantizer` of 8 signed
        bits, `UTINYINT[B]` of other codecs. DuckDB has no arrays of float16.

    Returns
    -------
    duckdb.DuckDBPyRelation
        The table.

    Raises
    ------
    GpuzipError
        If the table has another number of rows, or already has that column, or DuckDB has no such arrays.
    MissingDependencyError
        If duckdb or pyarrow is not installed.

    Notes
    -----
    Table and comment are made in one transaction. `bit_count(xor(a.codes::BIT, b.codes::BIT))` of BLOBs of a
    `BinaryQuantizer` is the distance that `search` finds by "hamming".

    Examples
    --------
    >>> import duckdb, gpuzip, torch  # doctest: +SKIP
    >>> codes = gpuzip.compress(torch.randn(256, 32), m=8)  # doctest: +SKIP
    >>> connection = duckdb.connect("vectors.duckdb")  # doctest: +SKIP
    >>> gpuzip.to_duckdb(codes, connection, "vectors", {"id": range(256)})  # doctest: +SKIP
    """
    who = "to_duckdb"
    _duckdb()
    if layout == "list" and kind_of(check_codes(who, codes).codec) == HALF:
        raise GpuzipError(f"{who}: layout must be 'binary' for float16, of which DuckDB has no arrays.")
    whole = to_arrow(codes, table, column=column, layout=layout)
    comment = _MARK + packed_codec(codes).decode()
    view = f"gpuzip_{secrets.token_hex(8)}"
    own = not _in_transaction(connection)
    connection.register(view, whole)
    try:
        if own:
            connection.begin()
        connection.execute(f"CREATE TABLE {_quoted(name)} AS SELECT * FROM {view}")
        connection.execute(f"COMMENT ON COLUMN {_quoted(name)}.{_quoted(column)} IS '{comment}'")
        if own:
            connection.commit()
    except BaseException:
        if own:
            connection.rollback()
        raise
    finally:
        connection.unregister(view)
    return connection.sql(f"SELECT * FROM {_quoted(name)}")


def from_duckdb(
    connection: Any, name: str, *, column: str | None = None, codec: Codec | None = None
) -> Codes:
    """Read the codes of a DuckDB table, in the order in which rows were inserted.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        The database.
    name : str
        Name of the table, in the current schema.
    column : str, optional
        Name of the column: a BLOB, or an array or list of TINYINT or UTINYINT. Default: the only one whose
        comment holds a codec.
    codec : Codec, optional
        The codec that made the codes. Default: the one in the comment of the column.

    Returns
    -------
    Codes
        The codes. Those of some rows alone come from `from_arrow` with the Arrow table of a query.

    Raises
    ------
    GpuzipError
        If there is no such column, a row is NULL, or the codec is not known.
    FormatError
        If the comment or the bytes are not those of a codec.
    MissingDependencyError
        If duckdb or pyarrow is not installed.

    Examples
    --------
    >>> import duckdb, gpuzip  # doctest: +SKIP
    >>> codes = gpuzip.from_duckdb(duckdb.connect("vectors.duckdb"), "vectors")  # doctest: +SKIP
    """
    who = "from_duckdb"
    _duckdb()
    comments = dict(connection.execute(_COLUMNS, [name]).fetchall())
    named = [c for c, comment in comments.items() if (comment or "").startswith(_MARK)]
    found = named[0] if column is None and len(named) == 1 else column
    if found is None or found not in comments:
        raise GpuzipError(
            f"{who}: column must be one of the table {name!r}, {list(comments)}, of which {len(named)} have "
            f"a codec in their comment; got {column!r}. Pass column=, and codec= if it is not in the comment."
        )
    query = f"SELECT {_quoted(found)} FROM {_quoted(name)} ORDER BY rowid"
    array = connection.sql(query).to_arrow_table()[found]
    packed = comments[found].removeprefix(_MARK) if found in named else None
    return codes_of_column(pyarrow(), who, array, packed, found, codec)


def _in_transaction(connection: Any) -> bool:
    """Whether the caller has begun a transaction: otherwise each statement is one of its own."""
    first, second = (connection.execute("SELECT txid_current()").fetchall() for _ in range(2))
    return bool(first == second)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _duckdb() -> Any:
    with needs("duckdb", "duckdb"):
        import duckdb
    return duckdb
