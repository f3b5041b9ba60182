"""Words most similar to a mean of words and vectors, computed as gensim does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import is_whole, whole
from gpuzip.codecs.codes import Codes
from gpuzip.codecs.mixed import MixedCodes
from gpuzip.errors import DtypeError, GpuzipError
from gpuzip.words.vocabulary import Vocabulary

One = str | Tensor | np.ndarray[Any, Any]
Some = One | Sequence[One | tuple[One, float]] | None


def most_similar(
    vocabulary: Vocabulary, codes: Codes | MixedCodes, positive: Some, negative: Some, topn: int
) -> list[tuple[str, float]]:
    """See `WordVectors.most_similar`."""
    topn = whole("most_similar", "topn", topn, 0)
    terms = [_weighted(item, 1.0) for item in _listed(positive)]
    terms += [_weighted(item, -1.0) for item in _listed(negative)]
    if not terms:
        raise GpuzipError(
            "WordVectors.most_similar: positive or negative must hold at least one word; got none."
        )
    rows = [_row(vocabulary, item) if isinstance(item, str) else None for item, _ in terms]
    mean = torch.zeros(codes.shape[1], device=codes.device, dtype=torch.float32)
    for (item, weight), row in zip(terms, rows, strict=True):
        mean += weight * (_vector(item, mean) if row is None else _unit(codes.rows([row])[0]))
    own = {row for row in rows if row is not None}
    k = min(topn + len(own), len(vocabulary))
    if topn == 0 or k == len(own):
        return []
    total = sum(abs(weight) for _, weight in terms) or 1.0
    scores, ids = codes.search((mean / total)[None], k, "cosine")
    found = zip(ids[0].tolist(), scores[0].tolist(), strict=True)
    return [(vocabulary[i], score) for i, score in found if i not in own][:topn]


def similarity(vocabulary: Vocabulary, codes: Codes | MixedCodes, first: str, second: str) -> float:
    """See `WordVectors.similarity`."""
    one, other = (_unit(row) for row in codes.rows([_row(vocabulary, word) for word in (first, second)]))
    return float((one * other).sum())


def listed(who: str, name: str, items: Any) -> list[Any]:
    """Return the items as a list. Raises DtypeError for what cannot be iterated, such as a row."""
    if isinstance(items, Iterable):
        return list(items)
    advice = " For rows, use query_idx." if is_whole(items) else ""
    raise DtypeError(f"{who}: {name} must be words; got {type(items).__name__} {items!r:.40}.{advice}")


def _listed(items: Some) -> list[Any]:
    if items is None:
        return []
    one = isinstance(items, str | Tensor | np.ndarray)
    return [items] if one else listed("WordVectors.most_similar", "positive and negative", items)


def _weighted(item: Any, weight: float) -> tuple[Any, float]:
    """Return an item and its weight. As in gensim, a given weight takes the place of -1 too."""
    if not isinstance(item, tuple):
        return item, weight
    given = item[1] if len(item) == 2 else None
    if isinstance(given, bool) or not isinstance(given, Real) or not math.isfinite(given):
        raise GpuzipError(
            f"WordVectors.most_similar: a tuple must be an item and a finite weight; got {item!r:.80}."
        )
    return item[0], float(given)


def _row(vocabulary: Vocabulary, word: str) -> int:
    row = vocabulary.find(word)
    if row is None:
        raise KeyError(word)
    return row


def _vector(item: Any, like: Tensor) -> Tensor:
    if not isinstance(item, Tensor | np.ndarray) or item.shape != like.shape:
        shape = f" of shape {tuple(item.shape)}" if hasattr(item, "shape") else ""
        raise GpuzipError(
            f"WordVectors.most_similar: items must be words, or tensors or arrays of shape ({len(like)},); "
            f"got {type(item).__name__}{shape}."
        )
    return torch.as_tensor(item, dtype=torch.float32, device=like.device)


def _unit(vector: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(vector.float())
    return vector.float() / norm if norm > 0 else vector.float()
