"""Exact scores of a few candidates per query, from floats or codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gpuzip._core.parallel import map_blocks
from gpuzip.ops._define import define_op
from gpuzip.ops._samples import generator, random_codes
from gpuzip.ops.bits import pack_bits
from gpuzip.ops.decode import decode, some_ids

_TILE = 1 << 17  # floats of candidates gathered per block: 512 KB, which stay in L2


def _reference(
    queries: Tensor,
    store: Tensor,
    ids: Tensor,
    metric: str,
    start: Tensor | None = None,
    step: Tensor | None = None,
) -> Tensor:
    known = (ids >= 0) & (ids < len(store))
    q, n = known.nonzero(as_tuple=True)
    y, x = queries.double()[q], _decoded(store[ids[q, n]].double(), start, step)
    product = (y * x).sum(1)
    if metric == "l2":
        product = -(y - x).square().sum(1)
    elif metric == "cosine":
        norms = y.norm(dim=1) * x.norm(dim=1)
        product = torch.where(norms > 0, product / norms, 0.0)
    keys = torch.full(ids.shape, float("-inf"), device=queries.device, dtype=torch.float32)
    keys[q, n] = product.float()
    return keys


def _decoded(x: Tensor, start: Tensor | None, step: Tensor | None) -> Tensor:
    return x if start is None or step is None else x * step + start


def _codes_reference(queries: Tensor, packed: Tensor, centroids: Tensor, ids: Tensor, metric: str) -> Tensor:
    return _reference(queries, decode(packed, centroids), ids, metric)


def _cpu(
    queries: Tensor, store: Tensor, ids: Tensor, metric: str, start: Tensor | None, step: Tensor | None
) -> Tensor:
    return _by_blocks(
        queries, ids, len(store), metric, lambda rows: _decoded(store[rows].float(), start, step)
    )


def _codes_cpu(queries: Tensor, packed: Tensor, centroids: Tensor, ids: Tensor, metric: str) -> Tensor:
    return _by_blocks(queries, ids, len(packed), metric, lambda rows: decode(packed, centroids, rows).float())


def _by_blocks(
    queries: Tensor, ids: Tensor, N: int, metric: str, gather: Callable[[Tensor], Tensor]
) -> Tensor:
    """Score candidates in the order of ids, in blocks. Each sum runs over the dims of its own pair."""
    keys = torch.full(ids.shape, float("-inf"), dtype=torch.float32, device="cpu")
    D, R = queries.shape[1], ids.shape[1]
    own = _square(queries).sqrt() if metric == "cosine" else None
    wanted, flat = ids.reshape(-1), keys.view(-1)

    def one_block(start: int, stop: int) -> None:
        rows = wanted[start:stop]
        at = ((rows >= 0) & (rows < N)).nonzero().view(-1)
        q = (at + start) // R
        x, y = gather(rows[at]), queries[q]
        found = -_square(x - y) if metric == "l2" else (y * x).sum(1)
        if own is not None:
            norms = own[q] * _square(x).sqrt_()
            found = torch.where(norms > 0, found / norms, 0.0)
        flat[start:stop][at] = found

    if N > 0:
        map_blocks(one_block, len(wanted), max(1, _TILE // D))
    return keys


def _square(x: Tensor) -> Tensor:
    return (x * x).sum(1)


def _shapes(
    queries: Tensor, store: Tensor, ids: Tensor, metric: str, start: Tensor | None, step: Tensor | None
) -> Tensor:
    return queries.new_empty(ids.shape)


def _codes_shapes(queries: Tensor, packed: Tensor, centroids: Tensor, ids: Tensor, metric: str) -> Tensor:
    return queries.new_empty(ids.shape)


_METRICS = ("ip", "cosine", "l2")


def _ids(Q: int, N: int, R: int) -> Tensor:
    return some_ids(N, Q * R).view(Q, R)


def _samples(device: str) -> Iterator[tuple[Tensor, Tensor, Tensor, str, Tensor | None, Tensor | None]]:
    sizes = [(0, 7, 3, 5), (1, 1, 1, 1), (2, 0, 3, 5), (3, 37, 13, 17), (2, 300, 131, 37), (5, 67, 128, 16)]
    dtypes = (torch.float32, torch.float16, torch.bfloat16)
    for i, (Q, N, D, R) in enumerate(sizes):
        g = generator(D)
        queries, store = torch.randn(Q, D, generator=g), torch.randn(N, D, generator=g)
        queries[1:2], store[2:3] = 0.0, 0.0  # norms of 0
        for j, metric in enumerate(_METRICS):
            values = store.to(dtypes[(i + j) % 3]).to(device)
            yield queries.to(device), values, _ids(Q, N, R).to(device), metric, None, None
        start, step = (torch.randn(D, generator=g).to(device) for _ in range(2))
        codes = torch.randint(0, 256, (N, D), generator=g).to(torch.uint8).to(device)
        codes = codes.view(torch.int8) if i % 2 else codes
        yield queries.to(device), codes, _ids(Q, N, R).to(device), _METRICS[i % 3], start, step


def _codes_samples(device: str) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, str]]:
    sizes = [
        (0, 5, 2, 4, 3, 5),
        (1, 1, 1, 1, 1, 1),
        (2, 0, 3, 4, 2, 5),
        (3, 37, 5, 3, 4, 17),
        (2, 67, 17, 8, 8, 9),
    ]
    for i, (Q, N, M, nbits, S, R) in enumerate([*sizes, (2, 300, 3, 9, 5, 37)]):
        g = generator(M)
        packed = pack_bits(random_codes(N, M, 1 << nbits), nbits).to(device)
        centroids = torch.randn(M, 1 << nbits, S, generator=g).to(device)
        queries = torch.randn(Q, M * S, generator=g)
        queries[1:2] = 0.0
        for j, metric in enumerate(_METRICS):
            table = centroids.half() if (i + j) % 2 else centroids
            yield queries.to(device), packed, table, _ids(Q, N, R).to(device), metric


_rescore = define_op(
    "rescore(Tensor queries, Tensor store, Tensor ids, str metric, Tensor? start, Tensor? step) -> Tensor",
    reference=_reference,
    cpu=_cpu,
    shapes=_shapes,
    loops="gpuzip.loops.rescore:rescore",
    kernel="gpuzip.kernels.rescore:rescore",
    samples=_samples,
    agreement="close",
)
_rescore_codes = define_op(
    "rescore_codes(Tensor queries, Tensor packed, Tensor centroids, Tensor ids, str metric) -> Tensor",
    reference=_codes_reference,
    cpu=_codes_cpu,
    shapes=_codes_shapes,
    loops="gpuzip.loops.rescore:rescore_codes",
    kernel="gpuzip.kernels.rescore:rescore_codes",
    samples=_codes_samples,
    agreement="close",
)


def rescore(
    queries: Tensor,
    store: Tensor,
    ids: Tensor,
    metric: str,
    start: Tensor | None = None,
    step: Tensor | None = None,
) -> Tensor:
    """Score the rows ids[q] of the store for query q; higher is better.

    queries (Q, D) float32, store (N, D) float32, float16 or bfloat16 with any row stride, ids (Q, R) int64 ->
    (Q, R) float32: "ip" q.x, "cosine" q.x / (|q| |x|) or 0 if a norm is 0, "l2" -|q - x|^2, and -inf for an
    id outside [0, N). Sums are float32 in one order, so that a score has the same bits in every call on a
    device, whatever the other candidates and queries are. start, step (D,) float32, both or neither: a store
    of uint8 or int8 means start + step * store.
    """
    keys: Tensor = _rescore(queries, store, ids, metric, start, step)
    return keys


def rescore_codes(queries: Tensor, packed: Tensor, centroids: Tensor, ids: Tensor, metric: str) -> Tensor:
    """Score rows as `rescore` does, from packed codes (N, B) uint8 and centroids (M, K, S), D = M*S.

    A GPU decodes candidates in registers, a CPU in blocks.
    """
    keys: Tensor = _rescore_codes(queries, packed, centroids, ids, metric)
    return keys
