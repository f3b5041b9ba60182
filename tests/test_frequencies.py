"""Counts rounded to frequencies: every symbol kept, the sum exact, the bits nearly those of the counts."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuzip.archive.frequencies import normalized


def best_by_plain_rounds(counts: list[int]) -> list[int]:
    """Slots given one at a time, as Webster does, after one each."""
    freqs = [int(c > 0) for c in counts]
    for _ in range(4096 - sum(freqs)):
        best = max(range(len(counts)), key=lambda i: Fraction(counts[i], 2 * freqs[i] + 1))
        freqs[best] += 1
    return freqs


@pytest.mark.parametrize(
    "counts", [[3, 5, 0, 7], [1] * 20 + [10**6], [0, 1, 1, 1], [1000, 1, 1], [10**12, 10**6, 3, 0, 1]]
)
def test_slots_go_where_webster_gives_them(counts):
    assert normalized(torch.tensor([counts]))[0, : len(counts)].tolist() == best_by_plain_rounds(counts)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(0, 2**55), min_size=9, max_size=9), min_size=1, max_size=4))
def test_sums_are_exact_and_present_symbols_stay(rows):
    freqs = normalized(torch.tensor(rows))
    assert freqs.shape == (len(rows), 256) and freqs.dtype == torch.int32
    assert (freqs.sum(1) == 4096).all()
    for row, got in zip(rows, freqs.tolist(), strict=True):
        if any(row):
            assert [f > 0 for f in got[:9]] == [c > 0 for c in row] and not any(got[9:])
        else:
            assert got == [4096] + [0] * 255


def test_the_loss_in_bits_is_small():
    counts = (torch.rand(50, 256, generator=torch.Generator().manual_seed(0)) ** 2 * 1e5).long() + 1
    shares, freqs = counts / counts.sum(1, keepdim=True), normalized(counts)
    ideal = -(shares * shares.log2()).sum(1)
    assert ((-(shares * (freqs / 4096).log2()).sum(1) - ideal) < 0.01).all()
    assert math.isclose(ideal.mean(), 7.6, abs_tol=0.3)
