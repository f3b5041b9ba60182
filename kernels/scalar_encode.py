"""Which of equal steps every value is in: one byte a value.

out[n, d] = clamp(floor((x[n, d] - start[d]) / step[d]), 0, top), each operation rounded once.
Layouts: x (N, D) float32|float16|bfloat16 with any row stride, start and step (C,) float32, C in {1, D} ->
(N, D) uint8. Bytes moved: N*D*(itemsize + 1); starts and steps stay in L1.
Source: FAISS ScalarQuantizer; the arithmetic is that of sentence-transformers' quantize_embeddings.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


def _tile(D: int) -> tuple[int, int]:
    """(BN, BD): 4096 values, whole rows where they are not longer than 512."""
    BD = min(max(16, triton.next_power_of_2(D)), 512)
    return 4096 // BD, BD


@triton.jit(do_not_specialize=["N", "top"])
def _scalar_encode(
    x_ptr, start_ptr, step_ptr, out_ptr, N, D, top, stride_n,
    PER_COLUMN: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN)[:, None]
    d = tl.program_id(1) * BD + tl.arange(0, BD)[None, :]
    mask = (n < N) & (d < D)
    x = tl.load(x_ptr + n * stride_n + d, mask=mask, other=0.0).to(tl.float32)
    column = d * PER_COLUMN
    start = tl.load(start_ptr + column, mask=column < D, other=0.0)
    step = tl.load(step_ptr + column, mask=column < D, other=1.0)
    cell = tl.floor(tl.div_rn(x - start, step))
    cell = tl.minimum(tl.maximum(cell, 0.0), top.to(tl.float32))
    tl.store(out_ptr + n * D + d, cell.to(tl.int32).to(tl.uint8), mask=mask)


def scalar_encode(
    x: Tensor, start: Tensor, step: Tensor, top: int, tile: tuple[int, int] | None = None
) -> Tensor:
    """Launch: (N, D), (C,) float32, (C,) float32, top 1..255 -> (N, D) uint8."""
    N, D = x.shape
    out = torch.empty((N, D), dtype=torch.uint8, device=x.device)
    if out.numel() == 0:
        return out
    x = x if x.stride(1) == 1 else x.contiguous()
    BN, BD = tile or _tile(D)
    grid = (triton.cdiv(N, BN), triton.cdiv(D, BD))
    _scalar_encode[grid](
        x, start.contiguous(), step.contiguous(), out, N, D, top, x.stride(0),
        PER_COLUMN=int(len(start) > 1), BN=BN, BD=BD, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return out
