"""Rows drawn from those that lie on several ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import whole
from gpuzip._core.rows import Matrix, Rows
from gpuzip.distributed.group import TIMEOUT, Ranks

#: Rows that `fit` draws: 256 for each of 256 centroids, and all that a rotation uses.
SAMPLE = 1 << 16


def sample(
    x_of_this_rank: Matrix, n: int = SAMPLE, *, seed: int = 0, group: Any = None, timeout: float = TIMEOUT
) -> Tensor:
    """Draw rows from the rows of all ranks, without repetition, and without moving the others.

    Parameters
    ----------
    x_of_this_rank : (N, D) float tensor, array or memory map
        The rows of this rank, 0 or more.
    n : int, default 65536
        Rows to draw. All, if there are no more.
    seed : int, default 0
        Seed of the draw.
    group, timeout : optional
        As in `search`.

    Returns
    -------
    (n, D) float tensor
        The rows, the same on every rank, in the order of the ranks: those that one process draws from all
        rows. float32, or 16-bit floats as given.

    Notes
    -----
    A rank receives from each other one as many rows as are drawn from the one with most: n / R of R ranks
    with equally many.

    Examples
    --------
    >>> import torch
    >>> from gpuzip import distributed
    >>> distributed.sample(torch.eye(8), 3).shape
    torch.Size([3, 8])
    """
    who = "distributed.sample"
    ranks = Ranks(who, group, timeout)
    rows, n, seed = ranks.all_do(
        lambda: (Rows(who, x_of_this_rank), whole(who, "n", n), whole(who, "seed", seed, 0))
    )
    return drawn(ranks, rows, n, seed)


def drawn(ranks: Ranks, rows: Rows, n: int, seed: int) -> Tensor:
    """`sample` of checked rows."""
    kind = repr((rows.d, rows.dtype, n, seed)).encode()
    ranks.same("the columns and the dtype of x, n and seed", kind)
    sizes = [size for (size,) in ranks.facts([rows.n])]
    total = sum(sizes)
    if total <= n:
        ids = np.arange(total)
    else:  # as `Rows.sample` draws
        ids = np.sort(np.random.default_rng(seed).choice(total, n, replace=False, shuffle=False))
    ends = np.cumsum(sizes)
    counts = np.diff(np.searchsorted(ids, [0, *ends])).tolist()
    start = int(ends[ranks.rank]) - sizes[ranks.rank]
    own = torch.from_numpy(ids[(ids >= start) & (ids < ends[ranks.rank])] - start)
    return torch.cat(ranks.gathered_rows(ranks.all_do(lambda: rows.rows(own)), counts))
