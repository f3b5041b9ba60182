"""Inner products of int8 queries with rows of 8-bit or 4-bit scalar codes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gpuzip._core.byte_products import byte_products
from gpuzip._core.matmul import matrix_product
from gpuzip._core.parallel import map_blocks, rows_per_thread
from gpuzip.ops._define import define_op
from gpuzip.ops._samples import generator, random_codes
from gpuzip.ops.bits import pack_bits, unpack_bits
from gpuzip.ops.groups import max_of_groups

_LEAST_ROWS, _MOST_ROWS = 2048, {4: 8192, 8: 1 << 16}  # rows per block: codes of 4 bits are unpacked
_SUMS = 1 << 19  # sums per block with many queries


def _scores(
    dots: Tensor,
    query_scale: Tensor,
    query_offset: Tensor | None,
    scale: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """(n, Q) int32 -> (n, Q) float32, with one rounding per step, in this order."""
    scores = dots.float().mul_(query_scale)
    if query_offset is not None:
        scores += query_offset
    if scale is not None:
        scores *= scale[:, None]
    return scores if bias is None else scores.add_(bias[:, None])


def _reference(
    codes: Tensor,
    queries: Tensor,
    query_scale: Tensor,
    query_offset: Tensor | None,
    scale: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    nbits: int,
    group: int,
) -> Tensor:
    values = unpack_bits(codes, queries.shape[1], nbits)
    dots = matrix_product(torch.matmul, values.long(), queries.long().T).int()
    scores = _scores(dots, query_scale, query_offset, scale, bias)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None], float("-inf"))
    return max_of_groups(scores, group).contiguous()


def _cpu(
    codes: Tensor,
    queries: Tensor,
    query_scale: Tensor,
    query_offset: Tensor | None,
    scale: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    nbits: int,
    group: int,
) -> Tensor:
    N, (Q, D) = len(codes), queries.shape
    best = torch.empty((Q, -(-N // group)), dtype=torch.float32, device="cpu")

    def one_block(start: int, stop: int) -> None:
        dots = byte_products(unpack_bits(codes[start:stop], D, nbits), queries)
        scale_here, bias_here = (None if row is None else row[start:stop] for row in (scale, bias))
        scores = _scores(dots, query_scale, query_offset, scale_here, bias_here)
        if mask is not None:
            scores.masked_fill_(~mask[start:stop, None], float("-inf"))
        best[:, start // group : -(-stop // group)] = max_of_groups(scores, group)

    map_blocks(one_block, N, _block_rows(N, Q, nbits))
    return best


def _block_rows(N: int, Q: int, nbits: int) -> int:
    """Rows per block, which every group size divides: many, as each block takes new memory."""
    fit = rows_per_thread(N, _LEAST_ROWS, min(_MOST_ROWS[nbits], _SUMS // max(1, Q)))
    return -(-fit // 1024) * 1024


def _shapes(
    codes: Tensor,
    queries: Tensor,
    query_scale: Tensor,
    query_offset: Tensor | None,
    scale: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    nbits: int,
    group: int,
) -> Tensor:
    return query_scale.new_empty((queries.shape[0], (codes.shape[0] + group - 1) // group))


_Sample = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None, int, int]


def _samples(device: str) -> Iterator[_Sample]:
    # (Q, N, D, nbits, group): plain products up to four queries, more than one tile, rows of odd bytes
    sizes = [(1, 1, 1, 8, 1), (1, 1, 1, 4, 1), (3, 277, 48, 8, 16), (4, 67, 33, 4, 1), (2, 1031, 31, 8, 1024)]
    sizes += [(5, 131, 64, 8, 1), (7, 197, 63, 4, 32), (67, 139, 130, 4, 4), (65, 1031, 16, 8, 1024)]
    sizes += [
        (1, 2053, 12, 4, 512),
        (2, 0, 5, 8, 16),
        (0, 7, 5, 4, 2),
        (9, 17, 1100, 8, 2),
        (6, 2049, 7, 4, 1024),
        (100, 197, 16, 8, 32),
    ]
    for Q, N, D, nbits, group in sizes:
        g = generator(N + D)
        codes = pack_bits(random_codes(N, D, 1 << nbits, seed=D), nbits)
        codes[N // 2 :] = codes[: N - N // 2].clone()  # ties
        queries = torch.randint(-128, 128, (Q, D), generator=g).to(torch.int8)
        scale, bias = torch.rand(N, generator=g) - 0.3, torch.randn(N, generator=g)
        mask = torch.rand(N, generator=g) < 0.7
        mask[:32] = False  # a fully masked group
        of_queries = torch.rand(Q, generator=g).to(device), torch.randn(Q, generator=g).to(device)
        floats = *of_queries, scale.to(device), bias.to(device)
        yield codes.to(device), queries.to(device), *floats, mask.to(device), nbits, group
        if N % 2:
            yield codes.to(device), queries.to(device), floats[0], None, None, None, None, nbits, group
    for nbits, Q in ((8, 2), (8, 5), (4, 2), (4, 5)):  # the extremes of codes and queries
        codes = torch.tensor([0, 255, 127, 128, 15, 240], dtype=torch.uint8)[:, None].expand(
            6, 2048 * nbits // 8
        )
        queries = torch.tensor([-128, 127, 1, -1, 0], dtype=torch.int8)[:Q, None].expand(Q, 2048)
        yield (
            codes.to(device),
            queries.to(device),
            torch.ones(Q, device=device),
            None,
            None,
            None,
            None,
            nbits,
            1,
        )


_op = define_op(
    "scalar_scan(Tensor codes, Tensor queries, Tensor query_scale, Tensor? query_offset, Tensor? scale, "
    "Tensor? bias, Tensor? mask, int nbits, int group) -> Tensor",
    reference=_reference,
    cpu=_cpu,
    loops="gpuzip.loops.scalar_scan:scalar_scan",
    shapes=_shapes,
    kernel="gpuzip.kernels.scalar_scan:scalar_scan",
    samples=_samples,
    agreement="exact",
)


def scalar_scan(
    codes: Tensor,
    queries: Tensor,
    query_scale: Tensor,
    query_offset: Tensor | None = None,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    nbits: int = 8,
    group: int = 1,
) -> Tensor:
    """Score every row of scalar codes for every query, and keep the best of each `group` consecutive rows.

    codes (N, B) uint8: with nbits 8 one code of 0..255 per byte, B = D; with nbits 4 two codes of 0..15 per
    byte, dim 2j in the low half of byte j, B = ceil(D / 2), as `pack_bits` lays them out.
    queries (Q, D) int8, query_scale (Q,) float32, query_offset (Q,) float32 or None, scale and bias (N,)
    float32 or None, mask (N,) bool or None -> (Q, ceil(N / group)) float32: the maximum, over the rows of a
    group whose mask is True, of (query_scale[q] * float(sum_d queries[q, d] * code[n, d]) + query_offset[q])
    * scale[n] + bias[n]; -inf without such rows. group is a power of two, 1 to 1024; 1 gives every score.
    D is at most 65536.

    The sum is exact, in int32. Each float32 step rounds once, in the order written, so that every device
    gives the same scores if scales and biases are finite.
    Source: the codes are those of FAISS
    ScalarQuantizer, QT_8bit and QT_4bit.
    """
    best: Tensor = _op(codes, queries, query_scale, query_offset, scale, bias, mask, nbits, group)
    return best
