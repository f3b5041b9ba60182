"""Squared distances on the matrix units with float32's digits: every value as two float16 halves.

|c|^2 - 2 x.c orders the centroids of a row as |x - c|^2 does. With powers of two sx (of the row) and sc (of
the sub-space), sx*sc times it is one float16 product with float32 sums, whose inner axis has four slots a
dimension s:

    of the row        hi   lo   hi/2^11   r/2^(11 s)      hi + lo = x*sx,  r = sx/sc
    of the centroid   ch   ch   cl*2^11   b_s*2^(11 s)    ch + cl = -2*c*sc,  b_0 + .. + b_3 = |c*sc|^2

A half has 11 digits, so each remainder is 2^11 times smaller and is kept 2^11 times larger: remainders stay
normal where the values do. Ranges, with C the largest |c| and X the largest |component| of the row:
- |c*sc| < 2^7, so |c*sc|^2 < 2^14 and 2*c*sc < 2^8 are float16.
- x*sx < 2^14, and r <= 2^15: where sx would pass sc*2^15, for rows far smaller than C, it is that. Then
  X*sx > 1 still while X > C*2^-18, and the error of hi + lo is below 2^-25.
- r is a power of two: exact, or zero below 2^-24. r/2^11s is zero only where C < X*2^(11s - 30), and then
  what it carries, |c|^2*2^-11s at most, is below 2^(11s - 60) of X^2: 2^-60, 2^-49, 2^-38, 2^-27.
- The error of b is 2^-44 of |c|^2, or 2^-58 of 1, and that is 2^-18 of |c|^2 for every |c| > C*2^-23; the
  error of ch + cl is 2^-22 of 2*c*sc, or 2^-36 of 1.
Centroids are centred by their mean where that halves their reach, and so are the rows, in float32, so that a
common offset takes no digits; an outlier among centroids must not move the others away from zero.
Products of halves are exact in float32; their sum in the matrix units is not, and that is the error left.
Source: the split is that of Markidis et al., "NVIDIA tensor core programmability" (2018), with the third
product kept and the fourth, lo*cl, below 2^-22, left out.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


def padded(S: int) -> int:
    """Dimensions that a product is built for: four slots each, 16 slots are its least."""
    return max(4, triton.next_power_of_2(S))


@triton.jit
def power_of_two(exponent):
    """2**(exponent - 127), float32; 0 for exponent 0."""
    return (exponent << 23).to(tl.float32, bitcast=True)


@triton.jit
def exponent_of(x):
    """The exponent field of x >= 0: x < 2**(field - 126)."""
    return x.to(tl.int32, bitcast=True) >> 23


@triton.jit
def table_exponent(reach, SP: tl.constexpr):
    """The exponent field of sc, by the largest |component|: |c| <= sqrt(SP) * reach."""
    root: tl.constexpr = 1 if SP <= 4 else (2 if SP <= 16 else 3)  # 2**root >= sqrt(SP)
    return tl.minimum(260 - root - exponent_of(reach), 239)  # 239: sc * 2**15 is still float32


@triton.jit
def row_scale(largest, exponent):
    """sx and r of rows by their largest |component|, and the exponent field of sc."""
    row = tl.minimum(267 - exponent_of(largest), exponent + 15)
    row = tl.maximum(tl.minimum(row, 254), 1)
    return power_of_two(row), power_of_two(tl.maximum(row - exponent + 127, 0))


@triton.jit
def bias_scale(s):
    """2^-11s for the first four dimensions, 0 for others."""
    return power_of_two(tl.where(s < 4, 127 - 11 * s, 0))


@triton.jit
def halves_of_rows(x, exponent, BN: tl.constexpr, SP: tl.constexpr):
    """(BN, SP) float32 and the exponent field of sc -> the rows' (BN, 4*SP) float16, x*sx and r."""
    scale, ratio = row_scale(tl.max(tl.abs(x), axis=1), exponent)
    scaled = x * scale[:, None]
    hi = scaled.to(tl.float16)
    lo = (scaled - hi.to(tl.float32)).to(tl.float16)
    low_hi = (hi.to(tl.float32) * 0.00048828125).to(tl.float16)
    bias = (ratio[:, None] * bias_scale(tl.arange(0, SP))[None, :]).to(tl.float16)
    halves = tl.join(tl.join(hi, low_hi), tl.join(lo, bias))  # [.., i, j] is slot 2i + j
    return tl.reshape(halves, (BN, 4 * SP)), scaled, ratio


@triton.jit
def halves_of_slots(x, exponent, SP: tl.constexpr):
    """The same halves where x, (BN, 4*SP) float32, has each dimension four times: nothing moves."""
    j = tl.arange(0, 4 * SP)[None, :]
    scale, ratio = row_scale(tl.max(tl.abs(x), axis=1), exponent)
    scaled = x * scale[:, None]
    hi = scaled.to(tl.float16).to(tl.float32)
    bias = ratio[:, None] * bias_scale(j // 4)
    rest = tl.where(j % 4 == 1, scaled - hi, tl.where(j % 4 == 2, hi * 0.00048828125, bias))
    return tl.where(j % 4 == 0, hi, rest).to(tl.float16), scaled, ratio


@triton.jit
def halves_of_table(c, exponent, BK: tl.constexpr, SP: tl.constexpr):
    """(BK, SP) float32 and the exponent field of sc -> (BK, 4*SP) float16."""
    scaled = c * power_of_two(exponent)
    twice = -2 * scaled
    high = twice.to(tl.float16)
    low = ((twice - high.to(tl.float32)) * 2048).to(tl.float16)
    rest = tl.sum(scaled * scaled, axis=1)
    s = tl.arange(0, SP)
    bias = tl.zeros([BK, SP], tl.float16)
    for i in tl.static_range(4):
        part = rest.to(tl.float16)
        bias = tl.where(s[None, :] == i, part[:, None], bias)
        rest = (rest - part.to(tl.float32)) * 2048
    return tl.reshape(tl.join(tl.join(high, low), tl.join(high, bias)), (BK, 4 * SP))


@triton.jit
def halves_of_table_slots(c, exponent, BK: tl.constexpr, SP: tl.constexpr):
    """The same halves where c, (BK, 4*SP) float32, has each dimension four times."""
    j = tl.arange(0, 4 * SP)[None, :]
    scaled = c * power_of_two(exponent)
    high = (-2 * scaled).to(tl.float16).to(tl.float32)
    rest = tl.sum(scaled * scaled, axis=1) * 0.25  # [BK]
    bias = tl.zeros([BK, 4 * SP], tl.float32)
    for i in tl.static_range(4):
        part = rest.to(tl.float16).to(tl.float32)
        bias = tl.where(j // 4 == i, part[:, None], bias)
        rest = (rest - part) * 2048
    last = tl.where(j % 4 == 2, (-2 * scaled - high) * 2048, bias)
    return tl.where(j % 4 < 2, high, last).to(tl.float16)


@triton.jit(do_not_specialize=["K"])
def _center(c_ptr, shift_ptr, exponent_ptr, K, S: tl.constexpr, SP: tl.constexpr, BK: tl.constexpr):
    m = tl.program_id(0)
    k = tl.arange(0, BK)[:, None]
    s = tl.arange(0, SP)[None, :]
    c_ptr += m.to(tl.int64) * K * S + k * S + s
    total = tl.zeros([BK, SP], tl.float32)
    far = tl.zeros([BK, SP], tl.float32)
    for k0 in range(0, K, BK):
        c = tl.load(c_ptr + k0 * S, mask=(k0 + k < K) & (s < S), other=0.0)
        total += c
        far = tl.maximum(far, tl.abs(c))
    mean = tl.sum(total, axis=0)[None, :] / K
    near = tl.zeros([BK, SP], tl.float32)
    for k0 in range(0, K, BK):
        mask = (k0 + k < K) & (s < S)
        c = tl.load(c_ptr + k0 * S, mask=mask, other=0.0)
        near = tl.maximum(near, tl.where(mask, tl.abs(c - mean), 0.0))
    reach = tl.max(tl.max(far, axis=1), axis=0)
    centred = tl.max(tl.max(near, axis=1), axis=0)
    centre = centred * 2 <= reach
    shift = tl.where(centre, mean, 0.0)
    tl.store(shift_ptr + m * SP + s, shift)
    tl.store(exponent_ptr + m, table_exponent(tl.where(centre, centred, reach), SP))


@triton.jit(do_not_specialize=["K", "KP"])
def _table(
    c_ptr, shift_ptr, exponent_ptr, table_ptr, K, KP, S: tl.constexpr, SP: tl.constexpr, BK: tl.constexpr
):  # fmt: skip
    m = tl.program_id(1)
    k = tl.program_id(0) * BK + tl.arange(0, BK)[:, None]
    s = tl.arange(0, SP)[None, :]
    own = m.to(tl.int64) * K + tl.minimum(k, K - 1)  # past the last the last again: the lower index wins
    c = tl.load(c_ptr + own * S + s, mask=s < S, other=0.0)
    c -= tl.load(shift_ptr + m * SP + s)
    halves = halves_of_table(c, tl.load(exponent_ptr + m), BK, SP)
    j = tl.arange(0, 4 * SP)[None, :]
    tl.store(table_ptr + (m.to(tl.int64) * KP + k) * (4 * SP) + j, halves)


def halves_table(centroids: Tensor, BK: int) -> tuple[Tensor, Tensor, Tensor]:
    """Launch: (M, K, S) float32 -> table (M, KP, 4*SP) float16, shift (M, SP) float32, exponent (M,) int32.

    KP is K rounded up to BK, a multiple of 16.
    """
    M, K, S = centroids.shape
    SP, KP = padded(S), triton.cdiv(K, BK) * BK
    centroids = centroids.contiguous()
    table = torch.empty((M, KP, 4 * SP), dtype=torch.float16, device=centroids.device)
    shift = torch.empty((M, SP), dtype=torch.float32, device=centroids.device)
    exponent = torch.empty((M,), dtype=torch.int32, device=centroids.device)
    rows = max(16, min(2048 // SP, triton.next_power_of_2(K)))
    _center[(M,)](centroids, shift, exponent, K, S=S, SP=SP, BK=rows, num_warps=4, enable_fp_fusion=False)
    grid = (KP // 16, M)
    _table[grid](
        centroids, shift, exponent, table, K, KP, S=S, SP=SP, BK=16, num_warps=1, enable_fp_fusion=False
    )
    return table, shift, exponent
