"""The buffer of the k least keys, beside numpy's sort."""

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from gpuzip.loops import _least  # noqa: E402

# From the best score to the worst; neighbours differ by the least that float32 can hold, or by much.
SCORES = np.array(
    [np.inf, 3.4e38, 2, np.nextafter(np.float32(1), 2, dtype=np.float32), 1, 1e-38, 1e-45, 0]
    + [-1e-45, -1e-38, -1, -2, -3.4e38, -np.inf],
    np.float32,
)


@pytest.fixture(scope="module")
def to_keys():
    key_of = _least.key_of

    @numba.njit("uint64[:](float32[:], uint64[:])")
    def compiled(scores, rows):
        keys = np.empty(len(scores), np.uint64)
        for i in range(len(scores)):
            keys[i] = key_of(scores[i], rows[i])
        return keys

    return compiled


@pytest.fixture(scope="module")
def to_scores():
    score_of = _least.score_of

    @numba.njit("float32[:](uint64[:])")
    def compiled(keys):
        return np.array([score_of(key) for key in keys], np.float32)

    return compiled


def test_a_better_score_has_a_lesser_key(to_keys, to_scores):
    """Whatever the rows are: the best score has the last row here."""
    rows = np.arange(len(SCORES), dtype=np.uint64)[::-1] + np.uint64(2**32 - len(SCORES))
    keys = to_keys(SCORES, rows)
    assert (keys[:-1] < keys[1:]).all()
    assert keys[-1] < _least.NONE
    assert (to_scores(keys) == SCORES).all()
    assert (keys & np.uint64(2**32 - 1) == rows).all()


def test_among_equal_scores_the_lowest_row_has_the_least_key(to_keys):
    rows = np.array([0, 1, 2, 2**31, 2**32 - 1], np.uint64)
    for score in SCORES:
        keys = to_keys(np.full(len(rows), score), rows)
        assert (keys[:-1] < keys[1:]).all()


def test_both_zeros_are_one_score(to_keys):
    zeros, rows = np.array([-0.0, 0.0, -0.0], np.float32), np.arange(3, dtype=np.uint64)
    keys = to_keys(zeros, rows)
    assert (keys >> np.uint64(32) == keys[0] >> np.uint64(32)).all()


@pytest.fixture(scope="module")
def cut():
    inner = _least.cut  # loops alone may call it

    @numba.njit("uint64(uint64[::1], intp, intp, intp)")
    def compiled(keys, start, count, k):
        return inner(keys, start, count, k)

    return compiled


def streams(n):
    """Keys of n rows in different orders."""
    g = np.random.default_rng(n)
    some = g.integers(0, 2**64 - 1, n, np.uint64, endpoint=True)
    organ = np.concatenate([np.arange(n - n // 2), np.arange(n // 2)[::-1]]).astype(np.uint64)
    yield some
    yield np.sort(some)
    yield np.sort(some)[::-1].copy()
    yield g.integers(0, 4, n).astype(np.uint64)
    yield np.full(n, 7, np.uint64)
    yield organ
    yield np.where(g.random(n) < 0.5, _least.NONE, some)


@pytest.mark.parametrize("k", [1, 2, 10, 1000])
def test_cut_leaves_the_least_in_front(cut, k):
    """And what is before and behind the buffer as it was."""
    room = _least.room_for(k)
    assert room > k
    for count in (k, k + 1, room):
        for stream in streams(count):
            keys = np.concatenate([np.full(3, 5, np.uint64), stream, np.zeros(2, np.uint64)])
            last = cut(keys, 3, count, k)
            ordered = np.sort(stream)
            assert (np.sort(keys[3 : 3 + k]) == ordered[:k]).all()
            assert (np.sort(keys[3 : 3 + count]) == ordered).all()
            assert last == ordered[k - 1]
            assert (keys[:3] == 5).all() and (keys[3 + count :] == 0).all()


@pytest.mark.parametrize("k", [1, 10, 1000])
def test_a_stream_that_is_cut_when_the_buffer_is_full(cut, k):
    room = _least.room_for(k)
    for stream in streams(3 * room + 1):
        buffer, count = np.empty(room, np.uint64), 0
        for key in stream:
            buffer[count] = key
            count += 1
            if count == room:
                cut(buffer, 0, room, k)
                count = k
        assert (np.sort(buffer[:count])[:k] == np.sort(stream)[:k]).all()


def sorted_rows(scores, rows, k):
    """Scores and rows of the k best by (score, row), -inf and 0 where there are fewer."""
    order = np.lexsort([rows, -scores])[:k]
    absent = k - len(order)
    return (
        np.concatenate([scores[order], np.full(absent, -np.inf, np.float32)]),
        np.concatenate([rows[order], np.zeros(absent, rows.dtype)]),
    )


@pytest.mark.parametrize("k", [1, 5, 40])
@pytest.mark.parametrize("n", [0, 1, 39, 300])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_best_of_parts(to_keys, k, n, parts):
    """Each part holds the least keys of its rows, in any order, and NONE in the places left."""
    Q, room, g = 3, _least.room_for(k), np.random.default_rng(n + k)
    scores = g.choice(np.concatenate([SCORES[1:], -SCORES[7:8]]), (Q, n))  # ties, and both zeros
    rows = np.arange(n, dtype=np.uint64) * np.uint64(2**32 // 300)
    buffers = []
    for some in np.array_split(np.arange(n), parts):
        buffer = np.full((Q, room), _least.NONE)
        for q in range(Q):
            keys = np.sort(to_keys(scores[q][some], rows[some]))[:k]
            buffer[q, : len(keys)] = g.permutation(keys)
        buffers.append(buffer)
    values, ids = _least.best_of(buffers, k)
    assert (values.dtype, ids.dtype) == (np.float32, np.int64)
    for q in range(Q):
        want = sorted_rows(scores[q], rows.astype(np.int64), k)
        assert (values[q] == want[0]).all()
        assert (ids[q] == want[1]).all()


@pytest.fixture(scope="module")
def in_order():
    inner = _least.in_order

    @numba.njit("uint64(uint64[::1], intp, intp, intp)")
    def compiled(keys, start, count, k):
        return inner(keys, start, count, k)

    return compiled


@pytest.mark.parametrize("k", [1, 2, 48, 49, 50, 1000])
def test_in_order_sorts_the_least_in_front(in_order, k):
    """By insertion and by a heap, and leaves what is before and behind the buffer."""
    for count in (k, k + 1, 2 * k + 3):
        for stream in streams(count):
            keys = np.concatenate([np.full(3, 5, np.uint64), stream, np.zeros(2, np.uint64)])
            last, ordered = in_order(keys, 3, count, k), np.sort(stream)
            assert (keys[3 : 3 + k] == ordered[:k]).all()
            assert (np.sort(keys[3 : 3 + count]) == ordered).all()
            assert last == ordered[k - 1]
            assert (keys[:3] == 5).all() and (keys[3 + count :] == 0).all()
