"""Nearest centroid in every sub-space, for encoding in product quantization and for a step of k-means.

label[n, m] = argmin_k sum_s (x[n, m*S + s] - c[m, k, s])**2, the lowest k on ties.
Layouts: x (N, M*S) with any row stride, centroids (M, K, S) -> labels (N, M), uint8 when K <= 256 else int32;
or `per` labels per byte of (N, ceil(M / per)). All sub-spaces of a block of rows run at the same time, so x
is read from memory once and the byte stores of a row combine in L2.
Bytes moved: N*D*itemsize in, N*M*(1 or 4) out; the centroids, M*K*8*S bytes as halves, stay in cache.
Source: Jegou, Douze, Schmid, "Product quantization for nearest neighbor search" (2011), section II; the
running minimum over tiles of centroids is that of flash-kmeans (2026).
Ladder: 1. fp32 differences, one dimension at a time, with a [BN, BK] tile of distances in registers
(`_assign`, the simple form: no cancellation, equal centroids tie exactly): 2 fp32 instructions per term. 2.
one product of float16 halves on the matrix units that includes |c|^2 (`_assign_halves`, see _halves.py), then
the minimum of a row and its lowest index: 3.7 instructions per distance on the pipe that compares, which is
the bound. Modelled and rejected: the index in the low bits of the score (2.7 instructions, but 1e-4 of codes
wrong), tf32 and bf16 (6e-4 and 5e-3 wrong). exact: the gap to the second best is kept as well (2 more
instructions), and `_assign` repeats rows whose gap is within the product's error.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._halves import halves_of_rows, halves_of_slots, halves_table, padded
from ._launch import compile_target, launch_or

_WIDEST = 64  # most dimensions of a sub-space for the halves


class Tile(NamedTuple):
    """Sizes: BN rows by BK centroids per product, `steps` products and `columns` of output per program."""

    BN: int
    BK: int
    warps: int
    steps: int
    columns: int


def _tile(K: int, S: int, per: int = 1, exact: bool = False, target: str = "") -> Tile:
    """Choose a tile: 64 by 256 with four warps is the largest without spills. K > 64 has a table per program.

    Half of it for `exact` and for many centroids, which keep more values, and on Blackwell, where all scores
    leave tensor memory at once.
    """
    most = 128 if exact or K > 256 or target == "cuda 100" else 256
    BK = min(max(16, triton.next_power_of_2(K)), most, 4096 // padded(S))
    if BK > 64 or K > BK:
        return Tile(64, BK, 4, 8 if K <= BK else 1, 1)
    widest = 8 if target == "cuda 100" else 32  # with 128 rows; wider tiles spill
    return Tile(64 if widest < S else 128, BK, 4, 1, max(1, 8 // per))


def _in_slots(S: int, target: str) -> bool:
    """Return whether to load each dimension four times: triton 3.6 cannot rearrange so few for Blackwell."""
    return padded(S) == 4 and target == "cuda 100"


def _plain_tile(K: int) -> tuple[int, int]:
    """Return (BN, BK): 16 distances per thread with four warps, 32 if K > 64; 64 by 64 spill on sm_80."""
    BK = min(max(16, triton.next_power_of_2(K)), 128)
    return max(32, 2048 // BK), BK


@triton.jit(do_not_specialize=["N", "M", "K", "S", "stride_n"])
def _assign(
    x_ptr, table_ptr, unsure_ptr, out_ptr, N, M, K, S, stride_n,
    SOME: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN)
    m = tl.program_id(1)
    wanted = n < N
    if SOME:
        wanted = tl.load(unsure_ptr + n * M + m, mask=wanted, other=0) != 0
        if tl.max(wanted.to(tl.int32), axis=0) == 0:
            return
    rows = x_ptr + n * stride_n + m * S  # [BN]
    table = table_ptr + m.to(tl.int64) * K * S
    best = tl.full([BN], float("inf"), tl.float32)
    label = tl.zeros([BN], tl.int32)
    for k0 in range(0, K, BK):
        k = k0 + tl.arange(0, BK)
        dist = tl.zeros([BN, BK], tl.float32)
        for s in range(S):
            x = tl.load(rows + s, mask=wanted, other=0.0).to(tl.float32)
            c = tl.load(table + s * K + k, mask=k < K, other=0.0)
            diff = x[:, None] - c[None, :]
            dist += diff * diff
        dist = tl.where(k[None, :] < K, dist, float("inf"))
        low = tl.min(dist, axis=1)
        first = tl.min(tl.where(dist == low[:, None], k[None, :], K), axis=1)  # lowest index at ties
        label = tl.where(low < best, first, label)  # strict: an earlier tile wins a tie
        best = tl.where(low < best, low, best)
    tl.store(out_ptr + n * M + m, label.to(out_ptr.dtype.element_ty), mask=wanted)


@triton.jit
def least(scores, k, K, SECOND: tl.constexpr):
    """Return the minimum of a tile of scores, its lowest k, and the minimum over all other k below K."""
    low = tl.min(scores, axis=1)
    first = tl.min(tl.where(scores == low[:, None], k[None, :], 2147483647), axis=1)
    second = low
    if SECOND:
        others = (k[None, :] != first[:, None]) & (k[None, :] < K)
        second = tl.min(tl.where(others, scores, float("inf")), axis=1)
    return low, first, second


@triton.jit
def load_table(table_ptr, k0, BK: tl.constexpr, SP: tl.constexpr):
    """Load tile k0 of a sub-space's halves, (4*SP, BK)."""
    k = k0 + tl.arange(0, BK)
    j = tl.arange(0, 4 * SP)
    return tl.load(table_ptr + k[None, :] * (4 * SP) + j[:, None])


@triton.jit(do_not_specialize=["N", "M", "B", "K", "KP"])
def _assign_halves(
    x_ptr, table_ptr, shift_ptr, exponent_ptr, out_ptr, unsure_ptr, N, M, B, K, KP, stride_n,
    S: tl.constexpr, SP: tl.constexpr, PER: tl.constexpr, NBITS: tl.constexpr, ONE: tl.constexpr,
    SECOND: tl.constexpr, SLOTS: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, STEPS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    wide = tl.cdiv(B, COLUMNS)
    block = (tl.program_id(0) // wide).to(tl.int64) * (STEPS * BN)
    s = tl.arange(0, 4 * SP) // 4 if SLOTS else tl.arange(0, SP)
    k = tl.arange(0, BK)
    for column in range(COLUMNS):
        b = tl.program_id(0) % wide * COLUMNS + column
        if ONE and PER == 1:  # one table for all steps
            table = load_table(table_ptr + tl.minimum(b, M - 1).to(tl.int64) * KP * (4 * SP), 0, BK, SP)
        rows_of_b = tl.where(b < B, N, 0)
        for step in range(STEPS):
            n = block + step * BN + tl.arange(0, BN)
            byte = tl.zeros([BN], tl.int32)
            for i in tl.static_range(PER):
                m = tl.minimum(b * PER + i, M - 1)
                own = table_ptr + m.to(tl.int64) * KP * (4 * SP)
                where = (n[:, None] < N) & (s[None, :] < S)
                x = tl.load(x_ptr + n[:, None] * stride_n + (m * S + s)[None, :], mask=where, other=0.0)
                shift = tl.load(shift_ptr + m * SP + s)
                x = tl.where(s[None, :] < S, x.to(tl.float32) - shift[None, :], 0.0)
                exponent = tl.load(exponent_ptr + m)
                if SLOTS:
                    rows, scaled, ratio = halves_of_slots(x, exponent, SP)
                else:
                    rows, scaled, ratio = halves_of_rows(x, exponent, BN, SP)
                if ONE:
                    if PER > 1:
                        table = load_table(own, 0, BK, SP)
                    best, label, second = least(tl.dot(rows, table), k, K, SECOND)
                else:
                    best = tl.full([BN], float("inf"), tl.float32)
                    second = best
                    label = tl.zeros([BN], tl.int32)
                    for k0 in range(0, K, BK):
                        scores = tl.dot(rows, load_table(own, k0, BK, SP))
                        low, first, runner = least(scores, k0 + k, K, SECOND)
                        if SECOND:
                            second = tl.minimum(tl.minimum(second, runner), tl.maximum(best, low))
                        label = tl.where(low < best, first, label)  # strict: an earlier tile wins a tie
                        best = tl.minimum(best, low)
                label = tl.minimum(label, K - 1)  # rows with NaN
                if SECOND:
                    norm = tl.sqrt(tl.sum(scaled * scaled, axis=1))
                    error = (ratio * 16384 + norm * 256) * ((SP + 8) * 2.384185791015625e-07)
                    tl.store(unsure_ptr + n * M + b, (second - best <= error).to(tl.int8), mask=n < rows_of_b)
                byte |= tl.where(b * PER + i < M, label, 0) << (i * NBITS)
            tl.store(out_ptr + n * B + b, byte.to(out_ptr.dtype.element_ty), mask=n < rows_of_b)


def assign_halves(
    x: Tensor, centroids: Tensor, out: Tensor, per: int, unsure: Tensor | None, tile: Tile | None
) -> None:
    """Launch: write `per` labels per column of `out`; set `unsure`, if given, to 1 for doubtful labels."""
    N, (M, K, S) = x.shape[0], centroids.shape
    tile = tile or _tile(K, S, per, unsure is not None, compile_target())
    table, shift, exponent = halves_table(centroids, tile.BK)
    blocks = triton.cdiv(N, tile.BN * tile.steps)
    grid = (blocks * triton.cdiv(out.shape[1], tile.columns),)
    _assign_halves[grid](
        x, table, shift, exponent, out, unsure, N, M, out.shape[1], K, table.shape[1], x.stride(0),
        S=S, SP=padded(S), PER=per, NBITS=8 // per, ONE=K <= tile.BK, SECOND=unsure is not None,
        SLOTS=_in_slots(S, compile_target()), BN=tile.BN, BK=tile.BK, STEPS=tile.steps, COLUMNS=tile.columns,
        num_warps=tile.warps, num_stages=1, enable_fp_fusion=False,
    )  # fmt: skip


def _assign_plainly(x: Tensor, centroids: Tensor, out: Tensor, unsure: Tensor | None = None) -> None:
    """Launch: find every label by fp32 differences; with `unsure`, only for rows where it is not 0."""
    N, (M, K, S) = x.shape[0], centroids.shape
    BN, BK = _plain_tile(K)
    grid = (triton.cdiv(N, BN), M)
    table = centroids.transpose(1, 2).contiguous()  # (M, S, K): lanes read neighbours
    _assign[grid](
        x, table, unsure, out, N, M, K, S, x.stride(0),
        SOME=unsure is not None, BN=BN, BK=BK, num_warps=4, enable_fp_fusion=True,
    )  # fmt: skip


def assign(x: Tensor, centroids: Tensor, exact: bool = False, tile: Tile | None = None) -> Tensor:
    """Launch: (N, M*S) float32|float16|bfloat16, (M, K, S) float32 -> (N, M) uint8, or int32 when K > 256."""
    N, (M, K, S) = x.shape[0], centroids.shape
    out = torch.empty((N, M), dtype=torch.uint8 if K <= 256 else torch.int32, device=x.device)
    if N == 0:
        return out
    x = x if x.stride(1) == 1 else x.contiguous()

    def halves() -> None:
        unsure = torch.empty((N, M), dtype=torch.int8, device=x.device) if exact else None
        assign_halves(x, centroids, out, 1, unsure, tile)
        if exact:
            _assign_plainly(x, centroids, out, unsure)

    def plain() -> None:
        _assign_plainly(x, centroids, out)

    if S > _WIDEST:
        plain()
    else:
        launch_or("assign[float16 halves]", halves, plain)
    return out
