"""Sums of products beside exact fractions, rounded to the nearest number of float32."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from gpuzip.ops import use_loops
from gpuzip.ops.once_rounded import products_rounded_once, squares_rounded_once


def nearest(exact: Fraction) -> np.float32:
    """The nearest number of float32, of two the one with an even last bit."""
    near = np.float32(float(exact))
    around = [np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))]
    return min(around, key=lambda x: (abs(Fraction(float(x)) - exact), int(x.view(np.uint32)) & 1))


def check(queries: torch.Tensor, words: torch.Tensor) -> None:
    norms = torch.linalg.vector_norm(words, dim=2)
    found = products_rounded_once(queries, words, norms)
    for p, q, w in np.ndindex(*found.shape):
        pairs = zip(queries[p, q].tolist(), words[p, w].tolist(), strict=True)
        exact = sum((Fraction(a) * Fraction(b) for a, b in pairs), Fraction(0))
        assert found[p, q, w].numpy() == nearest(exact), (p, q, w)


@pytest.fixture(params=[True, False], ids=["loops", "torch"], autouse=True)
def ways(request: pytest.FixtureRequest):
    with use_loops(request.param):
        yield


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def test_random_products():
    check(normal(2, 3, 20), normal(2, 8, 20, seed=1))
    check(2 * normal(1, 1, 7), normal(1, 5, 7, seed=1))


@pytest.mark.parametrize("copies", [1, 100], ids=["few", "many"])
def test_sums_beside_the_middle_of_two_numbers(copies: int):
    """float64 holds the middle and not what lies 2**-80 beside it."""
    middles = [[1.0, 2.0**-12, sign * 2.0**-40] for sign in (1, -1, 0)]
    middles += [[1.0, 3 * 2.0**-12, sign * 2.0**-40] for sign in (1, -1, 0)]
    words = torch.tensor(middles * copies, dtype=torch.float64)[None]
    query = torch.tensor([[[1.0, 2.0**-12, 2.0**-40]]], dtype=torch.float64)
    check(query, words)
    check(-query, words)
    found = products_rounded_once(query, words, torch.linalg.vector_norm(words, dim=2))[0, 0]
    assert ((found - 1) * 2**23).tolist() == [1, 0, 0, 2, 1, 2] * copies


def test_sums_that_cancel():
    query = torch.tensor([[[1.0, -1.0, 2.0**-70]]], dtype=torch.float64)
    check(query, torch.tensor([[[3.0, 3.0, 1.0], [3.0, 3.0, 0.0], [0.0, 0.0, 0.0]]], dtype=torch.float64))


def test_squares():
    x = torch.cat([normal(5, 30).float(), torch.zeros(1, 30), torch.full((1, 30), 2.0**-70)])
    x = torch.cat([x, torch.tensor([[1.0, 2.0**-12, 2.0**-40] + 27 * [0.0]])])
    found = squares_rounded_once(x)
    for row, value in zip(x.tolist(), found.numpy(), strict=True):
        assert value == nearest(sum((Fraction(a) ** 2 for a in row), Fraction(0)))


def test_what_is_no_number_stays_none():
    words = normal(1, 4, 3)
    words[0, 1, 0] = float("nan")
    words[0, 2, 0] = float("inf")
    found = products_rounded_once(normal(1, 2, 3, seed=1), words, torch.linalg.vector_norm(words, dim=2))
    assert found.isfinite().sum() == 4
