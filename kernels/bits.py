"""Packs codes of 1 to 16 bits into bytes, and unpacks them.

A row of M codes is one little-endian bit string: code m is bits [m*nbits, (m+1)*nbits), lowest bit first, and
bits after the last code are zero. Byte b is the union of the codes that touch bits [8b, 8b+8), shifted into
place.
Layouts: values (N, M) uint8|int32, each < 2**nbits <-> packed (N, B) uint8, B = ceil(M*nbits/8), by rows.
Bytes moved: N*M*(1 or 4) + N*B; the overlapping reads of a row come from L1.
Source: FAISS BitstringWriter (utils/hamming.h), with the same bytes.
Ladder: 1. one lane per byte to pack, one lane per code to unpack, so that no two lanes write one byte. Kept
for nbits that do not divide 8 and rows that end within a byte. 2. if rows end with a byte, the whole matrix
is one string: one lane per word of up to 4 bytes, with its up to 32 codes in accesses of up to 16 bytes
(_pack_words, _unpack_words).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._bits import load_code

_CODES = 4096  # codes per program over words


def _tile(columns: int) -> tuple[int, int]:
    """Return (BN, BC): 1024 elements, as wide as the rows allow."""
    BC = min(max(16, triton.next_power_of_2(columns)), 128)
    return 1024 // BC, BC


_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


def _unit(codes: int, M: int, nbits: int, offset: int) -> int:
    """Return the bytes per word if all codes form one string that starts at `offset`; 0 if rows have gaps."""
    if 8 % nbits or M * nbits % 8:
        return 0
    return next((u for u in (4, 2) if codes * nbits % (8 * u) == 0 and offset % u == 0), 1)


@triton.jit(do_not_specialize=["words"])
def _pack_words(values_ptr, out_ptr, words, NBITS: tl.constexpr, PER_WORD: tl.constexpr, BW: tl.constexpr):
    w = tl.program_id(0).to(tl.int64) * BW + tl.arange(0, BW)
    i = tl.arange(0, PER_WORD)
    value = tl.load(values_ptr + (w * PER_WORD)[:, None] + i, mask=(w < words)[:, None], other=0)
    word = tl.sum(value.to(tl.int32) << (i * NBITS), axis=1)
    tl.store(out_ptr + w, word.to(out_ptr.dtype.element_ty), mask=w < words)


@triton.jit(do_not_specialize=["words"])
def _unpack_words(packed_ptr, out_ptr, words, NBITS: tl.constexpr, PER_WORD: tl.constexpr, BW: tl.constexpr):
    w = tl.program_id(0).to(tl.int64) * BW + tl.arange(0, BW)
    i = tl.arange(0, PER_WORD)
    word = tl.load(packed_ptr + w, mask=w < words, other=0).to(tl.int32)
    code = (word[:, None] >> (i * NBITS)) & ((1 << NBITS) - 1)
    tl.store(out_ptr + (w * PER_WORD)[:, None] + i, code.to(tl.uint8), mask=(w < words)[:, None])


@triton.jit(do_not_specialize=["N"])
def _pack_bits(values_ptr, out_ptr, N, M, B, NBITS: tl.constexpr, BN: tl.constexpr, BB: tl.constexpr):
    n = tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN)[:, None]
    b = tl.program_id(1) * BB + tl.arange(0, BB)[None, :]
    mask = (n < N) & (b < B)
    byte = tl.zeros([BN, BB], tl.int32)
    meet: tl.constexpr = 8 // NBITS if 8 % NBITS == 0 else 2 + 6 // NBITS  # most codes that touch a byte
    for i in tl.static_range(meet):
        m = b * 8 // NBITS + i
        value = tl.load(values_ptr + n * M + m, mask=mask & (m < M), other=0).to(tl.int32)
        shift = m * NBITS - b * 8  # position of its lowest bit; negative if it began in an earlier byte
        byte |= tl.where(shift >= 0, value << tl.maximum(shift, 0), value >> tl.maximum(-shift, 0))
    tl.store(out_ptr + n * B + b, (byte & 255).to(tl.uint8), mask=mask)


@triton.jit(do_not_specialize=["N"])
def _unpack_bits(packed_ptr, out_ptr, N, M, B, NBITS: tl.constexpr, BN: tl.constexpr, BM: tl.constexpr):
    n = tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN)[:, None]
    m = tl.program_id(1) * BM + tl.arange(0, BM)[None, :]
    mask = (n < N) & (m < M)
    code = load_code(packed_ptr + n * B, m, mask, NBITS)
    tl.store(out_ptr + n * M + m, code.to(out_ptr.dtype.element_ty), mask=mask)


def pack_bits(values: Tensor, nbits: int) -> Tensor:
    """Launch: (N, M) uint8|int32, each < 2**nbits -> (N, B) uint8, B = ceil(M*nbits/8)."""
    N, M = values.shape
    B = triton.cdiv(M * nbits, 8)
    out = torch.empty((N, B), dtype=torch.uint8, device=values.device)
    if out.numel() == 0:
        return out
    unit = _unit(N * M, M, nbits, 0)
    if unit:
        words, PER_WORD = out.view(-1).view(_WORDS[unit]), 8 * unit // nbits
        BW = _CODES // PER_WORD
        _pack_words[(triton.cdiv(words.numel(), BW),)](
            values.contiguous(), words, words.numel(), NBITS=nbits, PER_WORD=PER_WORD, BW=BW,
            num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip
        return out
    BN, BB = _tile(B)
    grid = (triton.cdiv(N, BN), triton.cdiv(B, BB))
    _pack_bits[grid](
        values.contiguous(), out, N, M, B, NBITS=nbits, BN=BN, BB=BB, num_warps=4, enable_fp_fusion=False
    )
    return out


def unpack_bits(packed: Tensor, M: int, nbits: int) -> Tensor:
    """Launch: (N, B) uint8 -> (N, M) uint8, or int32 when nbits > 8."""
    N, B = packed.shape
    out = torch.empty((N, M), dtype=torch.uint8 if nbits <= 8 else torch.int32, device=packed.device)
    if out.numel() == 0:
        return out
    packed = packed.contiguous()
    unit = _unit(N * M, M, nbits, packed.storage_offset())
    if unit:
        words, PER_WORD = packed.view(-1).view(_WORDS[unit]), 8 * unit // nbits
        BW = _CODES // PER_WORD
        _unpack_words[(triton.cdiv(words.numel(), BW),)](
            words,
            out,
            words.numel(),
            NBITS=nbits,
            PER_WORD=PER_WORD,
            BW=BW,
            num_warps=4,
            enable_fp_fusion=False,
        )
        return out
    BN, BM = _tile(M)
    grid = (triton.cdiv(N, BN), triton.cdiv(M, BM))
    _unpack_bits[grid](packed, out, N, M, B, NBITS=nbits, BN=BN, BM=BM, num_warps=4, enable_fp_fusion=False)
    return out
