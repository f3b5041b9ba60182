"""Counts of symbols as frequencies that sum to 4096, which the entropy coder reads."""

from __future__ import annotations

import torch
from torch import Tensor

#: The sum of the frequencies of a table: probabilities have 12 bits.
TOTAL = 4096

_SYMBOLS = 256
_SUM = 1 << 44  # counts are scaled to sums of about this


def normalized(counts: Tensor) -> Tensor:
    """Round counts to frequencies that sum to 4096, each at least 1 where the count is not 0.

    Webster's method: slots go to the symbols with the largest count / (frequency + 1/2), which is nearly the
    least cost in bits. It uses whole numbers alone, so every computer gives the same frequencies.

    Parameters
    ----------
    counts : Tensor
        (T, K) whole numbers of 0 or more, with K up to 256.

    Returns
    -------
    Tensor
        (T, 256) int32. A row without any count gives all slots to symbol 0, the escape.

    Examples
    --------
    >>> import torch
    >>> from gpuzip.archive.frequencies import normalized
    >>> normalized(torch.tensor([[0, 3000, 1000, 1]]))[0, :4].tolist()
    [0, 3071, 1024, 1]
    """
    wanted = torch.nn.functional.pad(counts.long(), (0, _SYMBOLS - counts.shape[1]))
    wanted[:, 0] += wanted.amax(1) == 0
    wanted = _scaled(wanted)
    low = wanted.sum(1) // (TOTAL + _SYMBOLS)  # of this divisor, the frequencies sum to TOTAL or more
    high = wanted.sum(1) // (TOTAL - _SYMBOLS) + 1  # and of this one to TOTAL or less
    while bool((high - low > 1).any()):
        middle = (low + high) // 2
        sums = _divided(wanted, middle).sum(1)
        high = torch.where(sums <= TOTAL, middle, high)
        low = torch.where(sums >= TOTAL, middle, low)  # both where the sum is right: nothing is left to do
    freqs = _divided(wanted, high)
    rows = (freqs.sum(1) < TOTAL).nonzero()[:, 0]
    while len(rows):  # symbols that got the same quotient: the first ones get the slots that are left
        freqs[rows, (wanted[rows] // (2 * freqs[rows] + 1)).argmax(1)] += 1
        rows = rows[freqs[rows].sum(1) < TOTAL]
    return freqs.int()


def _scaled(counts: Tensor) -> Tensor:
    """Return counts in the same proportions whose sum is about _SUM; none that is there becomes 0."""
    small = torch.where(
        counts > 0, (counts // (counts.amax(1, keepdim=True) // (_SUM >> 8) + 1)).clamp_min(1), 0
    )
    return small * (_SUM // small.sum(1, keepdim=True)).clamp_min(1)


def _divided(wanted: Tensor, divisor: Tensor) -> Tensor:
    """Return round(wanted / divisor), at least 1 where it is wanted."""
    freqs = (2 * wanted + divisor[:, None]) // (2 * divisor[:, None])
    return torch.where(wanted > 0, freqs.clamp_min(1), 0)
