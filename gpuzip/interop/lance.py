"""Lance datasets with a column of codes, which carries its codec. Needs pylance."""

from __future__ import annotations

import os
from typing import Any

from gpuzip._core.extras import needs
from gpuzip.codecs import Codec
from gpuzip.codecs.codes import Codes
from gpuzip.interop.arrow import KEY, codes_of_column, column_of, pyarrow, to_arrow


def to_lance(
    codes: Codes,
    uri: str | os.PathLike[str],
    table: Any = None,
    *,
    column: str = "codes",
    layout: str = "list",
    mode: str = "create",
) -> Any:
    """Write a Lance dataset with a column of codes, whose metadata holds the codec.

    Parameters
    ----------
    codes : Codes
        The codes, one row each.
    uri : str or path-like
        Where to write the dataset.
    table : pyarrow.Table, optional
        Columns to put the codes beside, as for `to_arrow`.
    column : str, default "codes"
        Name of the column of codes.
    layout : {"list", "binary"}, default "list"
        "list": vectors that Lance searches and indexes; see Notes. "binary": fixed-size binary.
    mode : {"create", "append", "overwrite"}, default "create"
        As in lance.write_dataset. Codes that are appended must be of the same codec.

    Returns
    -------
    lance.LanceDataset
        The dataset.

    Raises
    ------
    GpuzipError
        If the table has another number of rows, or already has that column.
    MissingDependencyError
        If pylance is not installed.

    Notes
    -----
    Lance searches lists of uint8 by "hamming": its distances of codes of a `BinaryQuantizer` are those of
    `search`. It searches lists of float16 of a `HalfQuantizer` by "l2", "cosine" and "dot". Each write is a
    new version of the dataset, so that an interrupted one leaves the older version whole.

    Examples
    --------
    >>> import gpuzip, torch
    >>> codes = gpuzip.compress(torch.randn(256, 32), m=8)
    >>> dataset = gpuzip.to_lance(codes, "vectors.lance", {"id": range(256)})  # doctest: +SKIP
    """
    return _lance().write_dataset(
        to_arrow(codes, table, column=column, layout=layout), os.fspath(uri), mode=mode
    )


def from_lance(source: Any, *, column: str | None = None, codec: Codec | None = None) -> Codes:
    """Read the codes of a Lance dataset, in the order of its rows.

    Parameters
    ----------
    source : str, path-like or lance.LanceDataset
        The dataset, or where it is.
    column : str, optional
        Name of the column. Default: the only one whose metadata holds a codec.
    codec : Codec, optional
        The codec that made the codes. Default: the one in the metadata of the column.

    Returns
    -------
    Codes
        The codes.

    Raises
    ------
    GpuzipError
        If there is no such column, a row is null, or the codec is not known.
    FormatError
        If the metadata or the bytes are not those of a codec.
    MissingDependencyError
        If pylance is not installed.

    Examples
    --------
    >>> import gpuzip
    >>> codes = gpuzip.from_lance("vectors.lance")  # doctest: +SKIP
    """
    who, lance = "from_lance", _lance()
    dataset = lance.dataset(os.fspath(source)) if isinstance(source, str | os.PathLike) else source
    name = column_of(who, dataset.schema, column)
    packed = (dataset.schema.field(name).metadata or {}).get(KEY)
    array = dataset.to_table(columns=[name])[name]
    return codes_of_column(pyarrow(), who, array, packed, name, codec)


def _lance() -> Any:
    with needs("pylance", "lance"):
        import lance
    return lance
