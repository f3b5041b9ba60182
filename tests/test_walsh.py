"""Walsh-Hadamard transforms beside products with a matrix of Sylvester's construction."""

import math

import pytest
import torch

from gpuzip.ops._dispatch import use_loops
from gpuzip.ops.walsh import butterflies, columns_of_round, walsh, walsh_back


def sylvester(width):
    """(width, width) float64: [[H, H], [H, -H]] of half the width, and so on, over sqrt(width)."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < width:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix / math.sqrt(width)


def by_products(x, signs):
    x = x.double()
    for i, flips in enumerate(signs):
        D, x = x.shape[1], torch.where(flips, -x, x)
        width = 2 ** int(math.log2(D))
        first = 0 if i % 2 == 0 else D - width
        some = slice(first, first + width)
        x[:, some] = x[:, some] @ sylvester(width)
    return x


def drawn(N, D, R):
    g = torch.Generator().manual_seed(D)
    return torch.randn(N, D, generator=g), torch.rand(R, D, generator=g) < 0.5


@pytest.mark.parametrize("D", [1, 2, 3, 8, 12, 31, 96])
@pytest.mark.parametrize("loops", [False, True])
def test_rounds(D, loops):
    for N, R in ((0, 2), (1, 1), (5, 3)):
        x, signs = drawn(N, D, R)
        before = x.clone()
        with use_loops(loops):
            found = walsh(x, signs)
        torch.testing.assert_close(found.double(), by_products(x, signs), rtol=1e-5, atol=1e-5)
        assert torch.equal(x, before)


@pytest.mark.parametrize("D", [2, 7, 24, 32, 65, 130, 700])
@pytest.mark.parametrize("transform", [walsh, walsh_back])
def test_loops_have_the_digits_of_numpy(D, transform):
    for N in (1, 8, 19):
        x, signs = drawn(N, D, 3)
        with use_loops(False):
            plain = transform(x, signs)
        assert torch.equal(transform(x, signs), plain)


@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("transform", [walsh, walsh_back])
def test_a_row_has_its_digits_among_any_others(transform, loops):
    x, signs = drawn(3000, 48, 3)  # several blocks
    with use_loops(loops):
        many = transform(x, signs)
        for row in (7, 1364, 1365, 2999):
            assert torch.equal(many[row], transform(x[row : row + 1], signs)[0])


@pytest.mark.parametrize("D", [1, 5, 16, 40])
def test_the_way_back(D):
    x, signs = drawn(6, D, 3)
    there = walsh(x, signs)
    torch.testing.assert_close(walsh_back(there, signs), x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(there.norm(dim=1), x.norm(dim=1))  # the map is orthonormal


def test_rounds_begin_and_end_with_the_columns_by_turns():
    assert [columns_of_round(12, i) for i in range(3)] == [slice(0, 8), slice(4, 12), slice(0, 8)]
    assert columns_of_round(8, 1) == slice(0, 8)


def test_butterflies_are_their_own_inverse():
    x = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    twice = x.clone()
    butterflies(twice)
    assert not torch.allclose(twice, x)
    butterflies(twice)
    torch.testing.assert_close(twice, x)
