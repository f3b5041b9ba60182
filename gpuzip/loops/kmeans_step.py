"""One step of Lloyd's k-means: labels and sums of some sub-spaces in one thread, labels never leave it."""

from torch import Tensor

from gpuzip.loops.assign import Codebook
from gpuzip.loops.centroid_sums import add_rows, new_sums, subspaces_of_a_group
from gpuzip.parallel import map_blocks

_WORK = 1 << 21  # products that make a group of sub-spaces worth a thread


def kmeans_step(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    M, K, S = centroids.shape
    sums, counts = new_sums(M, K, S)
    rows, codebook = x.float().contiguous(), Codebook(centroids)

    def some_subspaces(start: int, stop: int) -> None:
        labels = codebook.nearest(rows, start, stop)
        add_rows(rows, start, labels, sums[start:stop], counts[start:stop])

    map_blocks(some_subspaces, M, subspaces_of_a_group(len(x) * K * S, S, _WORK))
    return sums, counts
