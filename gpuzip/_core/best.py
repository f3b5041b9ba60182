"""Places of the greatest values of an array, by numpy, for searches without compiled loops."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_GROUPS = 16384  # maxima that are partitioned: few, but many times more than most k


def places_of_best(values: Array, k: int, slack: float = 0.0) -> Array:
    """Ascending places of the values (N,) that are not below the k-th greatest one by more than slack.

    These are the k greatest, all that equal the last of them, and some more. Without NaN, 1 <= k <= N.
    """
    least = _below_kth(values, k)
    places: Array = np.flatnonzero(values >= (least - slack if slack else least))
    return places


def _below_kth(values: Array, k: int) -> Any:
    """A value that k of them reach, near the greatest such value: k groups of values reach it."""
    N = len(values)
    if k >= N:
        return values.min()
    groups = max(min(_GROUPS, N // 8), 16 * k)
    if 2 * groups > N:
        return np.partition(values, N - k)[N - k]
    whole = N - N % groups
    maxima = values[:whole].reshape(-1, groups).max(0)
    return np.partition(maxima, groups - k)[groups - k]


def in_order(values: Array, places: Array, k: int) -> Array:
    """The k of ascending places whose values (N,) are greatest, the greatest first, the lowest of equals."""
    ordered: Array = places[np.argsort(-values[places], kind="stable")[:k]]
    return ordered
