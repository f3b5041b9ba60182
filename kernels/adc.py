"""Asymmetric distances: scores of packed codes from tables per query, for all rows or chosen rows.

score[q, n] = (lut[q, 0, code[n, 0]] + lut[q, 1, code[n, 1]] + ...) * scale[n] + extra[n, 0] * coef[q, 0]
+ ..., fp32, in the order of m and of e, and -inf where mask[n] is False. adc_scan keeps the maximum of each
`group` rows. Both kernels share the helper that sums, so adc_gather gives the bits of adc_scan.
Layouts: packed (N, B) uint8 of nbits = log2(K) bits per code, lut (Q, M, K), scale (N,) or None, mask (N,) or
None, extra (N, E) and coef (Q, E) or None, ids (Q, R) -> adc_scan (Q, ceil(N/group)), adc_gather (Q, R),
where an id outside [0, N) scores -inf.
Bytes moved: adc_scan N*(B + 4 + 4*E) in, once from memory and for the other queries from L2,
Q*ceil(N/group)*4 out; adc_gather Q*R*(B + 16 + 4*E). A table, M*K*4, is read from L2 once per BN rows.
Source: Jegou, Douze, Schmid, "Product quantization for nearest neighbor search" (2011), section III.
Ladder: 1. one lane per (query, row); entries are gathered by pointer through L1. Kept if a row of the table
has more entries than there are look-ups. 2. a row of the table in shared memory, by a one-dimensional gather:
one shared load per look-up (a two-dimensional gather is hundreds of warp shuffles). Codes are read as words,
up to four per load, because bytes at a stride of B would cost a sector of 32 each. 3. (here) the tables of a
word's codes as one row, and the codes of all its sub-spaces in one gather: two barriers per word instead of
per code. On an H200 form 2 took 27 ps per row for M = 48, K = 256 and 39 ps for M = 96, K = 16, more for
barriers and waiting than for look-ups. Form 3 is modelled at 24 and 17 ps. The look-ups alone, 3.15 cycles
for 32 of them in a row of 256 entries, are 20 ps. Two queries per program, which would share loads and shifts
of codes, would therefore gain little.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._bits import load_code


class Tile(NamedTuple):
    """Sizes: BN rows per program; VW words of codes per load, 0 for single codes.

    SHARED: whether rows of the table go to shared memory, as always for words.
    """

    BN: int
    SHARED: bool
    VW: int

    @property
    def warps(self) -> int:
        return 8 if self.BN >= 512 else 4  # four rows per thread; more would not fit in registers


TILES = (
    Tile(1024, True, 4),
    Tile(1024, True, 2),
    Tile(2048, True, 4),
    Tile(2048, True, 2),
    Tile(512, True, 4),
)


def _tile(rows: int, words: int, K: int, group: int = 0) -> Tile:
    """Choose how many rows share each row of the table, at most those there are, in whole groups for a scan.

    Twice as many chosen rows would not fit in the registers of sm_100.
    """
    BN = max(group, 1024 if group and rows >= 1 << 16 else 512 if rows >= 1 << 11 else 256)
    most = {256: 4, 16: 4, 4: 2, 2: 2}.get(K, 0)
    return Tile(BN, K <= BN, min(most, words & -words))


@triton.jit
def _entries(table_ptr, m, M, code, NBITS: tl.constexpr, SHARED: tl.constexpr):
    """Return table[m, code] for codes [BN]; 0 past the last sub-space."""
    first, end = m * (1 << NBITS), M * (1 << NBITS)
    if SHARED:
        k = first + tl.arange(0, 1 << NBITS)
        return tl.gather(tl.load(table_ptr + k, mask=k < end, other=0.0), code, 0)
    return tl.load(table_ptr + first + code, mask=first + code < end, other=0.0)


@triton.jit
def _codes(word, first: tl.constexpr, count: tl.constexpr, NBITS: tl.constexpr):
    """Return codes [BN, 2, ..., 2] of a word, plus j * 2**NBITS for code j; the last axis is j's top bit."""
    if count == 1:
        code = ((word >> (first * NBITS)) & ((1 << NBITS) - 1)) + first * (1 << NBITS)
    else:
        low = _codes(word, first, count // 2, NBITS)
        code = tl.join(low, _codes(word, first + count // 2, count // 2, NBITS))
    return code


@triton.jit
def _add_in_order(score, entries):
    """Add entries [BN, 2, ..., 2] in `_codes`' layout to score [BN] in the order of codes."""
    if len(entries.shape) == 1:
        score += entries
    else:
        low, high = tl.split(entries)
        score = _add_in_order(_add_in_order(score, low), high)
    return score


@triton.jit
def _add_word(score, word, table_ptr, m, M, NBITS: tl.constexpr):
    """Add the entries of the codes in word [BN], from code m on, to score [BN]."""
    code = _codes(word, 0, 32 // NBITS, NBITS)
    k = m * (1 << NBITS) + tl.arange(0, (32 // NBITS) << NBITS)
    rows = tl.load(table_ptr + k, mask=k < M * (1 << NBITS), other=0.0)
    entries = tl.gather(rows, tl.reshape(code, [code.numel]), 0)
    return _add_in_order(score, tl.reshape(entries, code.shape))


@triton.jit
def _add_words(score, words, table_ptr, m, M, NBITS: tl.constexpr):
    """Add the entries of the codes in words [BN, VW], from code m on, to score [BN]."""
    BN: tl.constexpr = words.shape[0]
    VW: tl.constexpr = words.shape[1]
    if VW == 1:
        score = _add_word(score, tl.reshape(words, [BN]), table_ptr, m, M, NBITS)
    else:
        low, high = tl.split(tl.permute(tl.reshape(words, [BN, 2, VW // 2]), (0, 2, 1)))
        score = _add_words(score, low, table_ptr, m, M, NBITS)
        score = _add_words(score, high, table_ptr, m + VW // 2 * (32 // NBITS), M, NBITS)
    return score


@triton.jit
def _scores(
    packed_ptr, lut_ptr, scale_ptr, mask_ptr, extra_ptr, coef_ptr, q, n, row_ok, M, loads,
    NBITS: tl.constexpr, E: tl.constexpr, BN: tl.constexpr, SHARED: tl.constexpr, VW: tl.constexpr,
):  # fmt: skip
    """Score rows n [BN] int64 with query q's table -> [BN]. A packed row is `loads` * VW words or bytes."""
    table_ptr = lut_ptr + q * M * (1 << NBITS)
    score = tl.zeros([BN], tl.float32)
    if VW == 0:
        for m in range(M):
            code = load_code(packed_ptr + n * loads, m, row_ok, NBITS)
            score += _entries(table_ptr, m, M, code, NBITS, SHARED)
    else:
        for i in range(loads):
            w = i * VW + tl.arange(0, VW)[None, :]
            words = tl.load(packed_ptr + n[:, None] * (loads * VW) + w, mask=row_ok[:, None], other=0)
            score = _add_words(score, words, table_ptr, i * VW * (32 // NBITS), M, NBITS)
    if scale_ptr is not None:
        score *= tl.load(scale_ptr + n, mask=row_ok, other=1.0)
    for e in tl.static_range(E):
        score += tl.load(extra_ptr + n * E + e, mask=row_ok, other=0.0) * tl.load(coef_ptr + q * E + e)
    if mask_ptr is not None:
        row_ok &= tl.load(mask_ptr + n, mask=row_ok, other=0) != 0
    return tl.where(row_ok, score, float("-inf"))


@triton.jit(do_not_specialize=["N", "Q", "M", "loads", "groups"])
def _adc_scan(
    packed_ptr, lut_ptr, scale_ptr, mask_ptr, extra_ptr, coef_ptr, out_ptr, N, Q, M, loads, groups,
    NBITS: tl.constexpr, G: tl.constexpr, E: tl.constexpr,
    BN: tl.constexpr, SHARED: tl.constexpr, VW: tl.constexpr,
):  # fmt: skip
    tile = (tl.program_id(0) // Q).to(tl.int64)
    q = (tl.program_id(0) % Q).to(tl.int64)
    n = tile * BN + tl.arange(0, BN)
    score = _scores(
        packed_ptr, lut_ptr, scale_ptr, mask_ptr, extra_ptr, coef_ptr, q, n, n < N, M, loads,
        NBITS, E, BN, SHARED, VW,
    )  # fmt: skip
    best = tl.max(tl.reshape(score, [BN // G, G]), axis=1)
    g = tile * (BN // G) + tl.arange(0, BN // G)
    tl.store(out_ptr + q * groups + g, best, mask=g < groups)


@triton.jit(do_not_specialize=["N", "R", "M", "loads", "tiles"])
def _adc_gather(
    packed_ptr, lut_ptr, scale_ptr, mask_ptr, extra_ptr, coef_ptr, ids_ptr, out_ptr, N, R, M, loads, tiles,
    NBITS: tl.constexpr, E: tl.constexpr, BN: tl.constexpr, SHARED: tl.constexpr, VW: tl.constexpr,
):  # fmt: skip
    q = (tl.program_id(0) // tiles).to(tl.int64)
    r = (tl.program_id(0) % tiles) * BN + tl.arange(0, BN)
    n = tl.load(ids_ptr + q * R + r, mask=r < R, other=-1)
    row_ok = (n >= 0) & (n < N)
    score = _scores(
        packed_ptr, lut_ptr, scale_ptr, mask_ptr, extra_ptr, coef_ptr, q, n, row_ok, M, loads,
        NBITS, E, BN, SHARED, VW,
    )  # fmt: skip
    tl.store(out_ptr + q * R + r, score, mask=r < R)


def _operands(
    packed: Tensor,
    lut: Tensor,
    scale: Tensor | None,
    mask: Tensor | None,
    extra: Tensor | None,
    coef: Tensor | None,
    tile: Tile,
) -> tuple[tuple[Tensor | None, ...], int, dict[str, int]]:
    """Return both kernels' first arguments, the loads per row of codes, and bits and columns by name."""
    loads = packed.shape[1]
    if tile.VW:
        packed, loads = packed.view(torch.int32), loads // (4 * tile.VW)
    scale = None if scale is None else scale.contiguous()
    mask = None if mask is None else mask.contiguous().view(torch.uint8)
    extra, coef = (None if t is None else t.contiguous() for t in (extra, coef))
    sizes = {"NBITS": lut.shape[2].bit_length() - 1, "E": 0 if extra is None else extra.shape[1]}
    return (packed, lut.contiguous(), scale, mask, extra, coef), loads, sizes


def _words(packed: Tensor) -> int:
    """Return the 4-byte words per row; 0 if rows do not start at words, as in a slice of bytes."""
    at_a_word = packed.data_ptr() % 4 == 0 and packed.storage_offset() % 4 == 0
    return packed.shape[1] // 4 if at_a_word and packed.shape[1] % 4 == 0 else 0


def adc_scan(
    packed: Tensor,
    lut: Tensor,
    scale: Tensor | None,
    mask: Tensor | None,
    group: int,
    extra: Tensor | None = None,
    coef: Tensor | None = None,
    tile: Tile | None = None,
) -> Tensor:
    """Launch: (N, B) uint8, (Q, M, K), (N,), (N,) bool, (N, E) and (Q, E) -> (Q, ceil(N/group)) float32."""
    packed, N, (Q, M, K) = packed.contiguous(), packed.shape[0], lut.shape
    groups = triton.cdiv(N, group)
    out = torch.empty((Q, groups), dtype=torch.float32, device=packed.device)
    if out.numel() == 0:
        return out
    tile = tile or _tile(N, _words(packed), K, group)
    operands, loads, sizes = _operands(packed, lut, scale, mask, extra, coef, tile)
    _adc_scan[(triton.cdiv(N, tile.BN) * Q,)](
        *operands, out, N, Q, M, loads, groups,
        **sizes, G=group, BN=tile.BN, SHARED=tile.SHARED, VW=tile.VW,
        num_warps=tile.warps, enable_fp_fusion=False,
    )  # fmt: skip
    return out


def adc_gather(
    packed: Tensor,
    lut: Tensor,
    scale: Tensor | None,
    mask: Tensor | None,
    ids: Tensor,
    extra: Tensor | None = None,
    coef: Tensor | None = None,
    tile: Tile | None = None,
) -> Tensor:
    """Launch: as adc_scan, with ids (Q, R) int64 instead of a group -> (Q, R) float32."""
    packed, N, (Q, M, K), R = packed.contiguous(), packed.shape[0], lut.shape, ids.shape[1]
    out = torch.empty((Q, R), dtype=torch.float32, device=packed.device)
    if out.numel() == 0:
        return out
    tile = tile or _tile(R, _words(packed), K)
    operands, loads, sizes = _operands(packed, lut, scale, mask, extra, coef, tile)
    tiles = triton.cdiv(R, tile.BN)
    _adc_gather[(Q * tiles,)](
        *operands, ids.contiguous(), out, N, R, M, loads, tiles,
        **sizes, BN=tile.BN, SHARED=tile.SHARED, VW=tile.VW,
        num_warps=tile.warps, enable_fp_fusion=False,
    )  # fmt: skip
    return out
