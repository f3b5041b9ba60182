"""Squared distances on the matrix units with the precision of float32: every value as two float16 halves.

|c|^2 - 2 x.c orders the centroids of a row as |x - c|^2 does. Scaled by powers of two, sx of the row and sc
of the sub-space, it is one float16 product with float32 sums, whose inner axis has four slots per dimension
s:

    of the row        hi   lo   hi/2^11   r/2^(11 s)      hi + lo = x*sx,  r = sx/sc
    of the centroid   ch   ch   cl*2^11   b_s*2^(11 s)    ch + cl = -2*c*sc,  b_0 + .. + b_3 = |c*sc|^2

A half has 11 digits, so a remainder is 2^11 times smaller. It is stored 2^11 times larger and so stays normal
where the value does. Ranges, with C the largest |c| and X the largest |component| of the row:
- |c*sc| < 2^7, so |c*sc|^2 < 2^14 and 2*c*sc < 2^8 are float16.
- x*sx < 2^14, and r <= 2^15: for rows far smaller than C, sx is limited to sc*2^15. Then still X*sx > 1 while
  X > C*2^-18, and the error of hi + lo is below 2^-25.
- r is a power of two: exact, or zero below 2^-24. r/2^11s is zero only if C < X*2^(11s - 30). The lost term,
  at most |c|^2*2^-11s, is then below 2^(11s - 60) of X^2: 2^-60, 2^-49, 2^-38, 2^-27.
- The error of b is 2^-44 of |c|^2, or 2^-58 of 1, which is 2^-18 of |c|^2 for every |c| > C*2^-23. The error
  of ch + cl is 2^-22 of 2*c*sc, or 2^-36 of 1.
If that halves their reach, centroids and rows are centred by the centroids' mean in float32, so that a common
offset costs no digits. Otherwise they are not, because an outlier would move the other centroids away from
zero. Products of halves are exact in float32. Their sum in the matrix units is not; that is the remaining
error.
Source: the split of Markidis et al., "NVIDIA tensor core programmability" (2018), with three products. The
fourth, lo*cl, is below 2^-22 and left out.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


def padded(S: int) -> int:
    """Return the dimensions of a product: a power of two with at least 16 slots, four per dimension."""
    return max(4, triton.next_power_of_2(S))


@triton.jit
def power_of_two(exponent):
    """Return 2**(exponent - 127) as float32; 0 for exponent 0."""
    return (exponent << 23).to(tl.float32, bitcast=True)


@triton.jit
def exponent_of(x):
    """Return the exponent field of x >= 0, where x < 2**(field - 126)."""
    return x.to(tl.int32, bitcast=True) >> 23


@triton.jit
def table_exponent(reach, SP: tl.constexpr):
    """Return the exponent field of sc from the largest |component|, as |c| <= sqrt(SP) * reach."""
    root: tl.constexpr = 1 if SP <= 4 else (2 if SP <= 16 else 3)  # 2**root >= sqrt(SP)
    return tl.minimum(260 - root - exponent_of(reach), 239)  # 239: sc * 2**15 is still float32


@triton.jit
def row_scale(largest, exponent):
    """Return sx and r of rows from their largest |component| and the exponent field of sc."""
    row = tl.minimum(267 - exponent_of(largest), exponent + 15)
    row = tl.maximum(tl.minimum(row, 254), 1)
    return power_of_two(row), power_of_two(tl.maximum(row - exponent + 127, 0))


@triton.jit
def bias_scale(s):
    """Return 2^-11s for the first four dimensions, else 0."""
    return power_of_two(tl.where(s < 4, 127 - 11 * s, 0))


@triton.jit
def halves_of_rows(x, exponent, BN: tl.constexpr, SP: tl.constexpr):
    """Split rows: (BN, SP) float32 and the exponent field of sc -> (BN, 4*SP) float16 from x*sx and r."""
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
    """Split rows x (BN, 4*SP) float32 that hold each dimension four times, so that nothing moves."""
    j = tl.arange(0, 4 * SP)[None, :]
    scale, ratio = row_scale(tl.max(tl.abs(x), axis=1), exponent)
    scaled = x * scale[:, None]
    hi = scaled.to(tl.float16).to(tl.float32)
    bias = ratio[:, None] * bias_scale(j // 4)
    rest = tl.where(j % 4 == 1, scaled - hi, tl.where(j % 4 == 2, hi * 0.00048828125, bias))
    return tl.where(j % 4 == 0, hi, rest).to(tl.float16), scaled, ratio


@triton.jit
def halves_of_table(c, exponent, BK: tl.constexpr, SP: tl.constexpr):
    """Split centroids: (BK, SP) float32 and the exponent field of sc -> (BK, 4*SP) float16."""
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
    """Split centroids c (BK, 4*SP) float32 that hold each dimension four times."""
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
    own = m.to(tl.int64) * K + tl.minimum(k, K - 1)  # past the end repeat the last: the lower index wins
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
