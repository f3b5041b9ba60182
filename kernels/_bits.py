"""Reads codes and decoded values from packed rows, for all kernels over packed bytes.

A row is a little-endian bit string: code m of nbits bits is bits [m*nbits, (m+1)*nbits), lowest bit first, so
for nbits=4 code 2j is the low nibble of byte j. Source: FAISS BitstringReader (utils/hamming.h), with the
same bytes.
"""

import triton
import triton.language as tl


@triton.jit
def load_code(rows, m, mask, NBITS: tl.constexpr):
    """Return code m of each row as int32, 0 where masked. rows: pointers to first bytes; arguments broadcast.

    Only bytes with a bit of the code are read, so the last code never reads past its row.
    """
    step: tl.constexpr = (NBITS | 8) & -(NBITS | 8)  # codes start at multiples of 1, 2, 4 or 8 bits
    span: tl.constexpr = (8 - step + NBITS + 7) // 8  # most bytes that a code touches: 1 to 3
    first = m * NBITS // 8
    last = (m * NBITS + NBITS - 1) // 8
    word = tl.load(rows + first, mask=mask, other=0).to(tl.int32)
    for i in tl.static_range(1, span):  # past the end reread the last byte, whose bits land above the code
        word |= tl.load(rows + tl.minimum(first + i, last), mask=mask, other=0).to(tl.int32) << (8 * i)
    return (word >> (m * NBITS % 8)) & ((1 << NBITS) - 1)


@triton.jit
def load_chunks(rows, table_ptr, c, mask, S: tl.constexpr, W: tl.constexpr, NBITS: tl.constexpr, share=1):
    """Return elements [c*W, (c+1)*W) of each decoded row, [BN, BC, W] in the table's dtype; 0 where masked.

    rows: [BN, 1] pointers to first bytes; table: (M / share, 2**NBITS, S), shared by `share` neighbours;
    c: [1, BC]; mask: [BN, BC]. W divides S, so a chunk needs one code and one access of W neighbouring
    elements of its centroid.
    """
    m = c // (S // W)
    code = load_code(rows, m, mask, NBITS)
    m = m // share
    # row of the table as (M * 2**NBITS, S); int64 only if the table may have 2**31 elements
    entry = ((m.to(tl.int64) if NBITS > 8 else m) << NBITS) + code
    first = entry * S + c % (S // W) * W
    return tl.load(table_ptr + first[:, :, None] + tl.arange(0, W), mask=mask[:, :, None], other=0.0)


def chunk_width(S: int, itemsize: int) -> int:
    """Return W, the largest power of two that divides S and fits in one access of 16 bytes."""
    return min(S & -S, 16 // itemsize)
