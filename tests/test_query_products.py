"""Products of bytes with a prepared query beside numpy, by VNNI, AVX2 and what every processor has."""

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from gpuzip.loops import _query_products as products  # noqa: E402
from gpuzip.loops._vectors256 import is_here  # noqa: E402

FORMS = [
    pytest.param(
        (True, True), marks=pytest.mark.skipif(not products.takes_signs(), reason="this CPU has no VNNI")
    ),
    pytest.param(
        (True, False), marks=pytest.mark.skipif(not is_here(), reason="this CPU or numba has no AVX2")
    ),
    (False, False),
]


def compiled(intrinsic, count):
    """A function of one intrinsic; it is compiled in each run, as numba's cache would not see a change."""
    names, space = ", ".join(f"x{n}" for n in range(count)), {"intrinsic": intrinsic}
    exec(f"def function({names}):\n    return intrinsic({names})", space)
    return numba.njit(space["function"])


@pytest.fixture(params=FORMS)
def loops(request, monkeypatch):
    has_registers, takes_signs = request.param
    monkeypatch.setattr(products, "is_here", lambda: has_registers)
    monkeypatch.setattr(products, "takes_signs", lambda: takes_signs)
    counts = {"products_of_one": 5, "products_of_four": 6, "products_and_fetches": 7}
    return {name: compiled(getattr(products, name), count) for name, count in counts.items()}


def cases():
    g = np.random.default_rng(0)
    for D in (1, 31, 32, 33, 100, 384):
        yield g.integers(0, 256, (5, D)), g.integers(-128, 128, D)
    for code in (0, 127, 128, 255):
        for number in (-128, -127, 127):
            yield np.full((5, 64), code), np.full(64, number)
    yield np.tile([0, 255], (5, 40)), np.tile([-128, -128, 127, 127], 20)


def test_products_are_those_of_integers(loops):
    for flip in (0, 128):
        for codes, query in cases():
            D = codes.shape[1]
            asked, added = products.prepared(query.astype(np.int8)[None], flip)
            stored = np.full(5 * D + products.WIDTH, 77, np.uint8)  # what follows counts for nothing
            stored[: 5 * D] = codes.reshape(-1) ^ flip
            expected, found = codes @ query, np.full((3, 5), -1, np.int32)
            start, E = stored.ctypes.data, asked.shape[2]
            of_query = asked.ctypes.data, E, added[0]
            loops["products_of_one"](found[0].ctypes.data, start + 4 * D, *of_query)
            loops["products_of_four"](found[1].ctypes.data, start, D, *of_query)
            loops["products_and_fetches"](found[2].ctypes.data, start, D, *of_query, 1 << 10)
            assert found[0, 0] == expected[4]
            np.testing.assert_array_equal(found[1:, :4], [expected[:4]] * 2)
            assert (found[:, 4] == -1).all()
            assert (found[0, 1:] == -1).all()
