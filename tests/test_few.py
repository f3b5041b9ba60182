"""Arithmetic on a few values by numpy."""

import numpy as np
import pytest
import torch

from gpuzip._core.few import finite_inverse, is_plain


class Named(torch.Tensor):
    pass


def test_numpy_reads_plain_tensors_alone():
    x = torch.ones(2)
    assert is_plain(x)
    assert is_plain(torch.ones(2, requires_grad=True).detach())
    assert not is_plain(torch.ones(2, requires_grad=True))
    assert not is_plain(x.as_subclass(Named))
    assert not is_plain(torch.nn.Parameter(x))
    assert not is_plain(torch.ones(2, device="meta"))


@pytest.mark.parametrize("value", [1.0, 3.0, 1e38, 2.0**-126, 2.0**-127])
def test_the_inverse_of_what_has_one(value):
    x = np.array([value, 7.0], np.float32)
    assert np.array_equal(finite_inverse(x), 1 / x)


@pytest.mark.parametrize("value", [0.0, 2.0**-149, 2.0**-128])
def test_no_inverse_overflows(value):
    """1 / 2**-128 is 2**128, which float32 does not hold."""
    found = finite_inverse(np.array([value, 2.0], np.float32))
    assert found.dtype == np.float32
    assert found.tolist() == [0.0, 0.5]
