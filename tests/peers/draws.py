"""Rows that the peers' suites draw, and the measures that they take."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tests.lazy import Lazy

_datasets = Lazy("faiss.contrib.datasets")


class Split(NamedTuple):
    """Rows to train on, rows to search in, and queries, all (n, d) float32."""

    train: Tensor
    base: Tensor
    queries: Tensor


def synthetic(d: int, n_train: int, n_base: int, n_queries: int, seed: int = 1338) -> Split:
    """FAISS's own synthetic rows, which its suite draws: points of a 10-dimensional space, bent into d."""
    drawn = _datasets.SyntheticDataset(d, n_train, n_base, n_queries, seed=seed)
    return Split(*map(torch.from_numpy, (drawn.get_train(), drawn.get_database(), drawn.get_queries())))


def uniform(n: int, d: int, seed: int = 123) -> Tensor:
    """(n, d) float32 of values between 0 and 1."""
    return torch.from_numpy(np.random.default_rng(seed).random((n, d), dtype=np.float32))


def flat_cosine(x: Tensor, y: Tensor) -> float:
    """Cosine of two matrices as if each were one vector."""
    return float(torch.nn.functional.cosine_similarity(x.flatten(), y.flatten(), dim=0))


def squared_error(x: Tensor, y: Tensor) -> float:
    return float((x.double() - y.double()).square().sum())


def nearest(x: Tensor, queries: Tensor, k: int, metric: str = "l2") -> Tensor:
    """(Q, k) ids of the true nearest rows."""
    x, queries = x.double(), queries.double()
    scores = queries @ x.T if metric == "ip" else -torch.cdist(queries, x)
    return scores.topk(k).indices


def hits(found: Tensor, want: Tensor) -> float:
    """Share of the (Q, k) ids wanted that are among the (Q, any) ids found."""
    return float((want[:, :, None] == found[:, None]).any(2).double().mean())


def decoded_error(codec: Any, x: Tensor) -> float:
    """Squared error of x after a round trip through a fitted codec."""
    return squared_error(x, codec.encode(x).decode())
