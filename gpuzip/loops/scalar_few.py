"""A search of few queries by codes of one byte per dimension in one compiled call: see `ScalarFew`."""

import numpy as np

from gpuzip.loops._arrays import flat
from gpuzip.loops._blocks import rows_of_a_block, scratch
from gpuzip.loops._bounds import keep_above
from gpuzip.loops._jit import apart, at_address, jit
from gpuzip.loops._least import MOST_SORTED, cut, in_order, key_of, room_for, score_of, write
from gpuzip.loops._query_products import WIDTH
from gpuzip.loops._unit_rows import unit_rows
from gpuzip.loops.rescore import METRICS, exactly
from gpuzip.loops.scalar_topk import can_search, edge_of, multiplies_bytes
from gpuzip.loops.scalar_topk import scan as whole_scan

_NONE = np.empty(0, np.float32)
_NO_MASK = np.empty(0, np.bool_)
_scan, _exactly = at_address(whole_scan), at_address(exactly, 1)
_BYTES = 1  # the signature of `exactly` for codes of bytes


class ScalarFew:
    """A search of few queries by codes (N, D) uint8, of which all but the queries is at hand.

    A row is first + step * code, first and step (D,) float32; middle: (D,) float64, the values of code 128.
    facts: what `ScalarScorer` knows of the rows, five floats. scale, bias: (N,) or None. most: queries whose
    squares do not add up to less are not sound. taken: of k and N, how many rows are scored exactly.
    """

    def __init__(self, codes, first, step, middle, metric, facts, scale, bias, taken, most=np.inf):
        (self._N, self._D), self._taken = codes.shape, taken
        of_rows = [_NONE if x is None else x.numpy() for x in (scale, bias)]
        self._coding = first.numpy(), step.numpy(), middle.numpy(), METRICS[metric], most, *of_rows
        self._of_codes = codes.reshape(-1).numpy(), edge_of(codes), self._N, *self._coding, np.array(facts)

    def can_search(self, Q, k):
        """Return whether one call is faster: for rows that threads do not share, and few queries."""
        taken = self._taken(k, self._N)
        fits = taken < self._N and k <= MOST_SORTED and (can_search(Q) or not multiplies_bytes())
        return fits and rows_of_a_block(self._N, self._D * Q, taken) >= self._N

    def at_address(self, queries, Q, k, are_distances, values, rows):
        """Find the k best rows of Q queries: see `ops.few.Few`. False also where estimates prove none."""
        memory = scratch.kept((Q, self._D, self._taken(k, self._N)), _memory)
        return _search(*self._of_codes, queries, Q, k, are_distances, values, rows, *memory)


def _memory(Q, D, taken):
    return (
        np.empty((Q, D), np.float32),
        np.zeros(Q * 2 * (D + -D % WIDTH), np.uint8),
        np.empty(Q, np.int32),
        *np.empty((4, Q), np.float32),
        np.empty(D),
        np.empty(Q * room_for(taken), np.uint64),
        np.empty(Q, np.intp),
        np.empty((2, taken), np.int64),
        np.empty(taken, np.float32),
        np.empty(D, np.float32),
        whole_scan.address,
        exactly.address_of(_BYTES),
    )


@jit(
    "void(float32[:, ::1], intp, float32[::1], float64[::1], intp, float64[::1], uint8[::1], int32[::1], "
    "float32[::1], float32[::1], float32[::1], float64[::1])",
    inner=True,
)
def _round(queries, q, step, middle, metric, facts, asked, added, unit, offset, slack, exact):
    """Round a query times step to whole numbers, as `prepared` does.

    Estimates of scores are (unit * sum of products + offset) * scale + bias, and scores are at most `slack`
    above them: see `ScalarScorer.ceiling`.
    """
    apart()
    D, E = len(step), len(asked) // (2 * len(unit))
    sizes, masks, more = asked[2 * E * q :], asked[2 * E * q + E :], 0
    squares, largest, total, rest, dot = 0.0, 0.0, 0.0, 0.0, 0.0
    for d in range(D):
        squares += np.float64(queries[q, d]) * queries[q, d]
    norm = np.sqrt(squares)
    factor = 1.0
    if metric == 1:
        factor, norm = (1 / norm, 1.0) if norm > 2.0**-127 else (0.0, 0.0)
    for d in range(D):
        value = queries[q, d] * factor
        exact[d], dot = value * step[d], dot + value * middle[d]
        largest = max(largest, abs(exact[d]))
    width = np.float64(np.float32(largest / 127))
    inverse = 1 / width if width > 0 else 0.0
    for d in range(D):
        number = max(-127.0, min(127.0, np.rint(exact[d] * inverse)))
        sizes[d], masks[d] = np.uint8(abs(number)), np.uint8(127 if number < 0 else 128)
        more += np.int64(max(-number, 0.0))
        total += number
        rest += (exact[d] - width * number) * (exact[d] - width * number)
    added[q], dot = 128 * np.int64(total) + more, dot - 128 * width * total
    hidden, small = 1.001 * np.sqrt(rest), D * 2.0**-22
    steps = 2.0**-22 * (norm * facts[4] + 2 * abs(dot))
    if metric == 1:
        above = hidden * facts[1] + small + steps * facts[3]
    else:
        above = hidden * facts[0] + small * norm * facts[2] + steps
    if metric == 2:
        above = 2 * above + (small + 2.0**-19) * (norm + facts[2]) * (norm + facts[2]) - squares
    times = 2 if metric == 2 else 1
    unit[q], offset[q], slack[q] = times * width, times * dot, above + 2.0**-20 * abs(above)


@jit(
    "float32(uint64[::1], intp, intp, float32[:, ::1], intp, uint8[::1], intp, float32[::1], float32[::1], "
    "intp, Tuple((int64[:, ::1], float32[::1], float32[::1], intp)))",
    inner=True,
)
def _score(keys, start, count, queries, q, codes, N, first, step, metric, at):
    """Make keys of estimates those of scores; return the least score, inf without keys or NaN if one is.

    at: memory for places and for scores of rows, and for one row; where the code of `exactly` is.
    """
    apart()
    places, own, decoded, exactly_at = at
    D, least = queries.shape[1], np.float32(np.inf)
    where, ids, found = places[0, :count], places[1, :count], own[:count]
    for i in range(count):
        ids[i] = np.int64(keys[start + i] & np.uint64(0xFFFFFFFF))
        where[i] = ids[i] * D
    asked = queries[q : q + 1]
    _exactly(exactly_at, asked, codes, where, ids, N, 0, count, first, step, metric, decoded, found)
    for i in range(count):
        if not abs(found[i]) < np.inf:
            return np.float32(np.nan)
        least = min(least, found[i])
        keys[start + i] = key_of(found[i], ids[i])
    return least


@jit(
    "boolean(uint8[::1], uint8[::1], intp, float32[::1], float32[::1], float64[::1], intp, float64, "
    "float32[::1], float32[::1], float64[::1], intp, intp, intp, boolean, intp, intp, float32[:, ::1], "
    "uint8[::1], int32[::1], float32[::1], float32[::1], float32[::1], float32[::1], float64[::1], "
    "uint64[::1], intp[::1], int64[:, ::1], float32[::1], float32[::1], intp, intp)"
)
def _search(
    codes,
    edge,
    N,
    first,
    step,
    middle,
    metric,
    most,
    scale,
    bias,
    facts,
    queries,
    Q,
    k,
    are_distances,
    values,
    rows,
    asked,
    rounded,
    added,
    unit,
    offset,
    slack,
    worst,
    exact,
    keys,
    counts,
    places,
    own,
    decoded,
    scan_at,
    exactly_at,
):
    D, taken, room = len(step), len(own), len(keys) // Q
    if not unit_rows(queries, Q, False, most, flat(asked)):
        return False
    for q in range(Q):
        _round(asked, q, step, middle, metric, facts, rounded, added, unit, offset, slack, exact)
    of_rows = scale, bias, _NO_MASK
    _scan(scan_at, codes, edge, D, 0, N, rounded, added, unit, offset, *of_rows, taken, keys, counts, worst)
    at = places, own, decoded, exactly_at
    for q in range(Q):
        start = q * room
        if counts[q] < taken:  # estimates of other rows are NaN
            return False
        last = score_of(cut(keys, start, room, taken))
        cut(keys, start, taken, k)
        least = _score(keys, start, k, asked, q, codes, N, first, step, metric, at)
        limit = least - slack[q] - np.float32(2.0**-20) * abs(least)
        more = keep_above(keys, start + k, start + k, start + taken, limit)
        others = _score(keys, start + k, more - start - k, asked, q, codes, N, first, step, metric, at)
        if not (least > -np.inf and others > -np.inf):
            return False
        if score_of(in_order(keys, start, more - start, k)) <= last + slack[q]:
            return False
    write(keys, Q, k, are_distances, values, rows)
    return True
