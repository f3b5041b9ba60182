"""A search of few queries by the exact scores of all rows, of which there are few, in one compiled call."""

import numpy as np

from gpuzip.loops._arrays import flat
from gpuzip.loops._blocks import scratch
from gpuzip.loops._jit import at_address, jit
from gpuzip.loops._least import MOST_IN_ORDER, room_for, to_distances
from gpuzip.loops._unit_rows import unit_rows
from gpuzip.loops.product_few import take_best
from gpuzip.loops.rescore import METRICS, exactly

_exactly = at_address(exactly)
_NO_FLOATS = np.empty(0, np.float32)


class FloatFew:
    """A search of few queries by the scores of `rescore`, which keeps everything but the queries.

    rows (N, D) float32. most: see `AdcFew`.
    """

    def __init__(self, rows, metric, most):
        (self._N, self._D), self._most = rows.shape, most
        every = np.arange(self._N, dtype=np.int64)
        self._rows = rows.numpy().reshape(-1), every * self._D, every, METRICS[metric]

    def can_search(self, Q, k):
        """Return whether one call puts so few rows in order."""
        return k <= MOST_IN_ORDER

    def __call__(self, queries, Q, k, are_distances=False):
        """Find the k best rows as `AdcFew` does. None: a query is not sound, or a score is not finite."""
        scores, rows = np.empty(Q * k, np.float32), np.empty(Q * k, np.int64)
        memory = scratch.kept((Q, self._N, self._D, k), _memory)
        found = queries, Q, self._most, k, scores, rows, are_distances
        return (scores, rows) if _search(*self._rows, *found, *memory, _NO_FLOATS) else None


def _memory(Q, N, D, k):
    return (
        np.empty((Q, D), np.float32),
        np.empty(D, np.float32),
        scratch.take("scores", N, np.float32),
        np.empty(room_for(k), np.uint64),
        exactly.address,
    )


@jit(
    "boolean(float32[::1], int64[::1], int64[::1], intp, float32[::1], intp, float64, intp, float32[::1], "
    "int64[::1], boolean, float32[:, ::1], float32[::1], float32[::1], uint64[::1], intp, float32[::1])"
)
def _search(
    kept,
    places,
    every,
    metric,
    queries,
    Q,
    most,
    k,
    scores,
    rows,
    are_distances,
    asked,
    decoded,
    of_rows,
    keys,
    exactly_at,
    nothing,
):
    if not unit_rows(queries, Q, False, most, flat(asked)):
        return False
    N = len(every)
    for q in range(Q):
        steps = nothing, nothing, metric
        _exactly(exactly_at, asked, kept, places, every, N, q * N, N, *steps, decoded, of_rows)
        own = slice(q * k, (q + 1) * k)
        if not take_best(of_rows, nothing, nothing, keys, k, scores[own], rows[own]):
            return False
    if are_distances:
        to_distances(scores)
    return True
