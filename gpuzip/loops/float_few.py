"""A search of few queries by the exact scores of all rows, of which there are few, in one compiled call."""

import numpy as np

from gpuzip.loops._arrays import counts, flat, floats
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

    def at_address(self, queries, Q, k, are_distances, values, rows):
        """Find the k best rows of Q queries: see `ops.few.Few`. False also where a score is not finite."""
        memory = scratch.kept((Q, self._N, self._D, k), _memory)
        found = queries, Q, self._most, k, are_distances, values, rows
        return _search(*self._rows, *found, *memory, _NO_FLOATS)


def _memory(Q, N, D, k):
    return (
        np.empty((Q, D), np.float32),
        np.empty(D, np.float32),
        scratch.take("scores", N, np.float32),
        np.empty(room_for(k), np.uint64),
        exactly.address,
    )


@jit(
    "boolean(float32[::1], int64[::1], int64[::1], intp, intp, intp, float64, intp, boolean, intp, "
    "intp, float32[:, ::1], float32[::1], float32[::1], uint64[::1], intp, float32[::1])"
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
    are_distances,
    values,
    rows,
    asked,
    decoded,
    of_rows,
    keys,
    exactly_at,
    nothing,
):
    if not unit_rows(queries, Q, False, most, flat(asked)):
        return False
    N, scores = len(every), floats(values, Q * k)
    for q in range(Q):
        steps = nothing, nothing, metric
        _exactly(exactly_at, asked, kept, places, every, N, q * N, N, *steps, decoded, of_rows)
        own = floats(values + 4 * q * k, k), counts(rows + 8 * q * k, k)
        if not take_best(of_rows, nothing, nothing, keys, k, *own):
            return False
    if are_distances:
        to_distances(scores)
    return True
