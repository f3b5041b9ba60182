"""Convert a caller's matrix to a dense tensor or a numpy array."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip.errors import DtypeError, GpuzipError

Matrix = Tensor | np.ndarray[Any, Any]

_EXACT = 1 << 24  # whole numbers up to here are float32 numbers


def as_matrix(who: str, name: str, x: Any) -> Matrix:
    """Convert x to a tensor or an array. It may be a list, a data frame, an Arrow column or a DLPack object.

    Tensors and arrays come back as they are, without a copy. Others become float32 unless they hold floats
    of another width. Raises DtypeError for what holds no numbers, and GpuzipError for tensors without dense
    values and for missing values.
    """
    if isinstance(x, Tensor):
        return _dense(who, name, x)
    if isinstance(x, np.ma.MaskedArray):
        if np.ma.getmaskarray(x).any():
            raise GpuzipError(
                f"{who}: {name} must have all its values; got an array with some masked. "
                f"Use {name}.filled(), or drop those rows."
            )
        return np.asarray(x.data)
    if isinstance(x, np.ndarray):
        return x
    if type(x).__module__.partition(".")[0] == "pyarrow":
        return _of_arrow(who, name, x)
    if isinstance(x, list | tuple):
        return _of_rows(who, name, x)
    if hasattr(x, "to_numpy"):  # a data frame or a column of one
        return _of_rows(who, name, x.to_numpy())
    if hasattr(x, "__dlpack__"):
        return _dense(who, name, torch.utils.dlpack.from_dlpack(x))
    if hasattr(x, "__array__"):
        return _of_rows(who, name, np.asarray(x))
    raise _unreadable(who, name, x)


def _dense(who: str, name: str, x: Tensor) -> Tensor:
    needed = f"{who}: {name} must be a dense tensor with values; got"
    if x.is_nested:
        raise GpuzipError(f"{needed} a nested one. Pad it, or pass {name}.values().")
    if x.layout != torch.strided:
        raise GpuzipError(f"{needed} the layout {x.layout}. Use {name}.to_dense().")
    if x.is_quantized:
        raise GpuzipError(f"{needed} the dtype {x.dtype}. Use {name}.dequantize().")
    return x


def _of_rows(who: str, name: str, x: Any) -> np.ndarray[Any, Any]:
    """Rows of numbers: nested lists, lists of arrays or tensors, arrays of objects that are rows."""
    try:
        if isinstance(x, list | tuple) and x and isinstance(x[0], Tensor):
            x = torch.stack(list(x)).detach().cpu().float().numpy()
        array = np.asarray(x)
        if array.dtype == object:
            array = np.stack([np.asarray(row) for row in array])
    except (TypeError, ValueError, RuntimeError) as error:
        raise GpuzipError(f"{who}: rows of {name} must be numbers, as many in each; {error}.") from error
    if array.dtype.kind == "f":
        return array.astype(np.float32) if isinstance(x, list | tuple) else array
    if array.dtype.kind in "iu" and (array.size == 0 or np.abs(array).max() <= _EXACT):
        return array.astype(np.float32)
    raise _unreadable(who, name, x, array.dtype)


def _of_arrow(who: str, name: str, x: Any) -> np.ndarray[Any, Any]:
    """A column of lists of equal lengths of floats, without a copy of their values."""
    if not hasattr(x, "null_count"):
        raise GpuzipError(
            f"{who}: {name} must be one column of lists; got a {type(x).__name__}. Pass {name}['column']."
        )
    column = x.combine_chunks() if hasattr(x, "chunks") else x
    size = getattr(column.type, "list_size", None)
    if size is None and not column.null_count:
        size = _common_length(column)
    if column.null_count or (size is not None and column.flatten().null_count):
        raise GpuzipError(f"{who}: {name} must have all its values; got nulls. Use {name}.drop_null().")
    if size is None:
        return _of_rows(who, name, column.to_numpy(zero_copy_only=False))
    values = column.flatten().to_numpy(zero_copy_only=False)
    if values.dtype.kind != "f":
        raise _unreadable(who, name, x, values.dtype)
    rows: np.ndarray[Any, Any] = values.reshape(len(column), size)
    return rows


def _common_length(column: Any) -> int | None:
    """The length of all lists of floats of a column; None if there is none, or other values."""
    value = str(getattr(column.type, "value_type", None))
    if value not in ("halffloat", "float", "double") or len(column) == 0:
        return None
    lengths = np.diff(column.offsets.to_numpy())
    return int(lengths[0]) if (lengths == lengths[0]).all() else None


def _unreadable(who: str, name: str, x: Any, dtype: Any = None) -> DtypeError:
    came = type(x).__name__ if dtype is None else f"{type(x).__name__} of {dtype}"
    if isinstance(x, str | bytes | os.PathLike):
        advice = f"Read the file first, such as with np.load({x!r:.80})."
    else:
        advice = "Convert it, for example with np.asarray(x, dtype='float32')."
    return DtypeError(
        f"{who}: {name} must be a torch tensor, a numpy array, or rows of numbers; got {came}. {advice}"
    )
