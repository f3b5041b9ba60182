"""Beam search over stages for the codes whose sum of codewords is near a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gpuzip._core.parallel import map_blocks
from gpuzip.ops._define import define_op
from gpuzip.ops._samples import generator, label_dtype
from gpuzip.ops.topk import topk

_TILE = 1 << 20  # costs per block


Least = Callable[[Tensor, int], tuple[Tensor, Tensor]]


def _reference(products: Tensor, cross: Tensor, beam: int) -> Tensor:
    return _labels(products, cross, beam, _first_sorted)


def _first_sorted(total: Tensor, width: int) -> tuple[Tensor, Tensor]:
    least, at = torch.sort(total, dim=1, stable=True)
    return least[:, :width], at[:, :width]


def _first_taken(total: Tensor, width: int) -> tuple[Tensor, Tensor]:
    greatest, at = topk(-total, width)
    return -greatest, at


def _labels(products: Tensor, cross: Tensor, beam: int, least: Least) -> Tensor:
    parts = zip(products.unbind(1), cross, strict=True)
    labels = torch.cat([_best_path(part, table, beam, least) for part, table in parts], 1)
    return labels.to(label_dtype(products.shape[3]))


def _best_path(products: Tensor, cross: Tensor, beam: int, least: Least) -> Tensor:
    """(N, M, K), (M*(M-1)/2, K, K) -> (N, M) int64."""
    N, M, K = products.shape
    cost, paths = products.new_zeros((N, 1)), torch.zeros((N, 1, 0), dtype=torch.int64, device=cross.device)
    for m in range(M):
        total = products[:, m, None]
        for j in range(m):
            total = total + cross[m * (m - 1) // 2 + j][paths[:, :, j]]
        total = (total + cost[:, :, None]).flatten(1)  # [N, L*K]
        cost, at = least(total, min(beam, total.shape[1]))
        parents = (at // K)[:, :, None].expand(-1, -1, m)
        paths = torch.cat([paths.gather(1, parents), (at % K)[:, :, None]], 2)
    return paths[:, 0]


def _cpu(products: Tensor, cross: Tensor, beam: int) -> Tensor:
    N, P, M, K = products.shape
    labels = torch.empty((N, P * M), dtype=label_dtype(K), device="cpu")

    def one_block(start: int, stop: int) -> None:
        labels[start:stop] = _labels(products[start:stop], cross, beam, _first_taken)

    map_blocks(one_block, N, max(1, _TILE // (beam * K)))
    return labels


def _shapes(products: Tensor, cross: Tensor, beam: int) -> Tensor:
    N, P, M, K = products.shape
    return products.new_empty((N, P * M), dtype=label_dtype(K))


def _samples(device: str) -> Iterator[tuple[Tensor, Tensor, int]]:
    sizes = [
        (0, 1, 2, 4, 3),
        (1, 1, 1, 2, 1),
        (11, 2, 3, 16, 5),
        (5, 1, 4, 2, 9),  # a beam wider than the number of paths of the first stages
        (5, 3, 5, 8, 1),
        (3, 1, 3, 256, 4),
        (2, 1, 2, 512, 17),
    ]
    for N, P, M, K, beam in sizes:
        g, T = generator(N + K), M * (M - 1) // 2
        products, cross = torch.randn(N, P, M, K, generator=g), torch.randn(P, T, K, K, generator=g)
        yield products.to(device), cross.to(device), beam
        yield products.round().to(device), cross.round().to(device), beam  # many ties


_op = define_op(
    "beam_search(Tensor products, Tensor cross, int beam) -> Tensor",
    reference=_reference,
    cpu=_cpu,
    loops="gpuzip.loops.beam_search:beam_search",
    shapes=_shapes,
    kernel="gpuzip.kernels.beam_search:beam_search",
    samples=_samples,
    agreement="exact",
)


def beam_search(products: Tensor, cross: Tensor, beam: int) -> Tensor:
    """Find low-cost codes of every row by a search that keeps the `beam` cheapest partial paths per stage.

    products (N, P, M, K), cross (P, M*(M-1)/2, K, K), both float32 and finite -> (N, P*M) codes, uint8 if
    K <= 256, else int32. The P parts are searched independently. Codes k_0 .. k_(M-1) of a part cost
    sum_m products[m, k_m] + sum_(j < m) cross[m*(m-1)/2 + j, k_j, k_m]. With |c|^2 - 2 c.x as products and
    2 c.c' as cross, the cost is the squared distance of x from the sum of M codewords, minus |x|^2.
    Ties between paths go to the cheaper partial path, then to the lower code. Sums run in one order, so every
    device gives the same codes.
    Source: Babenko and Lempitsky, "Additive quantization for extreme vector compression", 2014; FAISS
    ResidualQuantizer with tables.
    """
    labels: Tensor = _op(products, cross, beam)
    return labels
