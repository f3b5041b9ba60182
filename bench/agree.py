"""Both sides must have done the same work before either is timed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gpuzip import ProductQuantizer
from gpuzip.ops import unpack_bits

Found = tuple[np.ndarray, np.ndarray]
"""Scores and ids of a search, (Q, k) each."""


def same_codes(x: Tensor, codec: ProductQuantizer, ours: Tensor, theirs: Tensor) -> None:
    """Every code is the same, or its centroid as near but for the last digits."""
    M, K, S = codec.centroids.shape
    mine, others = (unpack_bits(data, M, K.bit_length() - 1).long() for data in (ours, theirs))
    row, m = (mine != others).nonzero(as_tuple=True)
    sub = x.view(-1, M, S)[row, m]
    near, far = ((sub - codec.centroids[m, c[row, m]]).square().sum(1) for c in (mine, others))
    slack = 1e-5 * (near + sub.square().sum(1))
    assert bool(((near - far).abs() <= slack).all()), "codes differ by more than ties"


def same_neighbours(ours: Found, theirs: Found, tolerance: float) -> None:
    """Equal scores for rows that both found; a row that one found alone ties with the last."""
    for values, ids, other_values, other_ids in zip(*ours, *theirs, strict=True):
        mine = dict(zip(ids.tolist(), values.tolist(), strict=True))
        others = dict(zip(other_ids.tolist(), other_values.tolist(), strict=True))
        both = mine.keys() & others.keys()
        assert all(abs(mine[i] - others[i]) <= tolerance for i in both), "scores differ"
        alone = [score for i, score in (mine | others).items() if i not in both]
        assert all(abs(score - values[-1]) <= tolerance for score in alone), "neighbours differ"


def cosine(x: Tensor, y: Tensor) -> float:
    """Cosine of the two matrices flattened, in float64."""
    return float(torch.nn.functional.cosine_similarity(x.double().view(-1), y.double().view(-1), dim=0))
