"""Products of bytes in lanes of AVX-512, and the limits of a scan, beside numpy."""

import numpy as np
import pytest
import torch

numba = pytest.importorskip("numba")

from gpuzip._core.byte_products import products_of_floats  # noqa: E402
from gpuzip.loops import _query_lanes as lanes  # noqa: E402

pytestmark = pytest.mark.skipif(not lanes.is_here(), reason="this CPU has no AVX-512 VNNI")
COUNT = lanes.LANES


def compiled(name, count):
    """A function of one intrinsic; it is compiled in each run, as numba's cache would not see a change."""
    names, space = ", ".join(f"x{n}" for n in range(count)), {"intrinsic": getattr(lanes, name)}
    exec(f"def function({names}):\n    return intrinsic({names})", space)
    return numba.njit(space["function"])


@pytest.fixture(scope="module")
def products():
    """Functions by numbers of rows and groups of queries."""
    names = {
        (8, 2): "products_of_rows",
        (8, 1): "products_of_rows_and_group",
        (1, 2): "products_of_row",
        (1, 1): "products_of_row_and_group",
    }
    return {size: compiled(name, 7) for size, name in names.items()}


def cases():
    """Rows and 32 queries of so many columns: any values, and the greatest and least that there are."""
    g = np.random.default_rng(0)
    for D in (1, 2, 3, 4, 5, 63, 64, 65, 100, 384):
        yield g.integers(0, 256, (8, D)), g.integers(-128, 128, (2 * COUNT, D))
    for code in (0, 127, 128, 255):
        for number in (-128, -127, 127):
            yield np.full((8, 64), code), np.full((2 * COUNT, 64), number)
    yield np.tile([0, 255], (8, 40)), np.tile([-128, -128, 127, 127], (2 * COUNT, 20))


@pytest.mark.parametrize("flip", [0, 128])
def test_products_are_those_of_integers(products, flip):
    for codes, queries in cases():
        D, asked = codes.shape[1], lanes.packed(queries.astype(np.int8))
        E = D + -D % lanes.STEP
        stored = np.full(8 * D + lanes.STEP, 77, np.uint8)  # what follows counts for nothing
        stored[: 8 * D] = codes.reshape(-1) ^ flip
        for (rows, groups), multiply in products.items():
            found, width = np.full((9, 3 * COUNT), -1, np.int32), groups * COUNT
            at = found.ctypes.data, found.strides[0], stored.ctypes.data, D, asked.ctypes.data, E
            multiply(*at, int.from_bytes([flip] * 4, "little", signed=True))
            np.testing.assert_array_equal(found[:rows, :width], codes[:rows] @ queries[:width].T)
            assert (found[rows:] == -1).all()
            assert (found[:, width:] == -1).all()


@pytest.mark.parametrize("Q", [1, 15, 16, 17, 48])
@pytest.mark.parametrize("D", [1, 6, 8])
def test_queries_that_are_packed(Q, D):
    queries = np.random.default_rng(Q).integers(-128, 128, (Q, D)).astype(np.int8)
    words = lanes.packed(queries).view(np.int8).reshape(-1, (D + 3) // 4, COUNT, lanes.STEP)
    whole = words.transpose(0, 2, 1, 3).reshape(-1, (D + 3) // 4 * 4)
    assert (whole[:Q, :D] == queries).all()
    assert (whole[Q:] == 0).all() and (whole[:, D:] == 0).all()


@pytest.mark.parametrize(
    ("n", "Q", "D"), [(1, 5, 7), (70, 16, 64), (33, 17, 33), (100, 40, 4096), (9, 33, 3)]
)
def test_products_of_matrices(n, Q, D):
    from gpuzip.loops.lane_products import products_in_lanes

    g = torch.Generator().manual_seed(n)
    values = torch.randint(0, 256, (n, D), generator=g).to(torch.uint8)
    queries = torch.randint(-128, 128, (Q, D), generator=g).to(torch.int8)
    values[0], queries[0] = 255, -128
    found = products_in_lanes(values, queries)
    assert found.is_contiguous()
    assert torch.equal(found, products_of_floats(values, queries).int())


def test_scores_are_rounded_after_each_step():
    g = np.random.default_rng(1)
    sums, unit, offset = g.integers(-(2**31), 2**31, COUNT), *g.standard_normal((2, COUNT), np.float32)
    scores, (scale, bias) = sums.astype(np.int32), np.array([0.3, -1e4], np.float32)
    compiled("score", 5)(scores.ctypes.data, unit.ctypes.data, offset.ctypes.data, scale, bias)
    expected = (unit * sums.astype(np.float32) + offset) * scale + bias
    np.testing.assert_array_equal(scores.view(np.float32), expected)


def test_rows_above_a_limit_and_their_keys():
    from gpuzip.loops._least import keys_of

    scores = np.array([0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 1e-45] + [2.0] * 8, np.float32)
    limits = np.array([0, 0, 0.5, -1, 1, -np.inf, 0, 0] + [2, 1.5] * 4, np.float32)
    halves = np.empty(COUNT, np.uint32)
    bits = compiled("better", 3)(halves.ctypes.data, scores.ctypes.data, limits.ctypes.data)
    above = scores > limits
    assert [bits >> lane & 1 for lane in range(COUNT)] == above.tolist()
    expected = keys_of(scores, np.zeros(COUNT, np.uint64)) >> np.uint64(32)
    assert (halves[above] == expected[above]).all()


@pytest.mark.parametrize("k", [1, 7, 52, 200])
def test_limits_that_few_more_rows_are_above(k):
    """Ties, lanes without scores and limits that are higher already leave a limit as it was."""
    g, rows = np.random.default_rng(k), 300
    scores = g.standard_normal((rows, 2 * COUNT)).astype(np.float32)
    scores[:, 1], scores[:, 2] = 3, -np.inf
    scores[: rows - k + 1, 3], scores[:, 5] = -np.inf, np.nan
    limits = np.full(COUNT, -np.inf, np.float32)
    limits[4] = 100
    compiled("raise_limits", 5)(limits.ctypes.data, scores.ctypes.data, scores.strides[0], rows, np.int32(k))
    assert limits[[1, 2, 5]].tolist() == [-np.inf] * 3
    assert limits[4] == 100
    assert limits[3] == -np.inf  # as fewer rows than k have a score
    above = (scores[:, 6:COUNT] > limits[6:]).sum(0)
    assert (above >= k).all()
    assert (above <= k + 12).all()
