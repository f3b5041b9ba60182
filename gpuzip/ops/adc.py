"""Asymmetric distances: sums of the entries of a look-up table per query over the codes of each row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gpuzip._core.byte_tables import byte_tables
from gpuzip._core.matmul import matrix_product
from gpuzip._core.parallel import map_blocks
from gpuzip.ops._define import define_op
from gpuzip.ops._samples import generator, random_codes
from gpuzip.ops.bits import pack_bits, unpack_bits
from gpuzip.ops.groups import max_of_groups

_ROWS = 8192
_QUERIES = 32  # interleaved tables of 32 queries stay in L2
_LOOKUPS = 1 << 19  # look-up indices per block: 2 MB
_INT32 = (1 << 31) - 1


class RowTerms(NamedTuple):
    """What turns the sum of table entries of row n for query q into its score.

    score = sum * scale[n] + sum_e extra[n, e] * coef[q, e], and -inf where mask[n] is False.
    """

    scale: Tensor | None
    mask: Tensor | None
    extra: Tensor | None
    coef: Tensor | None


def _flat(call: Callable[[Tensor, Tensor, Any, RowTerms], Tensor]) -> Callable[..., Tensor]:
    """Adapt a function of (packed, lut, group or ids, terms) to the flat arguments of a torch schema."""

    def flat(
        packed: Tensor,
        lut: Tensor,
        scale: Tensor | None,
        mask: Tensor | None,
        group_or_ids: Any,
        extra: Tensor | None = None,
        coef: Tensor | None = None,
    ) -> Tensor:
        return call(packed, lut, group_or_ids, RowTerms(scale, mask, extra, coef))

    return flat


def _scores(codes: Tensor, lut: Tensor) -> Tensor:
    """(N, M) codes, (Q, M, K) -> (Q, N), summed in the order of m."""
    scores = lut.new_zeros((lut.shape[0], codes.shape[0]))
    for m in range(codes.shape[1]):
        scores += lut[:, m, :][:, codes[:, m].long()]
    return scores


def _scan_reference(packed: Tensor, lut: Tensor, group: int, terms: RowTerms) -> Tensor:
    scores = _all_scores(packed, lut, terms)
    return max_of_groups(scores.T.contiguous(), group).contiguous()


def _gather_reference(packed: Tensor, lut: Tensor, ids: Tensor, terms: RowTerms) -> Tensor:
    scores = _all_scores(packed, lut, terms)
    outside = (ids < 0) | (ids >= len(packed))
    padded = torch.nn.functional.pad(scores, (0, 1), value=float("-inf"))
    return padded.gather(1, ids.masked_fill(outside, len(packed)))


def _all_scores(packed: Tensor, lut: Tensor, terms: RowTerms) -> Tensor:
    """Return (Q, N) scores, -inf where the mask is False."""
    scale, mask, extra, coef = terms
    M, K = lut.shape[1:]
    scores = _scores(unpack_bits(packed, M, K.bit_length() - 1), lut)
    scores = scores if scale is None else scores * scale
    scores = scores if extra is None or coef is None else scores + matrix_product(torch.matmul, coef, extra.T)
    return scores if mask is None else scores.masked_fill(~mask, float("-inf"))


def _lookup_indices(packed: Tensor, lut: Tensor) -> Tensor:
    """(N, B) packed -> (N * tables,) int32 rows of a (tables * K)-row table."""
    _, M, K = lut.shape
    codes = packed if K == 256 else unpack_bits(packed, M, K.bit_length() - 1)
    return (codes + torch.arange(0, M * K, K, dtype=torch.int32, device="cpu")).view(-1)


def _sum_rows(table: Tensor, index: Tensor, per_row: int) -> Tensor:
    """Sum `per_row` consecutive indexed rows of a table in order, by an embedding bag."""
    offsets = torch.arange(0, len(index), per_row, dtype=torch.int32, device="cpu")
    return torch.embedding_bag(table, index, offsets)[0]


def _added(scores: Tensor, extra: Tensor, coef: Tensor) -> None:
    """Add sum_e extra[..., e] * coef[..., e] in the order of e, which matmul does not keep."""
    for e in range(extra.shape[-1]):
        scores += extra[..., e] * coef[..., e]


def _scan_cpu(packed: Tensor, lut: Tensor, group: int, terms: RowTerms) -> Tensor:
    scale, mask, extra, coef = terms
    lut = byte_tables(lut)
    Q, M, K = lut.shape
    N = len(packed)
    best = torch.empty((Q, -(-N // group)), dtype=torch.float32, device="cpu")
    tables = [
        torch.empty((M * K, len(t)), dtype=torch.float32, device="cpu").copy_(t.view(len(t), M * K).T)
        for t in lut.split(_QUERIES)
    ]

    def one_block(start: int, stop: int) -> None:
        forbidden = None if mask is None else ~mask[start:stop, None]
        groups = slice(start // group, -(-stop // group))
        if forbidden is not None and bool(forbidden.all()):
            best[:, groups] = float("-inf")
            return
        index = _lookup_indices(packed[start:stop], lut)
        for t, table in enumerate(tables):
            scores = _sum_rows(table, index, M)  # [n, q]
            if scale is not None:
                scores *= scale[start:stop, None]
            if extra is not None and coef is not None:
                _added(scores, extra[start:stop, None], coef[t * _QUERIES : (t + 1) * _QUERIES])
            if forbidden is not None:
                scores.masked_fill_(forbidden, float("-inf"))
            best[t * _QUERIES : (t + 1) * _QUERIES, groups] = max_of_groups(scores, group)

    map_blocks(one_block, N, _ROWS)
    return best


def _gather_cpu(packed: Tensor, lut: Tensor, ids: Tensor, terms: RowTerms) -> Tensor:
    scale, mask, extra, coef = terms
    lut = byte_tables(lut)
    Q, M, K = lut.shape
    N, R = len(packed), ids.shape[1]
    forbidden = (ids < 0) | (ids >= N)
    if N == 0 or ids.numel() == 0:
        return torch.full(ids.shape, float("-inf"), dtype=torch.float32, device="cpu")
    ids = ids.clamp(0, N - 1)
    scores = torch.empty(ids.shape, dtype=torch.float32, device="cpu")

    def some_queries(start: int, stop: int) -> None:
        index = _lookup_indices(packed[ids[start:stop].reshape(-1)], lut).view(stop - start, R * M)
        own_table = torch.arange(stop - start, dtype=torch.int32, device="cpu")[:, None] * (M * K)
        index += own_table
        sums = _sum_rows(lut[start:stop].view(-1, 1), index.view(-1), M)
        scores[start:stop] = sums.view(stop - start, R)

    at_a_time = min(_LOOKUPS // max(1, R * M), _INT32 // (M * K))
    map_blocks(some_queries, Q, max(1, at_a_time))
    if scale is not None:
        scores *= scale[ids]
    if extra is not None and coef is not None:
        _added(scores, extra[ids], coef[:, None])
    if mask is not None:
        forbidden |= ~mask[ids]
    return scores.masked_fill_(forbidden, float("-inf"))


def _scan_shapes(packed: Tensor, lut: Tensor, group: int, terms: RowTerms) -> Tensor:
    return lut.new_empty((lut.shape[0], (packed.shape[0] + group - 1) // group))


def _gather_shapes(packed: Tensor, lut: Tensor, ids: Tensor, terms: RowTerms) -> Tensor:
    return lut.new_empty(ids.shape)


def _extras(N: int, Q: int, E: int, device: str) -> tuple[Tensor, Tensor]:
    g = generator(N + E)
    return torch.randn(N, E, generator=g).to(device), torch.randn(Q, E, generator=g).to(device)


def _inputs(device: str) -> Iterator[tuple[Tensor, Tensor, Tensor | None, Tensor | None]]:
    sizes = [
        (1, 1, 1, 1),
        (3, 37, 5, 3),
        (2, 1031, 6, 4),
        (3, 1103, 7, 4),  # the last nibble is padding
        (2, 67, 16, 8),
        (33, 67, 3, 8),
        (1, 1201, 8, 8),
        (2, 19, 3, 9),
        (2, 300, 33, 4),
        (2, 515, 31, 4),
        (1, 67, 32, 2),
        (2, 131, 64, 1),
        (2, 8209, 2, 8),
    ]
    for Q, N, M, nbits in sizes:
        g = generator(N)
        packed = pack_bits(random_codes(N, M, 1 << nbits), nbits).to(device)
        lut = torch.randn(Q, M, 1 << nbits, generator=g).to(device)
        scale, mask = torch.rand(N, generator=g), torch.rand(N, generator=g) < 0.5
        mask[64:1090] = False  # whole groups of 16 and of 1024
        yield packed, lut, None, None
        yield packed, lut, scale.to(device), mask.to(device)
    yield packed, lut, None, torch.zeros_like(mask).to(device)
    yield packed.view(-1)[2:402].view(-1, 4), lut.repeat(1, 2, 1), None, None  # rows between words
    yield packed[:0], lut, scale[:0].to(device), mask[:0].to(device)


def _scan_samples(device: str) -> Iterator[tuple[Any, ...]]:
    for i, (packed, lut, scale, mask) in enumerate(_inputs(device)):
        for group in (1, 16, 1024):
            yield packed, lut, scale, mask, group
        yield packed, lut, scale, mask, 32, *_extras(len(packed), len(lut), 1 + i // 2 % 2, device)
    packed = random_codes(66_000, 1, 256).to(device)  # needs a large tile
    yield packed, torch.randn(1, 1, 256, generator=generator()).to(device), None, None, 64


def _gather_samples(device: str) -> Iterator[tuple[Any, ...]]:
    for i, (packed, lut, scale, mask) in enumerate(_inputs(device)):
        ids = torch.randint(-2, len(packed) + 2, (len(lut), 13), generator=generator(1)).to(device)
        yield packed, lut, scale, mask, ids
        yield packed, lut, scale, mask, ids, *_extras(len(packed), len(lut), 1 + i // 2 % 2, device)
    yield packed, lut[:0], None, None, ids[:0].to(device)


_scan = define_op(
    "adc_scan(Tensor packed, Tensor lut, Tensor? scale, Tensor? mask, int group, Tensor? extra=None, "
    "Tensor? coef=None) -> Tensor",
    reference=_flat(_scan_reference),
    cpu=_flat(_scan_cpu),
    loops="gpuzip.loops.adc:adc_scan",
    shapes=_flat(_scan_shapes),
    kernel="gpuzip.kernels.adc:adc_scan",
    samples=_scan_samples,
    agreement="close",
)
_gather = define_op(
    "adc_gather(Tensor packed, Tensor lut, Tensor? scale, Tensor? mask, Tensor ids, Tensor? extra=None, "
    "Tensor? coef=None) -> Tensor",
    reference=_flat(_gather_reference),
    cpu=_flat(_gather_cpu),
    loops="gpuzip.loops.adc:adc_gather",
    shapes=_flat(_gather_shapes),
    kernel="gpuzip.kernels.adc:adc_gather",
    samples=_gather_samples,
    agreement="close",
)


def adc_scan(
    packed: Tensor,
    lut: Tensor,
    scale: Tensor | None = None,
    group: int = 1,
    mask: Tensor | None = None,
    extra: Tensor | None = None,
    coef: Tensor | None = None,
) -> Tensor:
    """Score every row for every query and keep the best of each `group` consecutive rows.

    packed (N, B) uint8, lut (Q, M, K) float32 with K = 2**nbits, scale (N,) float32 or None, mask (N,) bool
    or None -> (Q, ceil(N / group)) float32: max over the group of scale[n] * sum_m lut[q, m, code[n, m]], and
    -inf for rows where mask is False. group is a power of two, 1 to 1024; 1 gives every score. Sums are
    float32. They may round differently between devices, but not between calls.
    extra (N, E) and coef (Q, E) float32, both or neither, are E uncoded columns of the rows. They add
    sum_e extra[n, e] * coef[q, e] after the scale.
    Source: Jegou, Douze, Schmid, "Product quantization for nearest neighbor search", 2011.
    """
    best: Tensor = _scan(packed, lut, scale, mask, group, extra, coef)
    return best


def adc_gather(
    packed: Tensor,
    lut: Tensor,
    scale: Tensor | None,
    ids: Tensor,
    mask: Tensor | None = None,
    extra: Tensor | None = None,
    coef: Tensor | None = None,
) -> Tensor:
    """Score only the rows ids[q], with the bits of `adc_scan`: ids (Q, R) int64 -> (Q, R) float32.

    An id outside [0, N) and a row where mask is False score -inf.
    """
    scores: Tensor = _gather(packed, lut, scale, mask, ids, extra, coef)
    return scores
