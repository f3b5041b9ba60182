"""Rows that upper bounds let through, beside all exact sums."""

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from gpuzip.loops import _bounds, _least  # noqa: E402

K, NIBBLES, N = 16, 6, 500
NO_FLOATS = np.empty(0, np.float32)


@pytest.fixture(scope="module")
def calls():
    """The inner loops, for Python."""
    key_of, score_of, keep_above = _least.key_of, _least.score_of, _bounds.keep_above
    settle, make_room = _bounds.settle, _bounds.make_room

    @numba.njit
    def keys_of(scores, rows):
        keys = np.empty(len(scores), np.uint64)
        for i in range(len(scores)):
            keys[i] = key_of(scores[i], rows[i])
        return keys

    @numba.njit
    def scores_of(keys):
        return np.array([score_of(key) for key in keys], np.float32)

    @numba.njit
    def keep(keys, into, first, last, limit):
        return keep_above(keys, into, first, last, limit)

    @numba.njit
    def settled(room_first, keys, counts, worst, k, tables, places, none, shift):
        if room_first:
            make_room(keys, counts, worst, k, tables, 32, places, none, none, none, 0, shift)
        settle(keys, counts, worst, k, tables, 32, places, none, none, none, 0, shift)

    return keys_of, scores_of, keep, settled


def test_keys_below_a_limit_leave(calls):
    keys_of, scores_of, keep, _ = calls
    keys = keys_of(np.array([9, 1, 5, 3, 5, 4], np.float32), np.arange(6, dtype=np.uint64))
    end = keep(keys, 1, 2, 6, np.float32(4))
    assert end == 4
    assert scores_of(keys[:end]).tolist() == [9, 5, 5, 4]


@pytest.mark.full
@pytest.mark.parametrize("room_first", [False, True])
@pytest.mark.parametrize("k", [1, 10, 100])
@pytest.mark.parametrize("error", [0.0, 0.5, 40.0])
def test_the_best_sums_are_kept(calls, room_first, k, error):
    """Of rows whose bounds are up to twice the error above their sums."""
    keys_of, scores_of, _, settled = calls
    drawn = np.random.default_rng(k)
    codes = drawn.integers(0, 256, (N, NIBBLES // 2), dtype=np.uint8)
    tables = drawn.standard_normal((NIBBLES, K)).astype(np.float32)
    sums = np.zeros(N, np.float32)
    for byte in range(NIBBLES // 2):
        sums += tables[2 * byte, codes[:, byte] & 15] + tables[2 * byte + 1, codes[:, byte] >> 4]
    sums += np.float32(0.25)
    bounds = (sums + 2 * error * drawn.random(N)).astype(np.float32)
    bounds += np.float32(1e-4)
    keys = np.full(N + _bounds.room_for_bounds(k), _least.NONE)
    keys[:N] = keys_of(bounds, np.arange(N, dtype=np.uint64))
    counts, worst = np.array([N, 0, N], np.intp), np.array([-np.inf, 2 * error + 1e-3], np.float32)
    places = np.array([[codes.ctypes.data, NIBBLES // 2, NIBBLES // 2]], np.int64)
    settled(room_first, keys, counts, worst, k, tables.reshape(-1), places, NO_FLOATS, np.float32(0.25))
    assert counts[0] == counts[1] == k
    kept = np.sort(keys[:k])
    best = np.lexsort((np.arange(N), -sums))[:k]
    assert (kept & np.uint64(2**32 - 1)).tolist() == best.tolist()
    assert np.array_equal(scores_of(kept), sums[best])
    assert worst[0] == sums[best[-1]]
