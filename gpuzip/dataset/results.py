"""What a search of a dataset returns."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpuzip.dataset.ids import Array


class Found(NamedTuple):
    """Hold the nearest rows of each query, best first.

    Attributes
    ----------
    values : (Q, k) or (k,) tensor
        Scores, or distances for "l2" and "hamming".
    ids : (Q, k) or (k,) int64 tensor, or array of str objects
        Ids of the rows, as they were given.
    """

    values: Tensor
    ids: Any


class FoundWithin(NamedTuple):
    """Hold all rows within a radius of each query, as the `range_search` of FAISS returns them.

    Attributes
    ----------
    lims : (Q + 1,) int64 tensor
        The rows of query i are those from lims[i] to lims[i + 1], best first.
    values : (lims[-1],) tensor
        Scores, or distances for "l2" and "hamming".
    ids : (lims[-1],) int64 tensor, or array of str objects
        Ids of the rows, as they were given.
    """

    lims: Tensor
    values: Tensor
    ids: Any


def as_given(ids: Array) -> Tensor | np.ndarray[Any, Any]:
    """Ids as a search returns them."""
    return ids if ids.dtype == object else torch.from_numpy(ids.astype(np.int64))
