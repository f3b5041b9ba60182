"""Look-up tables of queries: what each centroid adds to the score of a row."""

from __future__ import annotations

import torch
from torch import Tensor

from gpuzip._core.device import is_gpu
from gpuzip.ops._dispatch import loops_are_used, loops_of

_TILE = 1 << 17  # table entries that stay in a CPU core's cache while they are summed


def lookup_tables(queries: Tensor, columns: Tensor, is_l2: bool) -> Tensor:
    """Make the tables of queries (Q, M*S) float32 for centroids as columns (S, M, K) -> (Q, M, K).

    Entries are dot products, or minus squared distances. Sums run over one dimension at a time. A matrix
    product would round a query's table differently depending on the other queries, and small distances would
    lose digits.
    """
    if type(queries) is Tensor and loops_are_used() and not is_gpu(queries.device):
        tables: Tensor = loops_of("lookup_tables").lookup_tables(queries, columns, is_l2)
        return tables
    S, M, K = columns.shape
    Q, parts = len(queries), queries.view(-1, M, S, 1)
    tables = queries.new_zeros((Q, M, K)) if is_l2 else queries.new_empty((Q, M, K))
    step = M if is_gpu(queries.device) else max(1, _TILE // max(1, Q * K))
    for m in range(0, M, step):
        some = slice(m, m + step)
        _fill(tables[:, some], parts[:, some], columns[:, some], is_l2)
    return tables


def _fill(tile: Tensor, queries: Tensor, columns: Tensor, is_l2: bool) -> None:
    for s, (query, column) in enumerate(zip(queries.unbind(2), columns.unbind(0), strict=True)):
        if is_l2:
            tile -= (query - column).square_()
        elif s == 0:
            torch.mul(query, column, out=tile)
        elif is_gpu(tile.device):
            tile.addcmul_(query, column)
        else:  # which rounds once or twice, depending on the processor; loops round twice
            tile += query * column
