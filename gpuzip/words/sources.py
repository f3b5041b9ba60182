"""Word vectors in memory: gensim's KeyedVectors, or a dict."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from gpuzip.errors import DtypeError, GpuzipError
from gpuzip.words.collector import Floats


def gensim_words(vectors: Any) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Return the words and rows of gensim's KeyedVectors, or of an object with its two attributes.

    Raises GpuzipError for a gensim model (its vectors are in `.wv`), and if words and rows differ in number.
    """
    words, rows = getattr(vectors, "index_to_key", None), getattr(vectors, "vectors", None)
    if words is None or rows is None:
        advice = "Pass its .wv." if hasattr(vectors, "wv") else "Load one with gensim."
        raise GpuzipError(
            f"WordVectors.from_gensim: vectors must be KeyedVectors; got {type(vectors).__name__}. {advice}"
        )
    if getattr(vectors, "vectors_ngrams", None) is not None:
        warnings.warn(
            "WordVectors.from_gensim: the vectors of fastText's subwords are left out, so that words "
            "that they stand for are unknown.",
            stacklevel=3,
        )
    rows = np.asarray(rows)
    if rows.ndim != 2 or len(rows) != len(words):
        raise GpuzipError(
            f"WordVectors.from_gensim: vectors must have one row per word; got {rows.shape} for "
            f"{len(words)} words."
        )
    return list(words), rows


def dict_words(vectors: Mapping[str, Any]) -> tuple[list[str], Floats]:
    """Return the words and (N, D) rows of a dict of lists, arrays or tensors of one length."""
    if not isinstance(vectors, Mapping):
        raise DtypeError(
            f"WordVectors.from_dict: vectors must be a dict of vectors by word; got {type(vectors).__name__}."
        )
    rows: list[Floats] = []
    who = "WordVectors.from_dict"
    for word, vector in vectors.items():
        try:
            source = vector.detach().cpu().float() if isinstance(vector, torch.Tensor) else vector
            with np.errstate(over="ignore"):  # inf is refused below
                row = np.asarray(source, np.float32)
        except (TypeError, ValueError) as error:
            raise DtypeError(f"{who}: the vector of {word!r} must hold numbers: {error}.") from error
        if row.ndim != 1 or (rows and len(row) != len(rows[0])) or len(row) == 0:
            needed = f"({len(rows[0])},) as the others" if rows else "(D,)"
            raise GpuzipError(f"{who}: the vector of {word!r} must have shape {needed}; got {row.shape}.")
        if not np.isfinite(row).all():
            raise GpuzipError(f"{who}: the vector of {word!r} must be finite in float32. Drop or correct it.")
        rows.append(row)
    return list(vectors), np.stack(rows) if rows else np.empty((0, 1), np.float32)
