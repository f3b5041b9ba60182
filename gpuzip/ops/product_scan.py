"""Scores of packed codes by a matrix product over blocks of decoded rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from gpuzip._core.matmul import matrix_product
from gpuzip._core.parallel import map_blocks
from gpuzip.ops._define import define_op
from gpuzip.ops._samples import generator, random_codes
from gpuzip.ops.bits import pack_bits
from gpuzip.ops.decode import decode
from gpuzip.ops.groups import max_of_groups

_ROWS = 4096


def _reference(
    packed: Tensor,
    table: Tensor,
    queries: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    group: int,
) -> Tensor:
    keys = matrix_product(torch.matmul, decode(packed, table).float(), queries.float().T)
    if scale is not None:
        keys = keys * scale[:, None]
    if bias is not None:
        keys = keys + bias[:, None]
    if mask is not None:
        keys = keys.masked_fill(~mask[:, None], float("-inf"))
    return max_of_groups(keys, group).contiguous()


def _cpu(
    packed: Tensor,
    table: Tensor,
    queries: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    group: int,
) -> Tensor:
    if table.dtype == torch.float16:  # CPUs have no fast float16 product
        table, queries = table.float(), queries.float()
    N, columns = len(packed), queries.T.contiguous()
    best = torch.empty((len(queries), -(-N // group)), dtype=torch.float32, device="cpu")

    def one_block(start: int, stop: int) -> None:
        forbidden = None if mask is None else ~mask[start:stop, None]
        groups = slice(start // group, -(-stop // group))
        if forbidden is not None and bool(forbidden.all()):
            best[:, groups] = float("-inf")
            return
        keys = matrix_product(torch.matmul, decode(packed[start:stop], table), columns).float()
        if scale is not None:
            keys *= scale[start:stop, None]
        if bias is not None:
            keys += bias[start:stop, None]
        if forbidden is not None:
            keys.masked_fill_(forbidden, float("-inf"))
        best[:, groups] = max_of_groups(keys, group)

    map_blocks(one_block, N, _ROWS)
    return best


def _shapes(
    packed: Tensor,
    table: Tensor,
    queries: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    group: int,
) -> Tensor:
    groups = (packed.shape[0] + group - 1) // group
    return packed.new_empty((queries.shape[0], groups), dtype=torch.float32)


def _samples(device: str) -> Iterator[tuple[Any, ...]]:
    half, brain, single = torch.float16, torch.bfloat16, torch.float32
    sizes = [
        (1, 1, 1, 1, 1, 1, half),
        (3, 37, 5, 3, 3, 4, half),
        (17, 300, 6, 4, 3, 16, half),  # two codes per byte, joined; S not a power of two
        (16, 260, 8, 1, 2, 1, half),  # eight codes per byte
        (5, 131, 7, 4, 4, 32, half),
        (2, 67, 3, 8, 65, 16, half),  # more columns than a step
        (129, 150, 9, 8, 8, 32, half),
        (130, 700, 8, 8, 8, 128, half),
        (2, 1100, 2, 8, 16, 1024, half),
        (2, 19, 3, 9, 5, 2, half),
        (1, 23, 1, 16, 2, 1, half),
        (2, 70, 3, 8, 8, 8, brain),
        (33, 70, 3, 8, 12, 64, single),
        (2, 4200, 2, 4, 2, 64, single),
        (2, 0, 2, 4, 2, 16, half),
        (0, 9, 2, 4, 2, 16, half),
    ]
    for Q, N, M, nbits, S, group, dtype in sizes:
        g, K = generator(N + Q), 1 << nbits
        packed = pack_bits(random_codes(N, M, K), nbits).to(device)
        table, queries = torch.randn(M, K, S, generator=g), torch.randn(Q, M * S, generator=g)
        if dtype == brain:  # small integers, whose sums are exact in bfloat16 too
            table, queries = table.round().clamp(-2, 2), queries.round().clamp(-2, 2)
        else:
            table = table / (M * S) ** 0.5
        scale, bias = torch.rand(N, generator=g), torch.randn(N, generator=g)
        mask = torch.rand(N, generator=g) < 0.5
        mask[: 2 * group] = False
        table, queries = table.to(device, dtype), queries.to(device, dtype)
        yield packed, table, queries, None, None, None, group
        yield packed, table, queries, scale.to(device), bias.to(device), mask.to(device), group


_op = define_op(
    "product_scan(Tensor packed, Tensor table, Tensor queries, Tensor? scale, Tensor? bias, Tensor? mask, "
    "int group) -> Tensor",
    reference=_reference,
    cpu=_cpu,
    loops="gpuzip.loops.product_scan:product_scan",
    shapes=_shapes,
    kernel="gpuzip.kernels.product_scan:product_scan",
    samples=_samples,
    agreement="close",
)


def product_scan(
    packed: Tensor,
    table: Tensor,
    queries: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    group: int = 1,
) -> Tensor:
    """Decode rows, multiply them by the queries, and keep the best score of each `group` consecutive rows.

    packed (N, B) uint8 codes; table (M, K, S) with K = 2**nbits and queries (Q, M*S), both float16, bfloat16
    or float32; scale and bias (N,) float32 or None; mask (N,) bool or None -> (Q, ceil(N / group)) float32:
    max over the group of (x[n] . queries[q]) * scale[n] + bias[n], where x[n, m*S + s] = table[m, code[n, m],
    s], and -inf for rows where mask is False. group as in `adc_scan`. Products and sums are float32 in an
    order that depends on the device. The scores are therefore estimates with a known error; `adc_scan` gives
    final scores. On a CPU a bfloat16 product is also rounded to bfloat16. Decoded rows take the memory of one
    block: 4096 rows per thread on a CPU; on a GPU a tile, or 256 MB for more than 128 queries.
    """
    best: Tensor = _op(packed, table, queries, scale, bias, mask, group)
    return best
