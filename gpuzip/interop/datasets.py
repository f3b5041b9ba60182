"""Columns of codes in Hugging Face's datasets, whose feature carries the codec. Needs datasets."""

from __future__ import annotations

from typing import Any

from gpuzip._core.extras import needs
from gpuzip.codecs import Codec
from gpuzip.codecs.codes import Codes, check_codes
from gpuzip.errors import DtypeError, GpuzipError
from gpuzip.interop.arrow import codes_of_column, packed_codec, pyarrow, to_arrow

_MARK = "gpuzip.codec:"  # begins the id of a feature; the codec follows as `to_arrow` packs it


def to_datasets(codes: Codes, dataset: Any = None, *, column: str = "codes") -> Any:
    """Make a datasets.Dataset with a column of codes, whose feature holds the codec.

    Parameters
    ----------
    codes : Codes
        The codes, one row each.
    dataset : datasets.Dataset, optional
        Columns to put the codes beside: a dataset of N rows. Default: none.
    column : str, default "codes"
        Name of the new column, of bytes.

    Returns
    -------
    datasets.Dataset
        The dataset.

    Raises
    ------
    GpuzipError
        If the dataset has another number of rows, or already has that column.
    MissingDependencyError
        If datasets is not installed.

    Notes
    -----
    The `id` of the column's feature holds the codec. It goes where features go: through `select`, `filter`,
    `map` and `concatenate_datasets`, to disk, and to Parquet files.

    Examples
    --------
    >>> import gpuzip, torch
    >>> codes = gpuzip.compress(torch.randn(256, 32), m=8)
    >>> gpuzip.to_datasets(codes).save_to_disk("vectors")  # doctest: +SKIP
    """
    who, datasets = "to_datasets", _datasets()
    check_codes(who, codes)
    kind = "binary" if codes.data.nbytes < 1 << 31 else "large_binary"  # offsets of 32 bits
    feature = datasets.Value(kind, id=_MARK + packed_codec(codes).decode())
    array = to_arrow(codes)["codes"].cast(kind)
    made = datasets.Dataset(
        pyarrow().table({column: array}),
        info=datasets.DatasetInfo(features=datasets.Features({column: feature})),
    )
    if dataset is None:
        return made
    if len(dataset) != len(codes):
        raise GpuzipError(f"{who}: dataset must have {len(codes)} rows, one per code; got {len(dataset)}.")
    if column in dataset.column_names:
        raise GpuzipError(
            f"{who}: column must be a new name; the dataset already has {column!r}. Pass another."
        )
    return datasets.concatenate_datasets([dataset, made], axis=1)


def from_datasets(dataset: Any, *, column: str | None = None, codec: Codec | None = None) -> Codes:
    """Read a column of codes of a datasets.Dataset, in the order of its rows.

    Parameters
    ----------
    dataset : datasets.Dataset
        The dataset. Columns of binary, or of lists of bytes or of float16, are read.
    column : str, optional
        Name of the column. Default: the only one whose feature holds a codec.
    codec : Codec, optional
        The codec that made the codes. Default: the one in the column's feature.

    Returns
    -------
    Codes
        The codes.

    Raises
    ------
    DtypeError
        If it is no Dataset.
    GpuzipError
        If there is no such column, a row is null, or the codec is not known.
    FormatError
        If the feature or the bytes are not those of a codec.
    MissingDependencyError
        If datasets is not installed.

    Examples
    --------
    >>> import datasets, gpuzip  # doctest: +SKIP
    >>> codes = gpuzip.from_datasets(datasets.load_from_disk("vectors"))  # doctest: +SKIP
    """
    who = "from_datasets"
    if not isinstance(dataset, _datasets().Dataset):
        raise DtypeError(f"{who}: dataset must be a datasets.Dataset; got {type(dataset).__name__}.")
    ids = {name: getattr(feature, "id", None) or "" for name, feature in dataset.features.items()}
    named = [name for name, id in ids.items() if id.startswith(_MARK)]
    found = named[0] if column is None and len(named) == 1 else column
    if found is None or found not in ids:
        raise GpuzipError(
            f"{who}: column must be one of {list(ids)}, of which {len(named)} have a codec in their feature; "
            f"got {column!r}. Pass column=, and codec= if it is not in the feature."
        )
    array = dataset.with_format("arrow").select_columns([found])[:][found]
    packed = ids[found].removeprefix(_MARK) if found in named else None
    return codes_of_column(pyarrow(), who, array, packed, found, codec)


def _datasets() -> Any:
    with needs("datasets", "datasets"):
        import datasets
    return datasets
