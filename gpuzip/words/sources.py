"""Word vectors that are in memory: gensim's KeyedVectors, and a dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from gpuzip.errors import DtypeError, GpuzipError
from gpuzip.words.collector import Floats


def gensim_words(vectors: Any) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Words and rows of anything that has `index_to_key` and `vectors`, as gensim's KeyedVectors has.

    Raises GpuzipError for a model, whose vectors are its `wv`, and where the two do not fit together.
    """
    words, rows = getattr(vectors, "index_to_key", None), getattr(vectors, "vectors", None)
    if words is None or rows is None:
        advice = "Pass its .wv." if hasattr(vectors, "wv") else "Load one with gensim."
        raise GpuzipError(
            f"from_gensim: vectors must be KeyedVectors; got {type(vectors).__name__}. {advice}"
        )
    rows = np.asarray(rows)
    if rows.ndim != 2 or len(rows) != len(words):
        raise GpuzipError(
            f"from_gensim: vectors must have one row per word; got {rows.shape} for {len(words)} words."
        )
    return list(words), rows


def dict_words(vectors: Mapping[str, Any]) -> tuple[list[str], Floats]:
    """Words and rows of vectors by word: lists, arrays or tensors of one length."""
    if not isinstance(vectors, Mapping):
        raise DtypeError(
            f"from_dict: vectors must be a dict of vectors by word; got {type(vectors).__name__}."
        )
    rows: list[Floats] = []
    for word, vector in vectors.items():
        try:
            source = vector.detach().cpu().float() if isinstance(vector, torch.Tensor) else vector
            with np.errstate(over="ignore"):  # inf is refused below
                row = np.asarray(source, np.float32)
        except (TypeError, ValueError) as error:
            raise DtypeError(f"from_dict: the vector of {word!r} is not of numbers: {error}.") from error
        if row.ndim != 1 or (rows and len(row) != len(rows[0])) or len(row) == 0:
            needed = f"({len(rows[0])},) like those before" if rows else "(D,)"
            raise GpuzipError(f"from_dict: the vector of {word!r} must have shape {needed}; got {row.shape}.")
        if not np.isfinite(row).all():
            raise GpuzipError(f"from_dict: the vector of {word!r} holds NaN, inf or a number beyond float32.")
        rows.append(row)
    return list(vectors), np.stack(rows) if rows else np.empty((0, 1), np.float32)
