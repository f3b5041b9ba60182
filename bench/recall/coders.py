"""A codec of gpuzip and an index of FAISS as one thing: trained, given rows, asked for neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import faiss
import torch
from torch import Tensor

from gpuzip.codecs import Quantizer

#: FAISS's names of codes whose scores are more than those of their decoded rows.
_ESTIMATORS = ("RaBitQ", "SQtq", "EDEN")
_WARM_ROWS = 1024
_CHUNK = 256  # queries

Ids = Tensor  # (Q, k) int64


class Coder(Protocol):
    """row_bytes: of one encoded row. state_bytes: of all that is kept beside the rows."""

    row_bytes: float
    state_bytes: int

    def warm_up(self, x: Tensor) -> None:
        """Compile what is compiled on a first call."""

    def train(self, x: Tensor) -> None: ...

    def encode(self, x: Tensor) -> None: ...

    def decoded(self, first: int, last: int) -> Tensor:
        """Rows [first, last) of those encoded."""

    def found(self, queries: Tensor, k: int) -> Iterator[tuple[str, Ids]]:
        """The k best rows of each query by each of the scores that there are, and the score's name."""


class Gpuzip:
    def __init__(self, codec: Quantizer) -> None:
        self._codec = codec

    def warm_up(self, x: Tensor) -> None:
        self._codec.fit(x[:_WARM_ROWS]).encode(x[:_WARM_ROWS])

    def train(self, x: Tensor) -> None:
        self._codec = self._codec.fit(x, seed=0)
        self.state_bytes = self._codec.nbytes

    def encode(self, x: Tensor) -> None:
        self._codes = self._codec.encode(x)
        self.row_bytes = self._codes.data.nbytes / len(x)

    def decoded(self, first: int, last: int) -> Tensor:
        return self._codes[first:last].decode()

    def found(self, queries: Tensor, k: int) -> Iterator[tuple[str, Ids]]:
        yield "cosine", self._codes.search(queries, k, "cosine")[1]


class Faiss:
    """Trained and asked as FAISS's factory makes it, for the inner product.

    Scores of most codes are those of the decoded rows; those are found by torch, in every metric, since
    FAISS decodes additive codes anew for each query. RaBitQ's, TurboQuant's and EDEN's are FAISS's own, too.
    """

    def __init__(self, recipe: str, d: int) -> None:
        self._index: Any = faiss.index_factory(d, recipe, faiss.METRIC_INNER_PRODUCT)
        self._estimates = any(name in recipe for name in _ESTIMATORS)
        self.row_bytes = float(self._index.sa_code_size())

    def warm_up(self, x: Tensor) -> None:
        pass  # compiled beforehand

    def train(self, x: Tensor) -> None:
        self._index.train(x.numpy())
        self.state_bytes = len(faiss.serialize_index(self._index))

    def encode(self, x: Tensor) -> None:
        self._index.add(x.numpy())

    def decoded(self, first: int, last: int) -> Tensor:
        return torch.from_numpy(self._index.reconstruct_n(first, last - first))

    def found(self, queries: Tensor, k: int) -> Iterator[tuple[str, Ids]]:
        if self._estimates:
            yield "its own estimate", torch.from_numpy(self._index.search(queries.numpy(), k)[1])
        y = self.decoded(0, self._index.ntotal)
        norms = y.norm(dim=1)
        yield "inner product", _best(queries, y, torch.zeros(()), k)
        yield "L2", _best(queries, y, norms.square() / 2, k)
        yield "cosine", _best(queries, y / norms.clamp(min=1e-30)[:, None], torch.zeros(()), k)


def _best(queries: Tensor, y: Tensor, less: Tensor, k: int) -> Ids:
    """Rows of the greatest inner product less a number of the row."""
    return torch.cat([(part @ y.T - less).topk(k).indices for part in queries.split(_CHUNK)])
