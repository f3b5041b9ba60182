"""Beam search for the codes of a residual quantizer: low-cost sums of one entry per stage.

Per row and part: cost[l, k] = ((products[m, k] + cross[0m][path[l, 0], k]) + cross[1m][path[l, 1], k]..)
+ cost[l]. The L lowest costs of all (l, k) are kept; the lower l*K + k wins a tie. There are only additions,
in the order of the reference, so the codes are identical.
Layouts: products (N, P, M, K) and cross (P, M*(M-1)/2, K, K) float32 -> (N, P*M) uint8 when K <= 256, else
int32. Between stages costs (N*P, L) float32 and paths (N*P, L, M) int32.
Bytes moved: products N*P*M*K*4 from memory, and N*P*L*M*(M-1)/2*K*4 of tables from L2 or memory.
Source: Babenko and Lempitsky 2014; FAISS ResidualQuantizer with tables of products of codewords.
Ladder: 1. (here) one launch per stage and one program per row: the L*K costs of a row are a tile, from which
the minimum is removed L times. One launch for all stages would need barriers between writing and reading
paths.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_MOST = 8192  # costs per tile; beyond that, K is processed in parts


def _tile(L: int, K: int) -> tuple[int, int]:
    """Return (BL, BK): all partial paths and the next codes per tile, as powers of two with few variants.

    With triton 3.6, 16 beginnings and 32 codes spill 8 bytes on sm_90, and 64 and 128 do on sm_100.
    """
    BL = 1 if L == 1 else max(8, triton.next_power_of_2(L))
    if K <= 32:
        return BL, 16 if BL == 16 else 32
    return BL, min(256, (_MOST if BL <= 32 else _MOST // 2) // BL)


@triton.jit
def _least(value, at, LAST: tl.constexpr):
    """Return the minimum of a vector and the lowest number that has it."""
    least = tl.min(value, axis=0)
    return least, tl.min(tl.where(value == least, at, LAST), axis=0)


@triton.jit(do_not_specialize=["P", "m", "old_width", "width"])
def _beam_stage(
    products_ptr,
    cross_ptr,
    old_cost_ptr,
    old_paths_ptr,
    cost_ptr,
    paths_ptr,
    P,
    M,
    K,
    L,
    m,
    old_width,
    width,
    BL: tl.constexpr,
    BK: tl.constexpr,
):
    """Extend `old_width` partial paths of one row and part by stage m, and keep the `width` cheapest."""
    LAST: tl.constexpr = 2147483647
    row = tl.program_id(0).to(tl.int64)
    p = row % P
    table = K.to(tl.int64) * K
    first_table_ptr = cross_ptr + (p * (M * (M - 1) // 2) + m * (m - 1) // 2) * table
    beginning, slot = tl.arange(0, BL), tl.arange(0, BL)
    there = beginning < old_width
    before = tl.load(old_cost_ptr + row * L + beginning, mask=there, other=float("inf"))
    best, best_at = tl.full((BL,), float("inf"), tl.float32), tl.full((BL,), LAST, tl.int32)
    for first in range(0, K, BK):
        k = first + tl.arange(0, BK)
        inside = there[:, None] & (k < K)
        one = tl.load(products_ptr + (row * M + m) * K + k, mask=k < K, other=0.0)
        total = tl.broadcast_to(one[None, :], (BL, BK))
        table_ptr = first_table_ptr
        for j in range(m):
            code = tl.load(old_paths_ptr + (row * L + beginning) * M + j, mask=there, other=0)
            entry = code.to(tl.int64)[:, None] * K + k
            total += tl.load(table_ptr + entry, mask=inside, other=0.0)
            table_ptr += table
        total = tl.where(inside, total + before[:, None], float("inf"))
        value = tl.reshape(total, (BL * BK,))
        at = tl.reshape(tl.where(inside, beginning[:, None] * K + k, LAST), (BL * BK,))
        new, new_at = tl.full((BL,), float("inf"), tl.float32), tl.full((BL,), LAST, tl.int32)
        for i in range(width):
            here, here_at = _least(value, at, LAST)
            kept, kept_at = _least(best, best_at, LAST)
            from_here = (here < kept) | ((here == kept) & (here_at < kept_at))
            least, least_at = tl.where(from_here, here, kept), tl.where(from_here, here_at, kept_at)
            new, new_at = tl.where(slot == i, least, new), tl.where(slot == i, least_at, new_at)
            value = tl.where(at == least_at, float("inf"), value)
            at = tl.where(at == least_at, LAST, at)
            best = tl.where(best_at == least_at, float("inf"), best)
            best_at = tl.where(best_at == least_at, LAST, best_at)
        best, best_at = new, new_at
    out = slot < width
    tl.store(cost_ptr + row * L + slot, best, mask=out)
    parent, code = best_at // K, best_at % K
    for j in range(m):
        passed = tl.load(old_paths_ptr + (row * L + parent) * M + j, mask=out, other=0)
        tl.store(paths_ptr + (row * L + slot) * M + j, passed, mask=out)
    tl.store(paths_ptr + (row * L + slot) * M + m, code, mask=out)


def beam_search(products: Tensor, cross: Tensor, beam: int) -> Tensor:
    """Launch: (N, P, M, K), (P, M*(M-1)/2, K, K) float32 -> (N, P*M) uint8 | int32."""
    N, P, M, K = products.shape
    products, cross = products.contiguous(), cross.contiguous()
    costs = [
        torch.zeros((N * P, beam), dtype=torch.float32, device=products.device),
        torch.empty((N * P, beam), dtype=torch.float32, device=products.device),
    ]
    paths = [torch.empty((N * P, beam, M), dtype=torch.int32, device=products.device) for _ in range(2)]
    BL, BK = _tile(beam, K)
    width = 1
    for m in range(M if N > 0 else 0):
        old, new, wider = m % 2, 1 - m % 2, min(beam, width * K)
        _beam_stage[(N * P,)](
            products,
            cross,
            costs[old],
            paths[old],
            costs[new],
            paths[new],
            P,
            M,
            K,
            beam,
            m,
            width,
            wider,
            BL=BL,
            BK=BK,
            num_warps=4 if BL * BK <= 2048 else 8,
        )
        width = wider
    labels = paths[M % 2][:, 0].reshape(N, P * M)
    return labels.to(torch.uint8 if K <= 256 else torch.int32)
