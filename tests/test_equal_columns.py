"""Matrix products may round equal columns apart, as OpenBLAS does on some processors: no row gets lost by it.

Kernels repeat the last centroid up to a whole tile. In these tests the interpreter's products differ in their
last bits from column to column, the repeated ones now below the last, now above it.
"""

import importlib
import importlib.util

import numpy as np
import pytest
import torch

from gpuzip.ops import OPS
from gpuzip.ops.kmeans_step import apart

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter's product is the one to disturb"),
]


@pytest.fixture(params=[-1, 1], ids=["falling", "rising"])
def disturbed(request, monkeypatch):
    """Column j of scores is off by j units in the last place; products with zeros and ones stay exact."""
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    plain = InterpreterBuilder.create_dot

    def create_dot(self, a, *args):
        result = plain(self, a, *args)
        if a.data.dtype != np.float16:  # scores are products of halves
            return result
        off = 1 + request.param * np.arange(result.data.shape[-1]) * 2.0**-23
        return TensorHandle((result.data * off).astype(np.float32), result.dtype)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)


def launcher(name):
    module, _, function = OPS[name].kernel.partition(":")
    return getattr(importlib.import_module(module), function)


LARGE = [pytest.param(size, marks=pytest.mark.full) for size in [(1031, 3, 17, 3), (301, 2, 200, 8)]]
SIZES = [(37, 3, 5, 4), *LARGE]


@pytest.mark.parametrize("size", SIZES)
def test_labels_name_centroids(size, disturbed):
    N, M, K, S = size
    x, centroids = apart(N, M, K, S, "cpu")
    labels = launcher("assign")(x, centroids, False).long()
    assert int(labels.max()) < K
    chosen = centroids[torch.arange(M), labels]
    assert bool(((x.view(-1, M, S) - chosen).abs() < 0.1).all())  # each row is within 0.1 of its centroid


@pytest.mark.parametrize("size", SIZES)
def test_a_step_counts_every_row(size, disturbed):
    N, M, K, S = size
    x, centroids = apart(N, M, K, S, "cpu")
    sums, counts = launcher("kmeans_step")(x, centroids)
    assert counts.sum(1).tolist() == [N] * M
    torch.testing.assert_close(sums.sum(1), x.view(N, M, S).sum(0), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("K", [3, 5, 13])
def test_few_centroids_keep_every_row(K, disturbed):
    """Means of cells that hold all rows are those of `kmeans_step`; a lost row would move them."""
    x, centroids = apart(200, 2, K, 4, "cpu")
    got = launcher("lloyd")(x, centroids, 3, 1)
    want = OPS["lloyd"].reference(x, centroids, 3, 1)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-3)
