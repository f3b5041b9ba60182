"""Scores of packed codes by a matrix product with rows that are decoded on the chip.

out[q, g] = max over the rows n of group g of (decode(packed[n], table) . queries[q]) * scale[n] + bias[n],
products and sums in fp32, -inf where mask[n] is False.
Layouts: packed (N, B) uint8 of nbits = log2(K) bits per code, table (M, K, S) and queries (Q, D) of one
dtype, scale, bias (N,) fp32 or None, mask (N,) or None -> (Q, ceil(N/group)) fp32. A program takes BN rows
(or a larger group, BN rows at a time) and BQ queries. Each step gathers [BN, BM sub-spaces * BS columns] of
the table through L1 and multiplies it by the same rows of the transposed queries. Both are padded with zeros
to whole steps, and S to a power of two. If a byte holds 2, 4 or 8 codes, and they divide M, neighbouring
tables are joined into one of 256 rows, so that a gather is as long as for 8 bits.
Bytes moved: N*(B + 8) in, once from memory and for the other queries from L2, Q*ceil(N/group)*4 out; from L1
N*D*itemsize per BQ queries. From _MANY queries on, N*D*itemsize are instead written and read once, in blocks
of 256 MB.
Source: Jegou, Douze, Schmid (2011), section III, as a product: q.x is linear in the decoded x.
Ladder: 1. torch: blocks of rows are decoded to memory and multiplied; moves 2*N*D*itemsize more. 2. (here)
decode and dot in one kernel, with the rows as the left operand. Queries on the left would put the rows of a
group in one thread, but Triton 3.6 cannot compile that form for S = 4. num_stages = 1: gathers go through L1,
where the table stays; with 2 they become asynchronous copies, which read L2. 3. for many queries, blocks of
rows are decoded to memory once and multiplied by all queries, with scores kept on the chip (_row_scan.py).
Decoding is not repeated for every 128 queries, and both operands are asynchronous copies.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._bits import load_code
from ._launch import launch_or
from ._row_scan import TILES as ROW_TILES
from ._row_scan import RowTile, scan_rows
from .decode import decode

_MANY = 129  # from so many queries, rows are decoded to memory once, not once per tile of queries
_COLUMNS = 64  # decoded rows must then have a multiple of so many columns
_BLOCK = 1 << 28  # bytes of decoded rows per block
_STEP = 4096  # a block has a multiple of so many rows, so that it starts at a group


class Tile(NamedTuple):
    """Sizes: BN rows by BQ queries per program, BM sub-spaces by BS columns per step; BM is 1 if BS < S.

    HALF: multiply in the dtype of the table on the matrix units, else in fp32 on the plain cores.
    """

    BN: int
    BQ: int
    BM: int
    BS: int
    HALF: bool

    @property
    def warps(self) -> int:
        """Warps per program: eight also for few queries with many short gathers, which barely fit in four."""
        return 8 if self.BQ >= 64 or (self.BQ == 16 and self.BS <= 8) else 4


def _tile(Q: int, S: int, half: bool) -> Tile:
    """Choose a tile: up to 128 queries, and 16 to 64 columns per step, 32 for fp32. S: a power of two.

    More columns, or more gathers of a few bytes, would not fit in the registers of 128 rows.
    """
    BQ = min(128 if half else 32, max(16, triton.next_power_of_2(Q)))
    BD = 64 if half and BQ > 16 else 32
    BS = min(S, 32)
    BM = 1 if BS < S else min(BD, 16 * S) // S
    return Tile(128, BQ, BM, BS, half)


#: Tiles that a sweep times: for rows decoded first, and for rows decoded in the product.
TILES = (*ROW_TILES, Tile(128, 128, 8, 8, True), Tile(128, 64, 8, 8, True), Tile(256, 128, 8, 8, True))


@triton.jit
def _estimates(
    packed_ptr, table_ptr, queries_ptr, scale_ptr, bias_ptr, mask_ptr, n, q, N, B, QP, steps,
    NBITS: tl.constexpr, S: tl.constexpr, BN: tl.constexpr, BQ: tl.constexpr,
    BM: tl.constexpr, BS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """Multiply decoded rows n [BN] int64 by queries q [BQ] -> [BN, BQ] fp32."""
    row_ok = n < N
    acc = tl.zeros([BN, BQ], tl.float32)
    for step in tl.range(0, steps, num_stages=1):
        if BS == S:  # else triton 3.6 misses that `step * BS % S` is 0 and gathers 2 bytes at a time
            m = step * BM + tl.arange(0, BM)  # [BM]
            s = tl.arange(0, BS)  # [BS]
        else:
            m = step * BS // S + tl.arange(0, BM)
            s = step * BS % S + tl.arange(0, BS)
        code = load_code(packed_ptr + n[:, None] * B, m[None, :], row_ok[:, None], NBITS)
        rows = table_ptr + m.to(tl.int64)[None, :] * ((1 << NBITS) * S) + code * S  # [BN, BM]
        x = tl.reshape(tl.load(rows[:, :, None] + s[None, None, :]), [BN, BM * BS])
        d = step * (BM * BS) + tl.arange(0, BM * BS)[:, None]
        y = tl.load(queries_ptr + d * QP + q[None, :])
        if not HALF:
            x, y = x.to(tl.float32), y.to(tl.float32)
        acc = tl.dot(x, y, acc, input_precision="ieee")
    if scale_ptr is not None:
        acc *= tl.load(scale_ptr + n, mask=row_ok, other=0.0)[:, None]
    if bias_ptr is not None:
        acc += tl.load(bias_ptr + n, mask=row_ok, other=0.0)[:, None]
    if mask_ptr is not None:
        row_ok &= tl.load(mask_ptr + n, mask=row_ok, other=0) != 0
    return tl.where(row_ok[:, None], acc, float("-inf"))


@triton.jit(do_not_specialize=["N", "Q", "B", "q_tiles", "groups", "steps"])
def _product_scan(
    packed_ptr, table_ptr, queries_ptr, scale_ptr, bias_ptr, mask_ptr, out_ptr,
    N, Q, B, QP, q_tiles, groups, steps,
    NBITS: tl.constexpr, S: tl.constexpr, G: tl.constexpr, BN: tl.constexpr, BQ: tl.constexpr,
    BM: tl.constexpr, BS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    tile = (tl.program_id(0) // q_tiles).to(tl.int64)
    q = (tl.program_id(0) % q_tiles) * BQ + tl.arange(0, BQ)
    GROUPS: tl.constexpr = max(BN // G, 1)  # groups per program
    best = tl.full([GROUPS, BQ], float("-inf"), tl.float32)
    for part in range(max(G // BN, 1)):
        n = tile * (GROUPS * G) + part * BN + tl.arange(0, BN)
        key = _estimates(
            packed_ptr, table_ptr, queries_ptr, scale_ptr, bias_ptr, mask_ptr, n, q, N, B, QP, steps,
            NBITS, S, BN, BQ, BM, BS, HALF,
        )  # fmt: skip
        best = tl.maximum(best, tl.max(tl.reshape(key, [GROUPS, BN // GROUPS, BQ]), axis=1))
    g = tile * GROUPS + tl.arange(0, GROUPS)[:, None]
    to = out_ptr + q.to(tl.int64)[None, :] * groups + g
    tl.store(to, best, mask=(q[None, :] < Q) & (g < groups))


def _is_for_matrix_units(dtype: torch.dtype) -> bool:
    """Return whether to use matrix units; the interpreter would multiply bfloat16's bits as integers."""
    return dtype == torch.float16 or (dtype == torch.bfloat16 and not triton.knobs.runtime.interpret)


def _joined(table: Tensor) -> Tensor:
    """Join neighbouring tables of codes that share a byte, so that the table is indexed by whole bytes."""
    M, K, _ = table.shape
    while K in (2, 4, 16) and M % 2 == 0:
        low, high = table[0::2, None].expand(-1, K, -1, -1), table[1::2, :, None].expand(-1, -1, K, -1)
        M, K = M // 2, K * K
        table = torch.cat([low, high], -1).view(M, K, -1)
    return table


def _padded_queries(queries: Tensor, M: int, S: int, tile: Tile) -> Tensor:
    """Transpose queries (Q, M*s) and pad them with zeros to whole steps by whole tiles of queries."""
    Q = len(queries)
    columns = queries.reshape(Q, M, -1).permute(1, 2, 0)  # [M, s, Q]
    pad = (0, -Q % tile.BQ, 0, S - columns.shape[1], 0, -M % tile.BM)
    padded = torch.nn.functional.pad(columns, pad)  # [M', S, Q']
    return padded.reshape(-1, padded.shape[2]).contiguous()


def _padded_table(table: Tensor, S: int, tile: Tile) -> Tensor:
    """Pad (M, K, s) with zeros to (sub-spaces of whole steps, K, S)."""
    M, _, s = table.shape
    pad = (0, S - s, 0, 0, 0, -M % tile.BM)
    return (torch.nn.functional.pad(table, pad) if any(pad) else table).contiguous()


def product_scan(
    packed: Tensor,
    table: Tensor,
    queries: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    group: int,
    tile: Tile | RowTile | None = None,
) -> Tensor:
    """Launch: (N, B) uint8, (M, K, S), (Q, M*S), three (N,) or None -> (Q, ceil(N/group)) float32."""
    (N, _), Q = packed.shape, len(queries)
    out = torch.empty((Q, triton.cdiv(N, group)), dtype=torch.float32, device=packed.device)
    if out.numel() == 0:
        return out
    scale, bias = (None if t is None else t.contiguous() for t in (scale, bias))
    mask = None if mask is None else mask.contiguous().view(torch.uint8)
    args = (packed.contiguous(), _joined(table), queries, scale, bias, mask, group, out)
    of_rows = tile if isinstance(tile, RowTile) else None
    many = Q >= _MANY and queries.shape[1] % _COLUMNS == 0 and _is_for_matrix_units(table.dtype)
    if of_rows or (many and tile is None):
        launch_or(
            "_scan_rows[decoded blocks]",
            lambda: _scan_decoded(*args, of_rows),
            lambda: _scan_fused(*args, None),
        )
    else:
        _scan_fused(*args, tile)
    return out


def _scan_decoded(packed, table, queries, scale, bias, mask, group, out, tile):
    """Decode blocks of rows to memory once and multiply them by all queries."""
    rows = _BLOCK // (queries.shape[1] * queries.element_size())
    step = max(_STEP, rows // _STEP * _STEP)
    queries = queries.contiguous()
    for start in range(0, len(packed), step):
        some = slice(start, start + step)
        columns = (None if t is None else t[some] for t in (scale, bias, mask))
        scan_rows(decode(packed[some], table), queries, *columns, group, out, start // group, tile)


def _scan_fused(packed, table, queries, scale, bias, mask, group, out, tile):
    """Decode rows into the operand of the product, for each tile of queries."""
    (N, B), Q = packed.shape, len(queries)
    S = triton.next_power_of_2(table.shape[2])

    def launch(S: int, tile: Tile) -> None:
        columns, padded = _padded_queries(queries, table.shape[0], S, tile), _padded_table(table, S, tile)
        q_tiles = columns.shape[1] // tile.BQ
        _product_scan[(triton.cdiv(N, max(tile.BN, group)) * q_tiles,)](
            packed, padded, columns, scale, bias, mask, out,
            N, Q, B, columns.shape[1], q_tiles, out.shape[1], len(columns) // (tile.BM * tile.BS),
            NBITS=table.shape[1].bit_length() - 1, S=S, G=group, BN=tile.BN, BQ=tile.BQ,
            BM=tile.BM, BS=tile.BS, HALF=tile.HALF,
            num_warps=tile.warps, num_stages=1, enable_fp_fusion=False,
        )  # fmt: skip

    def on_matrix_units() -> None:
        chosen = tile or _tile(Q, S, half=True)
        if S >= 8:
            launch(S, chosen)
        else:  # Triton 3.6 cannot gather less than 16 bytes for the matrix units of sm_100
            wide = _tile(Q, 8, half=True)
            launch_or("_product_scan[S < 8]", lambda: launch(S, chosen), lambda: launch(8, wide))

    def plainly() -> None:
        launch(S, tile if tile and not tile.HALF else _tile(Q, S, half=False))

    if tile.HALF if tile else _is_for_matrix_units(table.dtype):
        launch_or("_product_scan[matrix units]", on_matrix_units, plainly)
    else:
        plainly()
