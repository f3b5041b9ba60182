"""Vectors back from packed codes: each code is replaced by its centroid.

out[n, m*S + s] = centroids[m, code[n, m], s], copied bit for bit.
Layouts: packed (N, B) uint8 of nbits = log2(K) bits a code, centroids (M, K, S) -> out (N, M*S), by rows.
Bytes moved: N*B in, N*D*itemsize out; the M*K*S*itemsize of centroids stay in cache.
Source: FAISS ProductQuantizer::decode.
Ladder: 1. a lane an output element, its code read from L1 (here): the store is the traffic, in whole lines.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._bits import load_code


def _tile(D: int) -> tuple[int, int]:
    """(BN, BD): 1024 elements, as wide as the rows allow."""
    BD = min(max(16, triton.next_power_of_2(D)), 128)
    return 1024 // BD, BD


@triton.jit(do_not_specialize=["N", "B"])
def _decode(packed_ptr, c_ptr, out_ptr, N, D, B, S, NBITS: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr):
    n = tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN)[:, None]
    d = tl.program_id(1) * BD + tl.arange(0, BD)[None, :]
    m = d // S  # [1, BD]
    mask = (n < N) & (d < D)
    code = load_code(packed_ptr + n * B, m, mask, NBITS)
    row = m.to(tl.int64) * (1 << NBITS) + code  # of the centroids, as (M*K, S)
    value = tl.load(c_ptr + row * S + d % S, mask=mask, other=0.0)
    tl.store(out_ptr + n * D + d, value, mask=mask)


def decode(packed: Tensor, centroids: Tensor) -> Tensor:
    """Launch: (N, B) uint8, (M, K, S) float32|float16 -> (N, M*S) in the dtype of the centroids."""
    (N, B), (M, K, S) = packed.shape, centroids.shape
    D = M * S
    out = torch.empty((N, D), dtype=centroids.dtype, device=packed.device)
    if N == 0:
        return out
    BN, BD = _tile(D)
    grid = (triton.cdiv(N, BN), triton.cdiv(D, BD))
    _decode[grid](
        packed.contiguous(), centroids.contiguous(), out, N, D, B, S,
        NBITS=K.bit_length() - 1, BN=BN, BD=BD, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return out
