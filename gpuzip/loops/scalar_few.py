"""A search of few queries by codes of one byte per dimension in one compiled call: see `ScalarFew`."""

import numpy as np
import torch

from gpuzip._core.parallel import map_blocks
from gpuzip.loops import scalar_lanes, scalar_topk
from gpuzip.loops._arrays import flat, floats, integers, longs
from gpuzip.loops._blocks import rows_of_a_block, scratch
from gpuzip.loops._bounds import keep_above
from gpuzip.loops._jit import apart, at_address, jit, out_of_line
from gpuzip.loops._least import MOST_SORTED, cut, in_order, key_of, score_of, write
from gpuzip.loops._query_lanes import STEP, pack
from gpuzip.loops._query_products import WIDTH, prepare, takes_signs
from gpuzip.loops._vectors256 import address_of
from gpuzip.loops.rescore import METRICS, exactly
from gpuzip.loops.scalar_topk import can_search, edge_of, multiplies_bytes, multiplies_in_lanes, work_of

_SIZE = np.uint64(2**63 - 1)  # the bits of a float64 without its sign
_NONE = np.empty(0, np.float32)
_NO_MASK = np.empty(0, np.bool_)
_SHARED = 32  # queries that are worth another thread: two groups of lanes
_MOST_AT_ONCE = 64  # queries, for which memory is kept
_SIGNS = takes_signs()
_scan, _exactly = at_address(scalar_topk.scan), at_address(exactly, 1)
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
        self._codes, self._edges = codes.reshape(-1).numpy(), [edge_of(codes, x) for x in (WIDTH, STEP)]
        self._of_codes = self._N, *self._coding, np.array(facts)

    def can_search(self, Q, k):
        """Return whether one call is faster: for rows that threads do not share, or queries that they do."""
        taken = self._taken(k, self._N)
        fits = taken < self._N and k <= MOST_SORTED and (can_search(Q) or not multiplies_bytes())
        is_shared = self._queries_at_once(Q) < Q or torch.get_num_threads() == 1
        return fits and (is_shared or rows_of_a_block(self._N, work_of(Q, self._D), taken) >= self._N)

    def _queries_at_once(self, Q):
        """Return how many of Q queries a thread takes at a time: all of few, else whole pairs of groups."""
        if Q < 2 * _SHARED:
            return Q
        return min(_MOST_AT_ONCE, -(-Q // (torch.get_num_threads() * _SHARED)) * _SHARED)

    def at_address(self, queries, Q, k, are_distances, values, rows):
        """Find the k best rows of Q queries: see `ops.few.Few`. False also where estimates prove none."""
        block = self._queries_at_once(Q)
        if block >= Q:
            return self._search(queries, Q, k, are_distances, values, rows)

        def some(first, last):
            places = queries + 4 * self._D * first, values + 4 * k * first, rows + 8 * k * first
            return self._search(places[0], last - first, k, are_distances, *places[1:])

        return all(map_blocks(some, Q, block, with_caller=True))

    def _search(self, queries, Q, k, are_distances, values, rows):
        by_lanes = multiplies_in_lanes(Q)
        memory = scratch.kept((Q, self._D, self._taken(k, self._N), by_lanes), _memory)
        edge = self._edges[by_lanes]
        return _search(
            self._codes, edge, *self._of_codes, queries, Q, k, are_distances, values, rows, *memory
        )


def _memory(Q, D, taken, by_lanes):
    """Return memory for a search of Q queries, and where the loops are that it calls."""
    lanes, width = (scalar_lanes.places(Q), STEP) if by_lanes else (Q, WIDTH)
    E, whole = D + -D % width, scalar_lanes if by_lanes else scalar_topk
    rounded, room = np.zeros((lanes, E), np.int8), whole.room_for(taken)
    return (
        np.empty((Q, D), np.float32),
        rounded,
        rounded.view(np.int32),
        by_lanes,
        np.empty(lanes * E * (1 if by_lanes else 2), np.uint8),
        np.zeros(Q, np.int32),
        *np.zeros((4, lanes), np.float32),
        np.empty(D + 1),
        taken,
        np.empty(Q * room, np.uint64),
        np.empty(Q, np.intp),
        np.empty((2, room), np.int64),
        np.empty(room, np.float32),
        np.empty(D, np.float32),
        whole.scan.address,
        exactly.address_of(_BYTES),
    )


@jit(
    "float64(float32[::1], intp, float32[::1], float64[::1], intp, float64[::1], int8[:, ::1], float32[::1], "
    "float32[::1], float32[::1], float64[::1])",
    inner=True,
    fastmath={"reassoc"},
)
def _round(query, q, step, middle, metric, facts, rounded, unit, offset, slack, exact):
    """Round a query times step to whole numbers; return the sum of its squares.

    Estimates of scores are (unit * sum of products + offset) * scale + bias, and scores are at most `slack`
    above them: see `ScalarScorer.ceiling`. Sums may be made in any order, as what they lose is in the slack.
    """
    out_of_line()
    D, whole, bits = len(step), rounded[q], longs(address_of(exact), len(exact))
    squares, largest, total, rest, dot = 0.0, np.uint64(0), 0.0, 0.0, 0.0
    for d in range(D):
        squares += np.float64(query[d]) * query[d]
    norm = np.sqrt(squares)
    factor = 1.0
    if metric == 1:
        factor, norm = (1 / norm, 1.0) if norm > 2.0**-127 else (0.0, 0.0)
    for d in range(D):
        value = query[d] * factor
        exact[d] = value * step[d]
        dot += value * middle[d]
    for d in range(D):  # sizes of floats have the order of their bits, which vectors compare
        largest = max(largest, bits[d] & _SIZE)
    bits[D] = largest
    width = np.float64(np.float32(exact[D] / 127))
    inverse = 1 / width if width > 0 else 0.0
    for d in range(D):
        number = max(-127.0, min(127.0, np.rint(exact[d] * inverse)))
        whole[d] = np.int8(number)
        total += number
        rest += (exact[d] - width * number) * (exact[d] - width * number)
    dot -= 128 * width * total
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
    return squares


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
    "int8[:, ::1], int32[:, ::1], boolean, uint8[::1], int32[::1], float32[::1], float32[::1], float32[::1], "
    "float32[::1], float64[::1], intp, uint64[::1], intp[::1], int64[:, ::1], float32[::1], "
    "float32[::1], intp, intp)"
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
    whole,
    words,
    by_lanes,
    rounded,
    added,
    unit,
    offset,
    slack,
    worst,
    exact,
    taken,
    keys,
    counts,
    places,
    own,
    decoded,
    scan_at,
    exactly_at,
):
    D, room = len(step), len(keys) // Q
    given, own_rows, squares = floats(queries, Q * D), flat(asked), 0.0
    for i in range(Q * D):
        own_rows[i] = given[i]
    for q in range(Q):
        squares += _round(asked[q], q, step, middle, metric, facts, whole, unit, offset, slack, exact)
    if not squares < most:
        return False
    if by_lanes:
        pack(words, integers(address_of(rounded), len(rounded) // 4))
    else:
        prepare(whole, 0, _SIGNS, rounded, added)
    of_rows = scale, bias, _NO_MASK
    _scan(scan_at, codes, edge, D, 0, N, rounded, added, unit, offset, *of_rows, taken, keys, counts, worst)
    at = places, own, decoded, exactly_at
    for q in range(Q):
        start = q * room
        if counts[q] < taken:  # estimates of other rows are NaN
            return False
        cut(keys, start, counts[q], k)
        least = _score(keys, start, k, asked, q, codes, N, first, step, metric, at)
        limit = least - slack[q] - np.float32(2.0**-20) * abs(least)
        more = keep_above(keys, start + k, start + k, start + counts[q], limit)
        others = _score(keys, start + k, more - start - k, asked, q, codes, N, first, step, metric, at)
        if not (least > -np.inf and others > -np.inf):
            return False
        if score_of(in_order(keys, start, more - start, k)) <= worst[q] + slack[q]:
            return False
    write(keys, Q, k, are_distances, values, rows)
    return True
