"""Which interval of a small ascending table every value is in, packed as it is stored.

out[n, d] = number of boundaries b of d with not (b >= x[n, d]): those strictly below x, and all for NaN.
Layouts: x (N, D) float32|float16|bfloat16 with any row stride, boundaries (C, L) float32, C in {1, D} -> (N,
B) uint8 of nbits bits a count, B = ceil(D*nbits/8), lowest bits first, bits after the last count zero.
Bytes moved: N*D*itemsize in, N*B out; a program reads the boundaries of its columns once. Counts stored as
bytes and packed by pack_bits would move 2*N*D more: for 4 bits of fp32 4.5 bytes per value here, 6.5 there.
Source: Lloyd 1982, Max 1960; the counts are those of torch.bucketize(right=False).
Ladder, at D=384 fp32: 1. a lane the values of one stored word of up to 4 bytes, up to 15 boundaries compared
one by one in a loop, more searched by halves in L1: 1.25 ns a vector of 4 bits and 2.34 of 8, measured on an
H200. 2. (here) _count: boundaries in registers, a lane a few neighbouring columns of many rows, a float
counter: a compare and an addition each, on two pipes; modelled 0.57 ns. _search: a lane a column, which is a
bank of shared memory, so that 32 look-ups never meet; modelled 0.7 ns. A step stores its own boundaries only,
255 a column in all; twice the rows at a time would store half as often, and spills.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import compile_target

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
_FEW = 15  # boundaries that are compared one by one: those of 4 columns take 60 registers


def _tile(D: int, nbits: int) -> tuple[int, int, int]:
    """(BN, BW, unit): rows at a time, and words of `unit` bytes per row; a word a lane, 128 in all.

    Words of 4 columns, 8 of one bit, or what divides a row: 16 bytes of fp32 are one access.
    """
    unit = max(1, nbits // 2)
    while D * nbits % (8 * unit) and unit > 1:
        unit //= 2
    per_word = 8 * unit // nbits
    BW = min(triton.next_power_of_2(triton.cdiv(D, per_word)), 128 // per_word)
    return 128 // BW, BW, unit


def _search_tile(D: int) -> tuple[int, int, int]:
    """(BN, BD, 1): rows at a time and columns, 2048 values: 8 a lane."""
    BD = min(triton.next_power_of_2(D), 32)
    return 2048 // BD, BD, 1


def _rows(N: int, BN: int, most: int) -> int:
    """Rows a program: up to `most` times BN, fewer where that would leave fewer than 256 programs."""
    return BN * min(most, 1 + N // (256 * BN))


@triton.jit
def _boundaries(b_ptr, d, D, L: tl.constexpr, PER_COLUMN: tl.constexpr):
    """All L, each a tensor of the columns d, or a number."""
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
    t = tl.arange(0, BN * BW)[:, None]  # rows and words on one axis, words first: a lane keeps its columns
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
        if PARTIAL:  # the last word of a row holds less than it could
            mask = mask & (d < D)
        x = tl.load(x_ptr + n * stride_n + d, mask=mask, other=0.0).to(tl.float32)
        count = tl.full([BN * BW, PER_WORD], 8388608.0, tl.float32)  # 2**23: its last bits are the number
        for k in tl.static_range(L):
            count = tl.where(boundaries[k] >= x, count, count + 1.0)
        code = count.to(tl.int32, bitcast=True) & 255
        if PARTIAL:
            code = tl.where(mask, code, 0)
        word = tl.sum(code << (i * NBITS), axis=1, keep_dims=True)
        tl.store(out_ptr + n * words + w, word.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _levels(b_ptr, first, D, L, C, STEPS: tl.constexpr, BD: tl.constexpr):
    """The boundaries that each step of a search by halves may meet: [2**step * BD], columns first."""
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
    # Nothing is known of the strides, so a lane takes one value of each row: its column, its bank.
    t = tl.arange(0, BN * BD)
    row, c = t // BD, t % BD
    d = tl.program_id(1) * BD + c
    levels = _levels(b_ptr, tl.program_id(1) * BD, D, L, C, STEPS, BD)
    first = tl.program_id(0).to(tl.int64) * rows
    x_ptr += first * stride_n
    out_ptr += first * D
    rows = tl.minimum(rows, N - first).to(tl.int32)
    # A place in a level is below * BD + c. It is kept as that many 2**-149, a float whose bits are the place:
    # sums of floats have a pipe of their own, and these are exact.
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
            code = tl.minimum(code, L)  # NaN is above what fills the last level, too
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
    # Two programs of eight warps an SM of NVIDIA's; without this the compiler takes more than half.
    registers = {"maxnreg": 128} if compile_target().startswith("cuda") else {}
    _search[triton.cdiv(N, rows), triton.cdiv(D, BD)](
        x, boundaries, out, N, D, L, C, x.stride(0), rows,
        STEPS=steps, FULL=(1 << steps) - 1 == L, BN=BN, BD=BD, SHIFT=BD.bit_length() - 1,
        num_warps=8, enable_fp_fusion=False, **registers,
    )  # fmt: skip


def bucketize(x: Tensor, boundaries: Tensor) -> Tensor:
    """Launch: (N, D) float32|float16|bfloat16, (C, L) float32 -> (N, D) uint8."""
    return bucketize_packed(x, boundaries, 8)
