"""One step of Lloyd's k-means: finds the nearest centroid and adds the row to it while it is in registers."""

import torch
from torch import Tensor

from gpuzip._core.parallel import map_blocks
from gpuzip.loops.assign import Codebook
from gpuzip.loops.centroid_sums import subspaces_of_a_group

_WORK = 1 << 21  # products from which a group of sub-spaces pays for a thread


def kmeans_step(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    M, K, S = centroids.shape
    sums, counts = (
        torch.empty((M, K, S), dtype=torch.float32, device="cpu"),
        torch.empty((M, K), dtype=torch.int32, device="cpu"),
    )
    rows, codebook = x.float().contiguous(), Codebook(centroids)

    def some_subspaces(start: int, stop: int) -> None:
        sums[start:stop], counts[start:stop] = codebook.add_to_nearest(rows, start, stop)

    map_blocks(some_subspaces, M, subspaces_of_a_group(len(x) * K * S, S, _WORK))
    return sums, counts
