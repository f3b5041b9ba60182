"""Scores of chosen rows per query, from floats or from packed codes.

score = q.x, or q.x / (|q| |x|) with 0 if a norm is 0, or -|q - x|**2, where x is row ids[q, r]; -inf for an
invalid id. For a store of bytes, x is start + step * byte.
Layouts: queries (Q, D) float32, store (N, D) float32|float16|bfloat16|uint8|int8 or packed (N, B) uint8, both
with any row stride, ids (Q, R) int64, start and step (D,) float32 or None -> scores (Q, R) float32.
Bytes moved: Q*R*(D*itemsize + 12) for floats; Q*R*(B + 12) for codes, with centroids from cache.
Source: the refinement of FAISS IndexRefine.
Ladder: 1. (here) one program per query and BR candidates. Whole rows are read in accesses of 16 bytes.
Products are summed per lane over the dims and once across lanes, so that the rounding of a sum depends only
on its row.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._bits import chunk_width, load_chunks


def _tile(D: int) -> tuple[int, int]:
    """Return (BR, BD): 2048 elements. It depends only on D, because it determines the order of sums."""
    BD = min(max(32, triton.next_power_of_2(D)), 128)
    return 2048 // BD, BD


@triton.jit
def _add(product, square, own, x, y, METRIC: tl.constexpr):
    """Add the terms of rows x and query y to their sums."""
    if METRIC == "l2":
        product += (y - x) * (y - x)
    else:
        product += y * x
    if METRIC == "cosine":
        square += x * x
        own += y * y
    return product, square, own


@triton.jit
def _store_keys(out_ptr, at, product, square, own, known, inside, METRIC: tl.constexpr):
    """Compute the scores from the sums over all dims and store them."""
    key = product
    if METRIC == "l2":
        key = -product
    if METRIC == "cosine":
        norms = tl.sqrt(square) * tl.sqrt(own)
        key = tl.where(norms > 0, product / tl.where(norms > 0, norms, 1.0), 0.0)
    tl.store(out_ptr + at, tl.where(known, key, float("-inf")), mask=inside)


@triton.jit
def _candidates(ids_ptr, q, R, N, blocks, BR: tl.constexpr):
    """Return this program's places in the row of ids, which exist, the ids, and which are valid."""
    r = tl.program_id(0) % blocks * BR + tl.arange(0, BR)
    inside = r < R
    n = tl.load(ids_ptr + q * R + r, mask=inside, other=-1)
    return r, inside, n, (n >= 0) & (n < N)


@triton.jit(do_not_specialize=["R", "N", "blocks"])
def _rescore(
    q_ptr, store_ptr, ids_ptr, start_ptr, step_ptr, out_ptr, R, N, D, stride_n, blocks,
    METRIC: tl.constexpr, BR: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    q = (tl.program_id(0) // blocks).to(tl.int64)
    r, inside, n, known = _candidates(ids_ptr, q, R, N, blocks, BR)
    product, square = tl.zeros([BR, BD], tl.float32), tl.zeros([BR, BD], tl.float32)
    own = tl.zeros([1, BD], tl.float32)
    for first in range(0, D, BD):
        d = first + tl.arange(0, BD)[None, :]
        y = tl.load(q_ptr + q * D + d, mask=d < D, other=0.0)
        at = n[:, None] * stride_n + d
        x = tl.load(store_ptr + at, mask=known[:, None] & (d < D), other=0.0).to(tl.float32)
        if step_ptr is not None:
            start = tl.load(start_ptr + d, mask=d < D, other=0.0)
            x = start + x * tl.load(step_ptr + d, mask=d < D, other=0.0)
        product, square, own = _add(product, square, own, x, y, METRIC)
    product, square, own = tl.sum(product, 1), tl.sum(square, 1), tl.sum(own, 1)
    _store_keys(out_ptr, q * R + r, product, square, own, known, inside, METRIC)


@triton.jit(do_not_specialize=["R", "N", "blocks"])
def _rescore_codes(
    q_ptr, packed_ptr, table_ptr, ids_ptr, out_ptr, R, N, D, chunks, stride_n, blocks,
    METRIC: tl.constexpr, S: tl.constexpr, NBITS: tl.constexpr,
    BR: tl.constexpr, BC: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    q = (tl.program_id(0) // blocks).to(tl.int64)
    r, inside, n, known = _candidates(ids_ptr, q, R, N, blocks, BR)
    rows = packed_ptr + n[:, None] * stride_n
    product, square = tl.zeros([BR, BC, W], tl.float32), tl.zeros([BR, BC, W], tl.float32)
    own = tl.zeros([1, BC, W], tl.float32)
    for first in range(0, chunks, BC):
        c = first + tl.arange(0, BC)[None, :]
        at = (q * D + c * W)[:, :, None] + tl.arange(0, W)
        y = tl.load(q_ptr + at, mask=(c < chunks)[:, :, None], other=0.0)
        x = load_chunks(rows, table_ptr, c, known[:, None] & (c < chunks), S, W, NBITS).to(tl.float32)
        product, square, own = _add(product, square, own, x, y, METRIC)
    product, square, own = tl.sum(product, 2), tl.sum(square, 2), tl.sum(own, 2)
    product, square, own = tl.sum(product, 1), tl.sum(square, 1), tl.sum(own, 1)
    _store_keys(out_ptr, q * R + r, product, square, own, known, inside, METRIC)


def rescore(
    queries: Tensor, store: Tensor, ids: Tensor, metric: str, start: Tensor | None = None,
    step: Tensor | None = None, *, tile: tuple[int, int] | None = None,
) -> Tensor:  # fmt: skip
    """Launch: (Q, D) float32, (N, D) as above, (Q, R) int64, (D,) float32 or None twice -> (Q, R) float32."""
    (Q, R), (N, D) = ids.shape, store.shape
    out = torch.empty((Q, R), dtype=torch.float32, device=queries.device)
    if out.numel() == 0:
        return out
    store = store if store.stride(1) == 1 else store.contiguous()
    BR, BD = tile or _tile(D)
    blocks = triton.cdiv(R, BR)
    start, step = (None if t is None else t.contiguous() for t in (start, step))
    _rescore[(Q * blocks,)](
        queries.contiguous(), store, ids.contiguous(), start, step, out, R, N, D, store.stride(0), blocks,
        METRIC=metric, BR=BR, BD=BD, num_warps=4, enable_fp_fusion=True,
    )  # fmt: skip
    return out


def rescore_codes(
    queries: Tensor, packed: Tensor, centroids: Tensor, ids: Tensor, metric: str, *,
    tile: tuple[int, int] | None = None,
) -> Tensor:  # fmt: skip
    """Launch: (Q, M*S) float32, (N, B) uint8, (M, K, S) float32|float16, (Q, R) int64 -> (Q, R) float32."""
    (Q, R), (M, K, S) = ids.shape, centroids.shape
    out = torch.empty((Q, R), dtype=torch.float32, device=queries.device)
    if out.numel() == 0:
        return out
    packed = packed if packed.stride(1) == 1 else packed.contiguous()
    (BR, BD), W = tile or _tile(M * S), chunk_width(S, centroids.element_size())
    blocks = triton.cdiv(R, BR)
    _rescore_codes[(Q * blocks,)](
        queries.contiguous(), packed, centroids.contiguous(), ids.contiguous(), out,
        R, len(packed), M * S, M * (S // W), packed.stride(0), blocks,
        METRIC=metric, S=S, NBITS=K.bit_length() - 1, BR=BR, BC=BD // W, W=W,
        num_warps=4, enable_fp_fusion=True,
    )  # fmt: skip
    return out
