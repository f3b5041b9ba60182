"""Hamming distances between bit strings, for all rows or chosen rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.parallel import map_blocks
from gpuzip.ops._define import define_op
from gpuzip.ops._samples import generator
from gpuzip.ops.groups import max_of_groups

Words = np.ndarray[Any, np.dtype[np.uint64]]

#: Distance of masked rows, groups without rows and invalid ids.
ABSENT = (1 << 31) - 1

_ROWS = 8192
_GATHERED = 1 << 20  # bytes of codes gathered per block
_BITS = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)


def _bits(packed: Tensor) -> Tensor:
    """Unpack (..., B) uint8 to (..., 8 * B) uint8 of 0 and 1, lowest bit first."""
    shifts = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed[..., None] >> shifts) & 1).flatten(-2)


def _least_of_groups(distance: Tensor, group: int) -> Tensor:
    """(Q, N) -> (Q, ceil(N / group)): the minimum of each `group` consecutive columns."""
    return -max_of_groups(-distance.T, group).contiguous()


def _scan_reference(queries: Tensor, codes: Tensor, mask: Tensor | None, group: int) -> Tensor:
    differs = _bits(queries)[:, None, :] != _bits(codes)[None, :, :]  # [Q, N, 8B]
    distance = differs.sum(-1, dtype=torch.int32)
    if mask is not None:
        distance = distance.masked_fill(~mask, ABSENT)
    return _least_of_groups(distance, group)


def _gather_reference(queries: Tensor, codes: Tensor, mask: Tensor | None, ids: Tensor) -> Tensor:
    distance = _scan_reference(queries, codes, mask, 1)
    nowhere = (ids < 0) | (ids >= len(codes))
    if distance.shape[1] == 0:
        return torch.full_like(ids, ABSENT, dtype=torch.int32)
    return distance.gather(1, ids.masked_fill(nowhere, 0)).masked_fill(nowhere, ABSENT)


def _words(packed: Tensor) -> Words:
    """View (..., B) uint8 as (..., ceil(B / 8)) words, the last padded with zero bits."""
    beyond = -packed.shape[-1] % 8
    whole = torch.nn.functional.pad(packed, (0, beyond)) if beyond else packed.contiguous()
    words: Words = whole.numpy().view(np.uint64)
    return words


def _count(words: Words) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Count the set bits of each word."""
    counts: np.ndarray[Any, np.dtype[np.uint8]]
    if hasattr(np, "bitwise_count"):
        counts = np.bitwise_count(words)
    else:
        by_bytes = _BITS[np.ascontiguousarray(words).view(np.uint8)]
        counts = by_bytes.reshape(*words.shape, 8).sum(-1, dtype=np.uint8)
    return counts


def _by_counting(queries: Words, codes: Tensor) -> Tensor:
    """(Q, words), (n, B) uint8 -> (Q, n) int32, one column of words at a time."""
    columns = np.ascontiguousarray(_words(codes).T)
    distance = np.zeros((len(queries), len(codes)), dtype=np.int32)
    differs = np.empty(len(codes), dtype=np.uint64)
    for row, query in zip(distance, queries, strict=True):
        for column, word in zip(columns, query, strict=True):
            row += _count(np.bitwise_xor(column, word, out=differs))
    return torch.from_numpy(distance)


def _scan_cpu(queries: Tensor, codes: Tensor, mask: Tensor | None, group: int) -> Tensor:
    N = len(codes)
    best = torch.empty((len(queries), -(-N // group)), dtype=torch.int32, device="cpu")
    words = _words(queries)

    def one_block(start: int, stop: int) -> None:
        distance = _by_counting(words, codes[start:stop])
        if mask is not None:
            distance.masked_fill_(~mask[start:stop], ABSENT)
        best[:, start // group : -(-stop // group)] = _least_of_groups(distance, group)

    map_blocks(one_block, N, _ROWS)
    return best


def _gather_cpu(queries: Tensor, codes: Tensor, mask: Tensor | None, ids: Tensor) -> Tensor:
    N, B = codes.shape
    if N == 0:
        return torch.full_like(ids, ABSENT, dtype=torch.int32)
    absent = (ids < 0) | (ids >= N)
    rows = ids.masked_fill(absent, 0)
    if mask is not None:
        absent = absent | ~mask[rows]
    distance = torch.empty(ids.shape, dtype=torch.int32, device="cpu")

    def some_queries(start: int, stop: int) -> None:
        differs = codes[rows[start:stop]] ^ queries[start:stop, None, :]
        distance[start:stop] = torch.from_numpy(_count(_words(differs)).sum(-1, dtype=np.int32))

    map_blocks(some_queries, len(queries), max(1, _GATHERED // max(1, ids.shape[1] * B)))
    return distance.masked_fill_(absent, ABSENT)


def _scan_shapes(queries: Tensor, codes: Tensor, mask: Tensor | None, group: int) -> Tensor:
    groups = (codes.shape[0] + group - 1) // group
    return queries.new_empty((queries.shape[0], groups), dtype=torch.int32)


def _gather_shapes(queries: Tensor, codes: Tensor, mask: Tensor | None, ids: Tensor) -> Tensor:
    return queries.new_empty(ids.shape, dtype=torch.int32)


def _random_bytes(rows: int, B: int, seed: int) -> Tensor:
    return torch.randint(0, 256, (rows, B), generator=generator(seed)).to(torch.uint8)


# (Q, N, B, group, masked): up to 8, 10 and more queries; rows of bytes, of words and of 16 bytes
_SIZES = [(1, 1, 1, 1, False), (1, 277, 16, 16, True), (3, 521, 4, 1024, True), (7, 67, 13, 1, False)]
_SIZES += [(2, 0, 8, 16, True), (0, 5, 4, 2, False), (8, 1031, 48, 1024, True), (10, 131, 48, 1, True)]
_SIZES += [(11, 131, 16, 1, True), (13, 1, 1, 1, False), (67, 257, 20, 16, True), (17, 1031, 7, 1024, True)]
_SIZES += [(129, 83, 48, 1, False), (12, 0, 4, 16, False), (12, 1031, 32, 1024, False)]


def _scan_samples(device: str) -> Iterator[tuple[Tensor, Tensor, Tensor | None, int]]:
    for Q, N, B, group, masked in _SIZES:
        queries, codes = _random_bytes(Q, B, 1), _random_bytes(N, B, 2)
        codes[N // 2 :] = codes[: N - N // 2].clone()  # ties
        queries[: min(Q, N)] = codes[: min(Q, N)]  # distance 0
        mask = torch.rand(N, generator=generator(3)) < 0.7
        mask[:32] = False  # a fully masked group
        yield queries.to(device), codes.to(device), mask.to(device) if masked else None, group
    extremes = torch.tensor([0, 255, 128, 1, 127], dtype=torch.uint8)[:, None].expand(5, 128).to(device)
    yield extremes, extremes, None, 2
    yield extremes.repeat(4, 1), extremes, None, 1


def _gather_samples(device: str) -> Iterator[tuple[Tensor, Tensor, Tensor | None, Tensor]]:
    for queries, codes, mask, _ in _scan_samples(device):
        N = len(codes)
        ids = torch.randint(-2, N + 2, (len(queries), N % 11), generator=generator(4))
        yield queries, codes, mask, ids.to(device)


_scan = define_op(
    "hamming_scan(Tensor queries, Tensor codes, Tensor? mask, int group) -> Tensor",
    reference=_scan_reference,
    cpu=_scan_cpu,
    loops="gpuzip.loops.hamming:hamming_scan",
    shapes=_scan_shapes,
    kernel="gpuzip.kernels.hamming:hamming_scan",
    samples=_scan_samples,
    agreement="exact",
)
_gather = define_op(
    "hamming_gather(Tensor queries, Tensor codes, Tensor? mask, Tensor ids) -> Tensor",
    reference=_gather_reference,
    cpu=_gather_cpu,
    loops="gpuzip.loops.hamming:hamming_gather",
    shapes=_gather_shapes,
    kernel="gpuzip.kernels.hamming:hamming_gather",
    samples=_gather_samples,
    agreement="exact",
)


def hamming_scan(queries: Tensor, codes: Tensor, mask: Tensor | None = None, group: int = 1) -> Tensor:
    """Count the bits in which every row differs from every query, and keep the minimum per group of rows.

    queries (Q, B) uint8, codes (N, B) uint8, mask (N,) bool or None -> (Q, ceil(N / group)) int32: the
    minimum over each `group` consecutive rows whose mask is True, or 2**31 - 1 without such rows. group is a
    power of two, 1 to 1024; 1 gives every distance. Exact. Padding bits must be equal in queries and codes.
    """
    least: Tensor = _scan(queries, codes, mask, group)
    return least


def hamming_gather(queries: Tensor, codes: Tensor, mask: Tensor | None, ids: Tensor) -> Tensor:
    """Compute the distances of only the rows ids[q]: (Q, R) int64 -> (Q, R) int32.

    Rows whose mask is False and ids outside [0, N) have the distance 2**31 - 1. Exact.
    """
    distance: Tensor = _gather(queries, codes, mask, ids)
    return distance
