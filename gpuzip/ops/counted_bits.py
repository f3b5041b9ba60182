"""The nearest rows by Hamming distance, by numpy's count of the bits of words."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.best import in_order, places_of_best
from gpuzip._core.parallel import map_blocks, rows_per_thread

Array = np.ndarray[Any, Any]

_AT_ONCE = 1 << 16  # words that are counted at a time, which stay in a cache
_LEAST_BLOCK, _MOST_BLOCK = 1 << 15, 1 << 17  # rows
_WORD = 8  # bytes
_MOST_QUERIES = 4  # more are compared with columns of words, which are then turned once for all


def counting_pays(Q: int) -> bool:
    """Return whether `nearest_by_counts` takes less time than a scan; numpy counts bits from version 2 on."""
    return hasattr(np, "bitwise_count") and 0 < Q <= _MOST_QUERIES


def nearest_by_counts(
    queries: Tensor, codes: Tensor, k: int, mask: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """Find what `one_pass.hamming_topk` does; None if the mask allows fewer than k rows."""
    found = [_nearest(_Counts(query, codes), len(codes), k, mask) for query in queries.contiguous()]
    pairs = [pair for pair in found if pair is not None]
    if len(pairs) < len(found):
        return None
    scores, ids = (torch.from_numpy(np.stack(parts)) for parts in zip(*pairs, strict=True))
    return scores, ids


def _nearest(counts: _Counts, N: int, k: int, mask: Tensor | None) -> tuple[Array, Array] | None:
    def one_block(start: int, stop: int) -> tuple[Array, Array]:
        scores = counts.scores(start, stop)
        allowed = None if mask is None else mask[start:stop].numpy()
        if allowed is not None:
            scores[~allowed] = -np.inf
        places = places_of_best(scores, min(k, stop - start))
        places = places if allowed is None else places[allowed[places]]
        places = in_order(scores, places, k)
        return scores[places], places + start

    found = map_blocks(one_block, N, rows_per_thread(N, _LEAST_BLOCK, _MOST_BLOCK))
    scores, rows = (np.concatenate(parts) for parts in zip(*found, strict=True))
    if len(rows) < k:
        return None
    best = in_order(scores, np.arange(len(rows)), k)
    return scores[best], rows[best]


class _Counts:
    """Minus the distances of rows from one query: query (B,), codes (N, B) uint8."""

    def __init__(self, query: Tensor, codes: Tensor) -> None:
        B = codes.shape[1]
        self._codes, self._words = codes, -(-B // _WORD)
        self._rows = max(1, min(len(codes), _AT_ONCE // self._words))
        padded = np.zeros(self._words * _WORD, np.uint8)
        padded[:B] = query.numpy()
        self._query = np.tile(padded.view(np.uint64), self._rows)

    def scores(self, start: int, stop: int) -> Array:
        """(stop - start,) float32, exact."""
        scores = np.zeros(stop - start, np.float32)
        differs, counts = np.empty(len(self._query), np.uint64), np.empty(len(self._query), np.uint8)
        for first in range(start, stop, self._rows):
            words = self._whole(first, min(first + self._rows, stop))
            size = len(words)
            np.bitwise_xor(words, self._query[:size], out=differs[:size])
            np.bitwise_count(differs[:size], out=counts[:size])
            here = scores[first - start : first - start + self._rows]
            for column in counts[:size].reshape(len(here), self._words).T:
                here -= column
        return scores

    def _whole(self, start: int, stop: int) -> Array:
        """The words of rows, the last ones padded with zero bits."""
        rows, B = self._codes[start:stop], self._codes.shape[1]
        if B % _WORD == 0:
            return rows.contiguous().numpy().view(np.uint64).reshape(-1)
        padded = np.zeros((stop - start, self._words * _WORD), np.uint8)
        padded[:, :B] = rows.numpy()
        return padded.view(np.uint64).reshape(-1)
