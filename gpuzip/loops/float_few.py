"""A search of few queries by products with float rows, of which the best are scored again, in one call."""

import numpy as np

from gpuzip.loops._arrays import flat
from gpuzip.loops._blocks import scratch
from gpuzip.loops._columns import part
from gpuzip.loops._jit import at_address, jit
from gpuzip.loops._least import MOST_IN_ORDER, in_order, key_of, room_for, score_of, write
from gpuzip.loops._unit_rows import unit_rows
from gpuzip.loops.product_few import TOGETHER, above, error_of, multiply, take_best
from gpuzip.loops.rescore import METRICS, exactly

_exactly = at_address(exactly)
_NO_FLOATS = np.empty(0, np.float32)


class FloatFew:
    """A search of few queries by the scores of `rescore`, which keeps everything but the queries.

    rows (N, D) float32. scale, bias, reach, taken, most: see `ProductFew`.
    """

    def __init__(self, rows, metric, scale, bias, reach, taken, most):
        (self._N, self._D), self._taken, number = rows.shape, taken, METRICS[metric]
        of_rows = (part(column, 0, self._N, np.float32) for column in (scale, bias))
        self._rows = rows.numpy(), *of_rows, number, most, *error_of(self._D, reach), _NO_FLOATS

    def can_search(self, Q, k):
        """Return whether so few candidates are taken that one call puts them in order."""
        return self._taken(k, self._N) <= MOST_IN_ORDER

    def at_address(self, queries, Q, k, are_distances, values, rows):
        """Find the k best rows of Q queries: see `ops.few.Few`. False also where candidates prove none."""
        memory = scratch.kept((Q, self._N, self._D, self._taken(k, self._N)), _memory)
        return _search(*self._rows, queries, Q, k, are_distances, values, rows, *memory)


def _memory(Q, N, D, taken):
    return (
        np.empty((Q, D), np.float32),
        np.empty((Q, D), np.float32),
        np.empty(D, np.float32),
        scratch.take("products", TOGETHER * N, np.float32).reshape(TOGETHER, N),
        np.empty(room_for(taken), np.uint64),
        np.empty((2, taken), np.float32),
        np.empty((2, taken), np.int64),
        np.empty(Q * taken, np.uint64),
        exactly.address,
    )


@jit(
    "boolean(float32[:, ::1], float32[::1], float32[::1], intp, float64, float64, float64, float64, "
    "float32[::1], intp, intp, intp, boolean, intp, intp, float32[:, ::1], float32[:, ::1], float32[::1], "
    "float32[:, ::1], uint64[::1], float32[:, ::1], int64[:, ::1], uint64[::1], intp)"
)
def _search(
    kept,
    scale,
    bias,
    metric,
    most,
    error,
    reach,
    lost,
    nothing,
    queries,
    Q,
    k,
    are_distances,
    values,
    rows,
    asked,
    turned,
    decoded,
    products,
    room,
    floats,
    places,
    keys,
    exactly_at,
):
    """turned: queries of norm 1 by cosine, for products. floats: estimates of candidates, and scores."""
    if not unit_rows(queries, Q, False, most, flat(asked)):
        return False
    unit_rows(queries, Q, metric == 1, most, flat(turned))
    (N, D), taken, estimates, own = kept.shape, floats.shape[1], floats[0], floats[1]
    for first in range(0, Q, TOGETHER):
        last = min(first + TOGETHER, Q)
        multiply(kept, turned, first, last, products)
        for q in range(first, last):
            if not take_best(products[q - first], bias, scale, room, taken, estimates, places[0]):
                return False
            for i in range(taken):
                places[1, i] = places[0, i] * D
            steps = nothing, nothing, metric, decoded
            _exactly(exactly_at, asked[q : q + 1], flat(kept), places[1], places[0], N, 0, taken, *steps, own)
            for i in range(taken):
                if not abs(own[i]) < np.inf:
                    return False
                keys[q * taken + i] = key_of(own[i], places[0, i])
            bound = estimates[taken - 1] + above(turned[q], metric == 2, error, reach, lost)
            if score_of(in_order(keys, q * taken, taken, k)) <= bound and taken < N:
                return False
    write(keys, Q, k, are_distances, values, rows)
    return True
