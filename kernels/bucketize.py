"""Which interval of a small ascending table every value is in, packed as it is stored.

out[n, d] = number of boundaries b of d with not (b >= x[n, d]): those strictly below x, and all for NaN.
Layouts: x (N, D) float32|float16|bfloat16 with any row stride, boundaries (C, L) float32, C in {1, D} -> (N,
B) uint8 of nbits bits a count, B = ceil(D*nbits/8), lowest bits first, bits after the last count zero.
Bytes moved: N*D*itemsize in, N*B out; the boundaries stay in L1. Counts stored as bytes and packed by
pack_bits would move 2*N*D more: for 4 bits of fp32 4.5 bytes a value here, 6.5 there.
Source: Lloyd 1982, Max 1960; the counts are those of torch.bucketize(right=False).
Ladder: 1. a lane the values of one stored word of up to 4 bytes (here). Up to 15 boundaries of all columns
and 31 of each are compared one by one, 2 instructions each, the boundary shared by the rows of a lane; more
are searched by halves, an L1 read and 4 instructions a step, without a branch.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


def _tile(D: int, nbits: int) -> tuple[int, int, int]:
    """(BN, BW, unit): rows, and words of `unit` bytes a row, the widest that fill rows. 4096 values.

    At least 16 columns, so that narrow rows have no tiles of their own.
    """
    unit = next((u for u in (4, 2) if D * nbits % (8 * u) == 0), 1)
    per_word = 8 * unit // nbits
    BW = max(1, min(max(16, triton.next_power_of_2(D)), 128) // per_word)
    return 4096 // (BW * per_word), BW, unit


def _steps(L: int, per_column: bool) -> int:
    """Halvings of a search over L boundaries, or 0 where each is compared."""
    few = 31 if per_column else 15
    return 0 if few >= L else L.bit_length()


@triton.jit(do_not_specialize=["N", "L"])
def _bucketize(
    x_ptr, b_ptr, out_ptr, N, D, L, words, stride_n,
    NBITS: tl.constexpr, PER_COLUMN: tl.constexpr, STEPS: tl.constexpr, PARTIAL: tl.constexpr,
    BN: tl.constexpr, BW: tl.constexpr, PER_WORD: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN)[:, None]
    w = tl.program_id(1) * BW + tl.arange(0, BW)[None, :]
    i = tl.arange(0, PER_WORD)
    d = (w * PER_WORD)[:, :, None] + i
    inside = (n < N) & (w < words)
    mask = inside[:, :, None]
    if PARTIAL:  # the last word of a row holds less than it could
        mask = mask & (d < D)
    x = tl.load(x_ptr + (n * stride_n)[:, :, None] + d, mask=mask, other=0.0).to(tl.float32)
    count = tl.zeros([BN, BW, PER_WORD], tl.int32)
    if STEPS == 0:
        column = ((tl.program_id(1) * BW + tl.arange(0, BW)) * PER_WORD)[:, None] + i  # [BW, PER_WORD]
        for k in range(L):
            if PER_COLUMN:  # boundaries are (L, D)
                b = tl.load(b_ptr + k * D + column, mask=column < D, other=0.0)[None, :, :]
            else:
                b = tl.load(b_ptr + k)
            count += tl.where(b >= x, 0, 1)
    else:
        table = b_ptr + (d * L if PER_COLUMN else 0)  # boundaries are (C, L)
        for s in tl.static_range(STEPS):
            b = tl.load(table + tl.minimum(count + ((1 << (STEPS - 1 - s)) - 1), L - 1), mask=mask, other=0.0)
            count += tl.where(b >= x, 0, 1 << (STEPS - 1 - s))
        count = tl.minimum(count, L)  # probes past the table read its last boundary again
    if PARTIAL:
        count = tl.where(mask, count, 0)
    word = tl.sum(count << (i * NBITS), axis=2)
    tl.store(out_ptr + n * words + w, word.to(out_ptr.dtype.element_ty), mask=inside)


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
    steps = _steps(L, C > 1)
    boundaries = (boundaries.T if C > 1 and steps == 0 else boundaries).contiguous()
    BN, BW, unit = tile or _tile(D, nbits)
    grid = (triton.cdiv(N, BN), triton.cdiv(B // unit, BW))
    _bucketize[grid](
        x, boundaries, out.view(_WORDS[unit]), N, D, L, B // unit, x.stride(0),
        NBITS=nbits, PER_COLUMN=C > 1, STEPS=steps, PARTIAL=D * nbits % 8 != 0,
        BN=BN, BW=BW, PER_WORD=8 * unit // nbits, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return out


def bucketize(x: Tensor, boundaries: Tensor) -> Tensor:
    """Launch: (N, D) float32|float16|bfloat16, (C, L) float32 -> (N, D) uint8."""
    return bucketize_packed(x, boundaries, 8)
