"""The interval of a small ascending table that contains each value, packed.

out[n, d] = number of boundaries b of column d with not (b >= x[n, d]): those below x, and all for NaN.
Layouts: x (N, D) float32|float16|bfloat16 with any row stride, boundaries (C, L) float32, C in {1, D} -> (N,
B) uint8 with nbits bits per count, B = ceil(D*nbits/8), lowest bits first, bits after the last count zero.
Bytes moved: N*D*itemsize in, N*B out; a program reads the boundaries of its columns once. Storing counts as
bytes and packing them by pack_bits would move 2*N*D more: 6.5 instead of 4.5 bytes per value for 4 bits of
fp32.
Source: Lloyd 1982, Max 1960; the counts are those of torch.bucketize(right=False).
Ladder, at D=384 fp32: 1. one lane per stored word of up to 4 bytes; up to 15 boundaries compared one by one
in a loop, more by binary search in L1: 1.25 ns per vector for 4 bits and 2.34 for 8, measured on an H200. 2.
(here) _count: boundaries in registers; a lane has a few neighbouring columns of many rows and a float
counter, so that a compare and an addition run on two pipes; modelled 0.57 ns. _search: a lane has one column,
which is a bank of shared memory, so that 32 look-ups never conflict; modelled 0.7 ns. A step stores only its
own boundaries, 255 per column in all. Twice the rows at a time would store half as often, but spills.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import compile_target

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
_FEW = 15  # most boundaries to compare one by one: those of 4 columns take 60 registers


def _tile(D: int, nbits: int) -> tuple[int, int, int]:
    """Return (BN, BW, unit): rows per step and words of `unit` bytes per row, one word per lane, 128 in all.

    A word holds 4 columns, 8 for one bit, or what divides a row: 16 bytes of fp32 are one access.
    """
    unit = max(1, nbits // 2)
    while D * nbits % (8 * unit) and unit > 1:
        unit //= 2
    per_word = 8 * unit // nbits
    BW = min(triton.next_power_of_2(triton.cdiv(D, per_word)), 128 // per_word)
    return 128 // BW, BW, unit


def _search_tile(D: int) -> tuple[int, int, int]:
    """Return (BN, BD, 1): rows and columns per step, 2048 values, 8 per lane."""
    BD = min(triton.next_power_of_2(D), 32)
    return 2048 // BD, BD, 1


def _rows(N: int, BN: int, most: int) -> int:
    """Return the rows per program: up to `most` times BN, fewer to keep 256 programs."""
    return BN * min(most, 1 + N // (256 * BN))


@triton.jit
def _boundaries(b_ptr, d, D, L: tl.constexpr, PER_COLUMN: tl.constexpr):
    """Load all L boundaries, each a tensor over the columns d, or a number."""
    found = ()
    for k in tl.static_range(L):
        b = tl.load(b_ptr + k * D + d, mask=d < D, other=0.0) if PER_COLUMN else tl.load(b_ptr + k)
        found = found + (b,)
    return found


@triton.jit(do_not_specialize=["N", "rows"])
def _count(
    x_ptr, b_ptr, out_ptr, N, D, words, stride_n, rows,
    L: tl.constexpr, NBITS: tl.constexpr, PER_COLUMN: tl.constexpr, PARTIAL: tl.constexpr,
    BN: tl.constexpr, BW: tl.constexpr, PER_WORD: tl.constexpr,
):  # fmt: skip
    t = tl.arange(0, BN * BW)[:, None]  # rows and words on one axis, words fastest: a lane keeps its columns
    w = tl.program_id(1) * BW + t % BW
    i = tl.arange(0, PER_WORD)[None, :]
    d = w * PER_WORD + i
    boundaries = _boundaries(b_ptr, d, D, L, PER_COLUMN)
    first = tl.program_id(0).to(tl.int64) * rows
    last = tl.minimum(first + rows, N)
    for start in tl.range(first, last, BN, num_stages=4):
        n = start + t // BW
        inside = (n < last) & (w < words)
        mask = inside
        if PARTIAL:  # the last word of a row is not full
            mask = mask & (d < D)
        x = tl.load(x_ptr + n * stride_n + d, mask=mask, other=0.0).to(tl.float32)
        count = tl.full([BN * BW, PER_WORD], 8388608.0, tl.float32)  # 2**23: its low bits are the count
        for k in tl.static_range(L):
            count = tl.where(boundaries[k] >= x, count, count + 1.0)
        code = count.to(tl.int32, bitcast=True) & 255
        if PARTIAL:
            code = tl.where(mask, code, 0)
        word = tl.sum(code << (i * NBITS), axis=1, keep_dims=True)
        tl.store(out_ptr + n * words + w, word.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _levels(b_ptr, first, D, L, C, STEPS: tl.constexpr, BD: tl.constexpr):
    """Load the boundaries that each step of the binary search may read: [2**step * BD], columns fastest."""
    found = ()
    for s in tl.static_range(STEPS):
        j = tl.arange(0, BD << s)
        k = ((2 * (j // BD) + 1) << (STEPS - 1 - s)) - 1
        d = first + j % BD
        column = tl.where(C > 1, d, 0)
        level = tl.load(b_ptr + k * C + column, mask=(k < L) & (d < D), other=float("inf"))
        found = found + (level,)
    return found


@triton.jit(do_not_specialize=["N", "D", "L", "C", "stride_n", "rows"])
def _search(
    x_ptr, b_ptr, out_ptr, N, D, L, C, stride_n, rows,
    STEPS: tl.constexpr, FULL: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, SHIFT: tl.constexpr,
):  # fmt: skip
    # Strides are unknown to the compiler, so a lane takes one value of each row: its column is its bank.
    t = tl.arange(0, BN * BD)
    row, c = t // BD, t % BD
    d = tl.program_id(1) * BD + c
    levels = _levels(b_ptr, tl.program_id(1) * BD, D, L, C, STEPS, BD)
    first = tl.program_id(0).to(tl.int64) * rows
    x_ptr += first * stride_n
    out_ptr += first * D
    rows = tl.minimum(rows, N - first).to(tl.int32)
    # The place in a level is below * BD + c. It is kept as a float with these bits, a multiple of 2**-149:
    # float additions have their own pipe, and these are exact.
    column = c.to(tl.float32, bitcast=True)
    one = tl.full([1], BD, tl.int32).to(tl.float32, bitcast=True)
    for start in range(0, rows, BN):
        mask = (row < rows - start) & (d < D)
        x = tl.load(x_ptr + (row * stride_n + d), mask=mask, other=0.0).to(tl.float32)
        place = column
        for s in tl.static_range(STEPS):
            b = tl.gather(levels[s], place.to(tl.int32, bitcast=True), 0)
            place = tl.fma(place, 2.0, -column)
            place = tl.where(b >= x, place, place + one)
        code = place.to(tl.int32, bitcast=True) >> SHIFT
        if not FULL:
            code = tl.minimum(code, L)  # NaN is above the padding of the last level too
        tl.store(out_ptr + (row * D + d), code.to(tl.uint8), mask=mask)
        x_ptr += stride_n.to(tl.int64) * BN
        out_ptr += D.to(tl.int64) * BN


def bucketize_packed(
    x: Tensor, boundaries: Tensor, nbits: int, *, tile: tuple[int, int, int] | None = None
) -> Tensor:
    """Launch: (N, D), (C, L) float32, nbits in (1, 2, 4, 8) -> (N, ceil(D*nbits/8)) uint8."""
    (N, D), (C, L) = x.shape, boundaries.shape
    B = triton.cdiv(D * nbits, 8)
    out = torch.empty((N, B), dtype=torch.uint8, device=x.device)
    if out.numel() == 0:
        return out
    x = x if x.stride(1) == 1 else x.contiguous()
    boundaries = boundaries.T.contiguous()  # (L, C)
    if L > _FEW:
        _launch_search(x, boundaries, out, tile or _search_tile(D))
        return out
    BN, BW, unit = tile or _tile(D, nbits)
    rows = _rows(N, BN, 64)
    _count[triton.cdiv(N, rows), triton.cdiv(B // unit, BW)](
        x, boundaries, out.view(_WORDS[unit]), N, D, B // unit, x.stride(0), rows,
        L=L, NBITS=nbits, PER_COLUMN=C > 1, PARTIAL=D * nbits % 8 != 0,
        BN=BN, BW=BW, PER_WORD=8 * unit // nbits, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return out


def _launch_search(x: Tensor, boundaries: Tensor, out: Tensor, tile: tuple[int, int, int]) -> None:
    (N, D), (L, C) = x.shape, boundaries.shape
    BN, BD, _ = tile
    x = x if BN * x.stride(0) < 1 << 31 else x.contiguous()
    rows, steps = _rows(N, BN, 16), L.bit_length()
    # Two programs of eight warps per NVIDIA SM; otherwise the compiler uses more than half of the registers.
    registers = {"maxnreg": 128} if compile_target().startswith("cuda") else {}
    _search[triton.cdiv(N, rows), triton.cdiv(D, BD)](
        x, boundaries, out, N, D, L, C, x.stride(0), rows,
        STEPS=steps, FULL=(1 << steps) - 1 == L, BN=BN, BD=BD, SHIFT=BD.bit_length() - 1,
        num_warps=8, enable_fp_fusion=False, **registers,
    )  # fmt: skip


def bucketize(x: Tensor, boundaries: Tensor) -> Tensor:
    """Launch: (N, D) float32|float16|bfloat16, (C, L) float32 -> (N, D) uint8."""
    return bucketize_packed(x, boundaries, 8)
