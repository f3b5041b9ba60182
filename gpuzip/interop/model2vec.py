"""Static embeddings of model2vec with a compressed table. Needs model2vec."""

from __future__ import annotations

import copy
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gpuzip.api import open as open_codes
from gpuzip.codecs import LloydMaxQuantizer, Quantizer
from gpuzip.codecs.codes import Codes
from gpuzip.errors import FormatError, GpuzipError, MissingDependencyError
from gpuzip.storage.folder import Folder, Writer, read_folder, write_folder

Array = np.ndarray[Any, Any]

_KIND = "static"
_ARRAYS = {"weights": "weights", "mapping": "token_mapping"}  # by label: attribute of a StaticModel


class CompressedTable:
    """Rows by token id, decoded as they are read: the `embedding` of a StaticModel. An array, for numpy.

    Parameters
    ----------
    codes : Codes
        The compressed rows.
    """

    def __init__(self, codes: Codes) -> None:
        self.codes: Codes = codes
        self.shape: tuple[int, int] = codes.shape
        self.dtype: np.dtype[Any] = np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, ids: Any) -> Array:
        index = np.asarray(ids, dtype=np.int64)
        rows: Array = self.codes.rows(index.reshape(-1)).float().numpy()
        return rows.reshape(*index.shape, self.shape[1])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.codes.__array__(dtype, copy)


def compress(model: Any, codec: Quantizer | None = None) -> Any:
    """Compress the table of a StaticModel.

    Parameters
    ----------
    model : model2vec.StaticModel
        Model of floats. It is not changed.
    codec : Quantizer, optional
        Codec of the rows, fitted or not. Default: LloydMaxQuantizer(4).

    Returns
    -------
    model2vec.StaticModel
        A model whose `embedding` is a CompressedTable. Its `save_pretrained` writes decoded rows; `save`
        writes codes.

    Raises
    ------
    GpuzipError
        If the table is int8: compress a model of floats.
    """
    table = model.embedding
    if not isinstance(table, np.ndarray) or table.dtype.kind != "f":
        kind = getattr(table, "dtype", type(table).__name__)
        raise GpuzipError(
            f"compress: model must have a table of floats; got {kind}. Load it without quantize_to."
        )
    codec = LloydMaxQuantizer(4) if codec is None else codec
    fitted = codec if codec.is_fitted else codec.fit_quietly(table)
    small = copy.copy(model)
    small.embedding = CompressedTable(fitted.encode(table))
    return small


def save(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a folder with a compressed model: codes as .ezip, tokenizer and settings as JSON.

    Parameters
    ----------
    model : model2vec.StaticModel
        What `compress` or `load` returned.
    path : str or path-like
        Folder to write. One of gpuzip is replaced as a whole.

    Raises
    ------
    GpuzipError
        If the model's table is not compressed.
    """
    if not isinstance(model.embedding, CompressedTable):
        raise GpuzipError("save: model must have a compressed table. Call compress(model) first.")
    text = model.tokenizer.to_str()
    writers: dict[str, Writer] = {
        "codes.ezip": model.embedding.codes.save,
        "tokenizer.json": partial(_write, text),
        "config.json": partial(_write, json.dumps(model.config)),
    }
    for label, name in _ARRAYS.items():
        if (array := getattr(model, name)) is not None:
            writers[f"{label}.npy"] = partial(_write_array, array)
    about = {"base_model_name": model.base_model_name, "language": model.language}
    write_folder(path, _KIND, about, writers)


def load(path: str | os.PathLike[str]) -> Any:
    """Read a folder that `save` wrote.

    Parameters
    ----------
    path : str or path-like
        The folder.

    Returns
    -------
    model2vec.StaticModel
        The compressed model. Its codes stay mapped.

    Raises
    ------
    FormatError
        If the folder is damaged or holds something else.
    MissingDependencyError
        If model2vec is not installed.
    """
    return read_folder(path, _KIND, _read, verify=True)


def _read(folder: Folder) -> Any:
    try:
        from model2vec import StaticModel
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingDependencyError("model2vec is not installed: pip install model2vec.") from error
    codes = open_codes(folder.file("codes.ezip"))
    if not isinstance(codes, Codes):
        raise FormatError(f"{folder.path}: must hold codes of one codec. Restore the folder.")
    try:
        config = json.loads(folder.file("config.json").read_text(encoding="utf-8"))
        arrays = {name: _array(folder, label) for label, name in _ARRAYS.items()}
        return StaticModel(
            CompressedTable(codes),
            Tokenizer.from_file(str(folder.file("tokenizer.json"))),
            config,
            config["normalize"],
            max_length=config["max_length"],
            **folder.about,
            **arrays,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{folder.path}: must hold a static model; {error}. Restore the folder.") from error


def _write(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


def _write_array(array: Array, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _array(folder: Folder, label: str) -> Array | None:
    if f"{label}.npy" not in folder.members:
        return None
    array: Array = np.lib.format.open_memmap(folder.file(f"{label}.npy"), mode="r")
    return np.array(array)
