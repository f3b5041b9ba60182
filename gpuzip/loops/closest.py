"""The best of candidates whose scores are bounded from above, of which few are scored exactly."""

import numpy as np
import torch

from gpuzip.loops._jit import jit
from gpuzip.loops._least import best_of, cut, key_of, score_of

_AT_FIRST = 2  # candidates beyond k


def closest(estimates, rows, ceilings, k, N, gather):
    """Find the k best rows by exact scores among candidates, the best estimates first.

    estimates (Q, taken): float32, -inf where there is no candidate. rows: their numbers. ceilings: the most
    that their exact scores, and those of rows with lower estimates, can be. N: how many rows there are.
    gather(rows (Q, R)) returns exact scores, -inf for row N. A few more than k candidates are scored, and of
    the others those that may be better. -> scores (Q, k), rows (Q, k), and which queries are not proven: (Q,)
    bool, or None if all are. Missing rows are -inf and row 0.
    """
    Q, taken = rows.shape
    bounds, wanted = ceilings.contiguous().numpy(), rows.contiguous().numpy()
    keys, least = np.empty((Q, taken), np.uint64), np.empty(Q, np.float32)
    flat = keys.reshape(-1)
    _drop(estimates.numpy(), wanted, N)
    first = min(taken, k + _AT_FIRST)
    scores = gather(torch.from_numpy(wanted[:, :first])).numpy()
    others = _keep(scores, wanted[:, :first], 0, k, flat, bounds, N, first, least)
    if others:
        some = np.full((Q, others), N, np.int64)
        _may_be_better(bounds, wanted, first, least, some)
        _keep(gather(torch.from_numpy(some)).numpy(), some, first, k, flat, bounds, N, first, least)
    unsure = (least <= bounds[:, -1]) & (estimates.numpy()[:, -1] > -np.inf) if taken < N else None
    found, best = best_of([keys[:, : first + others]], k)
    none = unsure is None or not unsure.any()
    return torch.from_numpy(found), torch.from_numpy(best), None if none else torch.from_numpy(unsure)


@jit("void(float32[:, ::1], int64[:, ::1], intp)")
def _drop(estimates, rows, N):
    for q in range(len(rows)):
        for i in range(rows.shape[1]):
            if estimates[q, i] == -np.inf:
                rows[q, i] = N


@jit(
    "intp(float32[:, ::1], int64[:, :], intp, intp, uint64[::1], float32[:, ::1], intp, intp, float32[::1])",
)
def _keep(scores, rows, first, k, keys, bounds, N, known, least):
    """Set the keys from `first` on, and `least` to the k-th best score.

    Return how many candidates after `known` to score.
    """
    Q, R = scores.shape
    taken, most = bounds.shape[1], 0
    for q in range(Q):
        for i in range(R):
            row = rows[q, i]
            is_row = 0 <= row < N and scores[q, i] > -np.inf
            keys[q * taken + first + i] = key_of(scores[q, i], row) if is_row else np.uint64(2**64 - 1)
        worst = cut(keys, q * taken, first + R, k)
        least[q] = score_of(worst) if worst != np.uint64(2**64 - 1) else np.float32(-np.inf)
        count = 0
        while known + count < taken and bounds[q, known + count] >= least[q]:
            count += 1
        most = max(most, count)
    return most


@jit("void(float32[:, ::1], int64[:, ::1], intp, float32[::1], int64[:, ::1])")
def _may_be_better(bounds, rows, known, least, some):
    for q in range(len(some)):
        for i in range(some.shape[1]):
            if bounds[q, known + i] < least[q]:
                break
            some[q, i] = rows[q, known + i]
