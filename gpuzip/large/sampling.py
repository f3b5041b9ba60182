"""A uniform sample of rows that is the same whatever the chunks: each row draws a number, the least stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]

_AT_ONCE = 1 << 20  # numbers that are drawn at a time
_PAGE = 4096  # bytes that are read for a row, at least
_CHEAPER = 4  # times that bytes in order are cheaper than bytes here and there


class _Least:
    """Which rows have the least numbers so far."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seen = count, 0
        self.keys: Array = np.empty(0)
        self.ids: Array = np.empty(0, np.int64)
        self._drawn = np.random.default_rng(seed)

    def take(self, n: int) -> tuple[Array, Array]:
        """Draw for n more rows: places in the sample that they take, and which of them take these."""
        keys, first = self._drawn.random(n), self.seen
        self.seen += n
        free = min(self.count - len(self.keys), n)
        at, who = np.arange(len(self.keys), len(self.keys) + free), np.arange(free)
        self.keys = np.concatenate([self.keys, keys[:free]])
        self.ids = np.concatenate([self.ids, first + who])
        late = np.arange(free, n)
        if len(late):
            late = late[keys[late] < self.keys.max()]
        if len(late):
            both = np.concatenate([self.keys, keys[late]])
            best = np.argpartition(both, self.count - 1)[: self.count]
            coming = late[np.sort(best[best >= self.count]) - self.count]
            leaving = np.setdiff1d(np.arange(self.count), best)
            self.keys[leaving], self.ids[leaving] = keys[coming], first + coming
            kept = ~np.isin(at, leaving)
            at, who = np.concatenate([at[kept], leaving]), np.concatenate([who[kept], coming])
        return at, who


class Reservoir:
    """A sample of `count` rows of chunks, in one pass and in memory for two samples.

    Source: reservoir sampling by random keys, Efraimidis and Spirakis, 2006, with equal weights.
    """

    def __init__(self, count: int, seed: int, d: int, dtype: torch.dtype) -> None:
        self._least = _Least(count, seed)
        self._rows = torch.empty((count, d), dtype=dtype, device="cpu")

    @property
    def seen(self) -> int:
        """Rows so far."""
        return self._least.seen

    def add(self, chunk: Tensor) -> None:
        """(n, D) rows that come next."""
        at, who = self._least.take(len(chunk))
        self._rows[torch.from_numpy(at)] = chunk[torch.from_numpy(who)]

    def rows(self) -> Tensor:
        """The sample, in the order of the rows."""
        order = np.argsort(self._least.ids)
        return self._rows[torch.from_numpy(order)]


def sample_ids(n: int, count: int, seed: int) -> Array:
    """Numbers of the rows that a Reservoir keeps of n, rising."""
    least = _Least(min(count, n), seed)
    for start in range(0, n, _AT_ONCE):
        least.take(min(_AT_ONCE, n - start))
    return np.sort(least.ids)


def is_cheaper_by_rows(n: int, count: int, row_bytes: int) -> bool:
    """Whether a sample of rows here and there is read faster than all rows in order."""
    return _CHEAPER * count * max(_PAGE, row_bytes) <= n * row_bytes
