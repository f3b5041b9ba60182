"""Sums of products of float32, rounded once: to the number of float32 that is nearest to the exact sum.

Such a number does not depend on the order in which anything was added.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.matmul import matrix_product
from gpuzip.ops._dispatch import loops_are_used, loops_of

_AT_ONCE = 1 << 12  # sums that are made again together
_MOST_UNSURE = 1 << 12  # sums whose places a loop lists
_FEW = 64  # sums that Python makes sooner


def products_rounded_once(queries: Tensor, words: Tensor, norms: Tensor) -> Tensor:
    """(P, Q, S) float64 that are float32 or twice one, (P, W, S) the same -> (P, Q, W) float32, on a CPU.

    norms: (P, W) of the words.
    """
    P, Q, S = queries.shape
    W, lengths = words.shape[1], torch.linalg.vector_norm(queries, dim=2)
    found = torch.empty((P, Q, W), dtype=torch.float32, device="cpu")
    for p in range(P):
        sums = matrix_product(torch.mm, queries[p], words[p].T)
        places = _round(sums, lengths[p], norms[p], (S + 8) * 2.0**-53, found[p])
        for some in places.split(_AT_ONCE) if len(places) else ():
            products = queries[p, some // W] * words[p, some % W]
            found[p].view(-1)[some] = _exact(products).float()
    return found


def squares_rounded_once(x: Tensor) -> Tensor:
    """(Q, D) float32 -> (Q,) float32: sums of squares, on a CPU."""
    wide = x.double()
    sums = wide.square().sum(1)
    found = torch.empty((len(x), 1), dtype=torch.float32, device="cpu")
    places = _round(sums[:, None], sums, sums.new_ones(1), (x.shape[1] + 8) * 2.0**-53, found)
    if len(places):
        found[places, 0] = _exact(wide[places].square()).float()
    return found[:, 0]


def _round(sums: Tensor, lengths: Tensor, norms: Tensor, off: float, found: Tensor) -> Tensor:
    """Round sums (Q, W) to found; return the places of those whose errors may matter, of numbers.

    A sum is off by at most off * lengths[q] * norms[w].
    """
    if loops_are_used() and sums.is_contiguous():
        unsure = np.empty(_MOST_UNSURE, np.int64)
        arrays = (x.numpy() for x in (sums, lengths.contiguous(), norms.contiguous()))
        count: int = loops_of("once_rounded").rounded(*arrays, off, found.numpy(), unsure)
        if count <= _MOST_UNSURE:
            places = torch.from_numpy(unsure[:count])
            return places[sums.view(-1)[places].isfinite()]
    found.copy_(sums)
    sizes = lengths[:, None] * off, norms
    differ = torch.addcmul(sums, *sizes, value=-1).float() != torch.addcmul(sums, *sizes).float()
    return (differ & sums.isfinite()).view(-1).nonzero().view(-1)


def _exact(products: Tensor) -> Tensor:
    """(U, S) float64 -> (U,) float64 that round to float32 as the exact sums do, by twice as many digits.

    A sum that float64 does not hold is rounded to the neighbour with an odd last bit, which is never the
    middle of two numbers of float32 (Boldo and Melquiond, 2008).
    """
    if len(products) <= _FEW:
        return torch.tensor([_odd(row) for row in products.tolist()], dtype=torch.float64, device="cpu")
    total, rest = torch.zeros_like(products[:, 0]), torch.zeros_like(products[:, 0])
    for product in products.T.contiguous():
        both = total + product
        part = both - total
        rest += (total - (both - part)) + (product - part)  # what the addition loses
        total = both
    found = total + rest
    lost = rest - (found - total)
    is_even = (found.view(torch.int64) & 1) == 0
    beside = torch.nextafter(found, torch.copysign(torch.full_like(found, float("inf")), lost))
    return torch.where(is_even & (lost != 0), beside, found)


def _odd(row: list[float]) -> float:
    """The same for one sum, exactly."""
    total = math.fsum(row)
    lost = math.fsum([*row, -total])
    is_even = lost != 0 and int(math.ldexp(math.frexp(total)[0], 53)) % 2 == 0
    return math.nextafter(total, math.copysign(math.inf, lost)) if is_even else total
