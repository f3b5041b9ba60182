"""What a search returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class SearchResult(NamedTuple):
    """Hold what a search found, best first. It is a tuple: `values, ids = codes.search(queries)`.

    Attributes
    ----------
    values : (Q, k) or (k,) tensor
        Scores, or distances for "l2" and "hamming".
    ids : (Q, k) or (k,) int64 tensor
        Row numbers.
    """

    values: Tensor
    ids: Tensor
