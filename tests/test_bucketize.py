"""bucketize against torch and numpy, the words of pack_bits, and topk against a sort."""

import importlib.util

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuzip.ops import bucketize, bucketize_packed, pack_bits, topk, unpack_bits

HAS_INTERPRETER = importlib.util.find_spec("triton") is not None and not torch.cuda.is_available()
VALUES = st.one_of(
    st.sampled_from(
        [0.0, -0.0, 1.0, -1.0, float("inf"), -float("inf"), 1e-45, -1e-45, 3.4028234663852886e38]
    ),
    st.floats(width=32, allow_nan=False),
)


def paths():
    yield bucketize
    if HAS_INTERPRETER:
        from gpuzip.kernels import bucketize as kernels

        yield kernels.bucketize


@pytest.mark.full
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_counts_are_those_of_torch_and_numpy(data):
    L = data.draw(st.sampled_from([1, 2, 3, 7, 15, 16, 31, 32, 100]))
    boundaries = sorted(data.draw(st.lists(VALUES, min_size=L, max_size=L)))
    x = data.draw(st.lists(st.one_of(VALUES, st.sampled_from(boundaries)), min_size=1, max_size=24))
    rows, table = torch.tensor([x]), torch.tensor([boundaries])
    want = torch.bucketize(rows, table[0])
    assert want[0].tolist() == np.searchsorted(table[0].numpy(), rows[0].numpy(), side="left").tolist()
    for path in paths():
        assert torch.equal(path(rows, table).long(), want)
        assert torch.equal(path(rows, table.expand(len(x), L)).long(), want)


@pytest.mark.parametrize("L", [1, 3, 15, 16, 31, 32, 255])
def test_nan_is_above_every_boundary_and_equal_boundaries_are_all_above_an_equal_value(L):
    x = torch.tensor([[float("nan"), -float("nan"), 2.0, 2.0000002]])
    for path in paths():
        for table in (torch.full((1, L), 2.0), torch.full((4, L), 2.0)):
            assert path(x, table).tolist() == [[L, L, 0, L]]


@pytest.mark.parametrize("nbits", [1, 2, 4, 8])
@pytest.mark.parametrize("D", [1, 12, 33, 64])
def test_packed_counts_are_the_counts_packed(nbits, D):
    g = torch.Generator().manual_seed(D)
    x, table = torch.randn(5, D, generator=g), torch.randn(1, (1 << nbits) - 1, generator=g).sort(1).values
    want = pack_bits(bucketize(x, table), nbits)
    assert torch.equal(bucketize_packed(x, table, nbits), want)
    if HAS_INTERPRETER:
        from gpuzip.kernels import bucketize as kernels

        assert torch.equal(kernels.bucketize_packed(x, table, nbits), want)
        for tile in ((2, 16, 1), (64, 4, 1)):
            assert torch.equal(kernels.bucketize_packed(x, table, nbits, tile=tile), want)


@pytest.mark.skipif(not HAS_INTERPRETER, reason="the interpreter stands in for a GPU")
@pytest.mark.parametrize("nbits", [1, 2, 4])
def test_codes_that_start_at_any_byte_unpack(nbits):
    """A word of 4 bytes is read only where it starts at a multiple of 4."""
    from gpuzip.kernels import bits as kernels

    packed = torch.arange(41, dtype=torch.uint8).view(41, 1) * 6
    for start in range(5):
        part = packed[start : start + 36]
        M = 8 // nbits
        assert torch.equal(kernels.unpack_bits(part, M, nbits), unpack_bits(part.clone(), M, nbits))
        assert torch.equal(kernels.pack_bits(unpack_bits(part, M, nbits), nbits), part)


@pytest.mark.parametrize(
    ("codes", "M", "nbits", "offset", "unit"),
    [
        (96, 8, 4, 0, 4),
        (96, 8, 4, 2, 2),
        (96, 8, 4, 1, 1),
        (10, 2, 4, 0, 1),
        (12, 4, 4, 0, 2),
        (9, 3, 4, 0, 0),
    ],
)
def test_the_word_of_a_string_of_codes(codes, M, nbits, offset, unit):
    pytest.importorskip("triton")
    from gpuzip.kernels.bits import _unit

    assert _unit(codes, M, nbits, offset) == unit


@pytest.mark.full
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_topk_is_a_stable_sort(data):
    N = data.draw(st.sampled_from([1, 7, 300, 4099, 5000]))
    k = data.draw(st.integers(1, min(N, 70)))
    few = data.draw(st.lists(VALUES, min_size=1, max_size=6))
    at = np.random.default_rng(data.draw(st.integers(0, 1000))).integers(0, len(few), N)
    scores = torch.tensor(few, dtype=torch.float32)[torch.from_numpy(at)][None]
    scores[scores == float("inf")] = 1.0
    order = np.lexsort((np.arange(N), -scores[0].numpy()))[:k]
    found = [topk(scores, k)]
    if HAS_INTERPRETER:
        from gpuzip.kernels import topk as kernels

        found.append(kernels.topk(scores, k))
    for values, ids in found:
        assert ids[0].tolist() == order.tolist()
        assert values[0].tolist() == scores[0][order].tolist()
