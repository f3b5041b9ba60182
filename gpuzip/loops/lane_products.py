"""Products of bytes with many queries by AVX-512, for `scalar_scan`."""

import torch
from torch import Tensor

from gpuzip.loops._jit import jit
from gpuzip.loops._query_lanes import (
    LANES,
    ROWS,
    STEP,
    packed,
    products_of_row,
    products_of_row_and_group,
    products_of_rows,
    products_of_rows_and_group,
)
from gpuzip.loops._vectors256 import address_of

_TILE = 32  # rows that stay in L1 for all queries


def products_in_lanes(values: Tensor, queries: Tensor) -> Tensor:
    """(n, D) uint8, (Q, D) int8 -> (n, Q) int32. Exact for D up to 65536."""
    (n, D), Q = values.shape, len(queries)
    flat = values.contiguous().view(-1)
    if D % STEP:  # rows are read past their end, where the query is 0
        flat = torch.nn.functional.pad(flat, (0, -D % STEP))
    asked = packed(queries.numpy())
    sums = torch.empty((n, Q + -Q % LANES), dtype=torch.int32, device="cpu")
    _products(flat.numpy(), D, asked, sums.numpy())
    return sums if sums.shape[1] == Q else sums[:, :Q].contiguous()


@jit("void(uint8[::1], intp, int32[::1], int32[:, ::1])")
def _products(codes, D, asked, out):
    """codes: flat bytes of rows, followed by as many as a read of STEP bytes may pass the end."""
    n, lanes = out.shape
    E, row, sums, stride = D + -D % STEP, address_of(codes), address_of(out), 4 * lanes
    for first in range(0, n, _TILE):
        last = min(first + _TILE, n)
        whole = first + (last - first) // ROWS * ROWS
        for q in range(0, lanes, 2 * LANES):
            query, into, is_pair = address_of(asked) + E * q, sums + 4 * q, q + LANES < lanes
            for r in range(first, whole, ROWS):
                if is_pair:
                    products_of_rows(into + r * stride, stride, row + r * D, D, query, E, 0)
                else:
                    products_of_rows_and_group(into + r * stride, stride, row + r * D, D, query, E, 0)
            for r in range(whole, last):
                if is_pair:
                    products_of_row(into + r * stride, stride, row + r * D, D, query, E, 0)
                else:
                    products_of_row_and_group(into + r * stride, stride, row + r * D, D, query, E, 0)
