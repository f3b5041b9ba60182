"""Rows from levels: row = mean + (level + sign(level) * offset of its column) @ directions.

Layouts: levels (N, C) int32, offsets (C, 4) float32 by min(|level|, 3), directions (C, D) float32, mean (D,)
float32 -> rows (N, D) float32.
Bytes moved: N*C*4 + N*D*4, directions and offsets from L2.
Source: the inverse transform of transform coding; Goyal, "Theoretical foundations of transform coding", 2001.
Ladder: 1. (here) levels become floats in registers on their way into the product. Products are float32, not
tf32, since a step may be 1e-4 of the largest value.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


def _tile(N: int) -> tuple[int, int, int]:
    """Return (BN, BD, BC): BN rows by BD columns, BC directions per step."""
    return (64, 32, 32) if N > 64 else (16, 32, 32)


@triton.jit(do_not_specialize=["N"])
def _rows_of_levels(
    levels_ptr, offsets_ptr, directions_ptr, mean_ptr, out_ptr, N, C, D,
    BN: tl.constexpr, BD: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    columns = tl.cdiv(D, BD)
    n = (tl.program_id(0) // columns).to(tl.int64) * BN + tl.arange(0, BN)[:, None]
    d = tl.program_id(0) % columns * BD + tl.arange(0, BD)[None, :]
    acc = tl.zeros([BN, BD], tl.float32)
    for first in range(0, C, BC):
        c = first + tl.arange(0, BC)
        there = (n < N) & (c[None, :] < C)
        level = tl.load(levels_ptr + n * C + c[None, :], mask=there, other=0)
        size = tl.abs(level)
        group = tl.minimum(size, 3)
        beyond = tl.load(offsets_ptr + c[None, :] * 4 + group, mask=there, other=0.0)
        value = size.to(tl.float32) + beyond
        value = tl.where(level == 0, 0.0, tl.where(level < 0, -value, value))
        at = c[:, None].to(tl.int64) * D + d
        table = tl.load(directions_ptr + at, mask=(c[:, None] < C) & (d < D), other=0.0)
        acc = tl.dot(value, table, acc, input_precision="ieee")
    acc += tl.load(mean_ptr + d, mask=d < D, other=0.0)
    tl.store(out_ptr + n * D + d, acc, mask=(n < N) & (d < D))


def rows_of_levels(
    levels: Tensor, offsets: Tensor, directions: Tensor, mean: Tensor, *,
    tile: tuple[int, int, int] | None = None,
) -> Tensor:  # fmt: skip
    """Launch: (N, C) int32, (C, 4), (C, D), (D,) float32 -> (N, D) float32."""
    (N, C), D = levels.shape, len(mean)
    out = torch.empty((N, D), dtype=torch.float32, device=levels.device)
    if N == 0:
        return out
    BN, BD, BC = tile or _tile(N)
    _rows_of_levels[(triton.cdiv(N, BN) * triton.cdiv(D, BD),)](
        levels.contiguous(), offsets.contiguous(), directions.contiguous(), mean.contiguous(), out, N, C, D,
        BN=BN, BD=BD, BC=BC, num_warps=4,
    )  # fmt: skip
    return out
