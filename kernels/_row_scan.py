"""Best of each group of half-precision rows for many queries; scores stay in registers.

out[q, g] = max over the rows n of group g of (x[n] . queries[q]) * scale[n] + bias[n], products and sums in
fp32, -inf where mask[n] is False.
Layouts: x (N, D) and queries (Q, D) float16 or bfloat16 by rows, scale, bias (N,) fp32 or None, mask (N,) or
None -> columns [first, first + ceil(N/group)) of out (Q, groups). D is a multiple of BD. The queries are the
left operand, so that the rows of a group are in registers of four threads and a maximum costs one instruction
per score.
Bytes moved: N*D*2 in, once from memory and for the other tiles of queries from L2, Q*ceil(N/group)*4 out.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from ._launch import compile_target


class RowTile(NamedTuple):
    """Sizes: BQ queries by BN rows per program, BD columns per step, `stages` steps of loads in flight."""

    BQ: int
    BN: int
    BD: int
    warps: int
    stages: int


TILES = (
    RowTile(128, 256, 64, 8, 3),
    RowTile(128, 256, 64, 8, 4),
    RowTile(128, 128, 64, 8, 3),
    RowTile(128, 128, 64, 8, 4),
    RowTile(64, 256, 64, 4, 3),
)


def _tile(target: str) -> RowTile:
    """Choose the widest tile that spills on no target, with half the rows on Blackwell."""
    if not target.startswith("cuda"):
        return RowTile(64, 128, 64, 4, 2)  # fits the 64 KiB of AMD's compute units
    return TILES[2] if target == "cuda 100" else TILES[0]


@triton.jit(do_not_specialize=["N", "Q", "q_tiles", "groups", "first"])
def _scan_rows(
    x_ptr, queries_ptr, scale_ptr, bias_ptr, mask_ptr, out_ptr, N, Q, D, q_tiles, groups, first,
    G: tl.constexpr, BQ: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    GROUPS: tl.constexpr = max(BN // G, 1)  # groups per program
    tile = tl.program_id(0) // q_tiles
    q = (tl.program_id(0) % q_tiles) * BQ + tl.arange(0, BQ)
    d = tl.arange(0, BD)
    asked = queries_ptr + tl.minimum(q, Q - 1)[:, None].to(tl.int64) * D + d[None, :]
    best = tl.full([BQ, GROUPS], float("-inf"), tl.float32)
    for part in range(max(G // BN, 1)):
        n = tile * (GROUPS * G) + part * BN + tl.arange(0, BN)  # blocks have fewer than 2**31 rows
        row_ok = n < N
        rows = x_ptr + tl.minimum(n, N - 1)[:, None].to(tl.int64) * D + d[None, :]
        at = n.to(tl.int64)
        acc = tl.zeros([BQ, BN], tl.float32)
        for d0 in tl.range(0, D, BD, num_stages=STAGES):
            acc = tl.dot(tl.load(asked + d0), tl.trans(tl.load(rows + d0)), acc)
        if scale_ptr is not None:
            acc *= tl.load(scale_ptr + at, mask=row_ok, other=0.0)[None, :]
        if bias_ptr is not None:
            acc += tl.load(bias_ptr + at, mask=row_ok, other=0.0)[None, :]
        if mask_ptr is not None:
            row_ok &= tl.load(mask_ptr + at, mask=row_ok, other=0) != 0
        acc = tl.where(row_ok[None, :], acc, float("-inf"))
        best = tl.maximum(best, tl.max(tl.reshape(acc, [BQ, GROUPS, BN // GROUPS]), axis=2))
    g = tile * GROUPS + tl.arange(0, GROUPS)[None, :]
    to = out_ptr + q.to(tl.int64)[:, None] * groups + (first + g).to(tl.int64)
    tl.store(to, best, mask=(q[:, None] < Q) & (g < tl.cdiv(N, G)))


def scan_rows(
    x: Tensor, queries: Tensor, scale: Tensor | None, bias: Tensor | None, mask: Tensor | None,
    group: int, out: Tensor, first: int, tile: RowTile | None = None,
) -> None:  # fmt: skip
    """Launch: write the maxima of these rows' groups to out, from column `first`. mask: uint8."""
    (N, D), Q, tile = x.shape, len(queries), tile or _tile(compile_target())
    q_tiles = triton.cdiv(Q, tile.BQ)
    _scan_rows[(triton.cdiv(N, max(tile.BN, group)) * q_tiles,)](
        x, queries, scale, bias, mask, out, N, Q, D, q_tiles, out.shape[1], first,
        G=group, BQ=tile.BQ, BN=tile.BN, BD=tile.BD, STAGES=tile.stages,
        num_warps=tile.warps, enable_fp_fusion=False,
    )  # fmt: skip
