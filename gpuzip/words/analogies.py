"""Words most similar to a mean of words and vectors, computed as gensim does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import whole
from gpuzip.codecs.codes import Codes
from gpuzip.codecs.mixed import MixedCodes
from gpuzip.errors import GpuzipError
from gpuzip.words.vocabulary import Vocabulary

One = str | Tensor | np.ndarray[Any, Any]
Some = One | Sequence[One] | None


def most_similar(
    vocabulary: Vocabulary, codes: Codes | MixedCodes, positive: Some, negative: Some, topn: int
) -> list[tuple[str, float]]:
    """See `WordVectors.most_similar`."""
    topn = whole("most_similar", "topn", topn, 0)
    terms = [(item, 1.0) for item in _listed(positive)] + [(item, -1.0) for item in _listed(negative)]
    if not terms:
        raise GpuzipError(
            "WordVectors.most_similar: positive or negative must hold at least one word; got none."
        )
    rows = [_row(vocabulary, item) if isinstance(item, str) else None for item, _ in terms]
    mean = torch.zeros(codes.shape[1], device=codes.device, dtype=torch.float32)
    for (item, sign), row in zip(terms, rows, strict=True):
        mean += sign * (_vector(item, mean) if row is None else _unit(codes.rows([row])[0]))
    own = {row for row in rows if row is not None}
    k = min(topn + len(own), len(vocabulary))
    if topn == 0 or k == len(own):
        return []
    scores, ids = codes.search((mean / len(terms))[None], k, "cosine")
    found = zip(ids[0].tolist(), scores[0].tolist(), strict=True)
    return [(vocabulary[i], score) for i, score in found if i not in own][:topn]


def _listed(items: Some) -> list[One]:
    if items is None:
        return []
    return [items] if isinstance(items, str | Tensor | np.ndarray) else list(items)


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
