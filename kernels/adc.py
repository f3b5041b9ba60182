"""Asymmetric distances: scores of packed codes from tables of the queries, in a scan and for chosen rows.

score[q, n] = (lut[q, 0, code[n, 0]] + lut[q, 1, code[n, 1]] + ...) * scale[n], fp32, in order of m: one
helper sums for both kernels, so adc_gather repeats the bits of adc_scan. adc_scan keeps the maximum of each
`group` rows.
Layouts: packed (N, B) uint8 of nbits = log2(K) bits a code, lut (Q, M, K), scale (N,) or None, ids (Q, R) ->
adc_scan (Q, ceil(N/group)), adc_gather (Q, R), where an id outside [0, N) scores -inf.
Bytes moved: adc_scan N*(B + 4) in (again, from L2, for every BQ queries), Q*ceil(N/group)*4 out; adc_gather
Q*R*(B + 16). The tables, Q*M*K*4, are read through L1.
Source: Jegou, Douze, Schmid, "Product quantization for nearest neighbor search" (2011), section III.
Ladder: 1. a lane a (query, row), table entries gathered through L1 (here). 2. a table in shared memory; for
many queries, decode and dot on tensor cores: to do.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._bits import load_code


def _tile(Q: int, group: int) -> tuple[int, int]:
    """(BQ, BN): up to 1024 scores, whole groups of rows, and up to four queries that share a read code."""
    BN = max(256, group)
    return (1 if Q == 1 else 1024 // BN), BN


@triton.jit
def _scores(
    packed_ptr, tables, scale_ptr, n, row_ok, table_ok, M, B,
    NBITS: tl.constexpr, BQ: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Rows n [1, BN] against tables [BQ, 1] or one, by pointer -> [BQ, BN]."""
    rows = packed_ptr + n * B
    score = tl.zeros([BQ, BN], tl.float32)
    for m in range(M):
        code = load_code(rows, m, row_ok, NBITS)
        score += tl.load(tables + m * (1 << NBITS) + code, mask=table_ok & row_ok, other=0.0)
    if scale_ptr is not None:
        score *= tl.load(scale_ptr + n, mask=row_ok, other=1.0)
    return tl.where(row_ok, score, float("-inf"))


@triton.jit(do_not_specialize=["N", "Q", "M", "B", "q_tiles", "groups"])
def _adc_scan(
    packed_ptr, lut_ptr, scale_ptr, out_ptr, N, Q, M, B, q_tiles, groups,
    NBITS: tl.constexpr, G: tl.constexpr, BQ: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    tile = (tl.program_id(0) // q_tiles).to(tl.int64)
    q = (tl.program_id(0) % q_tiles).to(tl.int64) * BQ + tl.arange(0, BQ)[:, None]  # [BQ, 1]
    n = tile * BN + tl.arange(0, BN)[None, :]  # [1, BN]
    tables = lut_ptr + q * M * (1 << NBITS)
    score = _scores(packed_ptr, tables, scale_ptr, n, n < N, q < Q, M, B, NBITS, BQ, BN)
    best = tl.max(tl.reshape(score, [BQ, BN // G, G]), axis=2)
    g = tile * (BN // G) + tl.arange(0, BN // G)[None, :]
    tl.store(out_ptr + q * groups + g, best, mask=(q < Q) & (g < groups))


@triton.jit(do_not_specialize=["N", "R", "M", "B", "tiles"])
def _adc_gather(
    packed_ptr, lut_ptr, scale_ptr, ids_ptr, out_ptr, N, R, M, B, tiles, NBITS: tl.constexpr, BR: tl.constexpr
):
    q = (tl.program_id(0) // tiles).to(tl.int64)
    r = (tl.program_id(0) % tiles) * BR + tl.arange(0, BR)[None, :]  # [1, BR]
    n = tl.load(ids_ptr + q * R + r, mask=r < R, other=-1)
    tables = lut_ptr + q * M * (1 << NBITS)
    score = _scores(packed_ptr, tables, scale_ptr, n, (n >= 0) & (n < N), r < R, M, B, NBITS, 1, BR)
    tl.store(out_ptr + q * R + r, score, mask=r < R)


def adc_scan(packed: Tensor, lut: Tensor, scale: Tensor | None, group: int) -> Tensor:
    """Launch: (N, B) uint8, (Q, M, K) float32, (N,) float32 or None -> (Q, ceil(N/group)) float32."""
    (N, B), (Q, M, K) = packed.shape, lut.shape
    groups = triton.cdiv(N, group)
    out = torch.empty((Q, groups), dtype=torch.float32, device=packed.device)
    if out.numel() == 0:
        return out
    BQ, BN = _tile(Q, group)
    q_tiles = triton.cdiv(Q, BQ)
    scale = None if scale is None else scale.contiguous()
    _adc_scan[(triton.cdiv(N, BN) * q_tiles,)](
        packed.contiguous(), lut.contiguous(), scale, out, N, Q, M, B, q_tiles, groups,
        NBITS=K.bit_length() - 1, G=group, BQ=BQ, BN=BN, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return out


def adc_gather(packed: Tensor, lut: Tensor, scale: Tensor | None, ids: Tensor) -> Tensor:
    """Launch: (N, B) uint8, (Q, M, K) float32, (N,) float32 or None, (Q, R) int64 -> (Q, R) float32."""
    (N, B), (Q, M, K), R = packed.shape, lut.shape, ids.shape[1]
    out = torch.empty((Q, R), dtype=torch.float32, device=packed.device)
    if out.numel() == 0:
        return out
    scale = None if scale is None else scale.contiguous()
    BR = 128
    tiles = triton.cdiv(R, BR)
    _adc_gather[(Q * tiles,)](
        packed.contiguous(), lut.contiguous(), scale, ids.contiguous(), out, N, R, M, B, tiles,
        NBITS=K.bit_length() - 1, BR=BR, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return out
