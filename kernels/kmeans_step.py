"""A step of k-means that returns no labels: the sums and counts of the rows of each centroid.

sums[m, k] = sum of x[n, m*S:(m+1)*S] over the n whose nearest centroid (see assign.py) is k; counts[m, k] =
their number.
Layouts: x (N, M*S) float32 with any row stride, centroids (M, K, S) -> sums (M, K, S) float32, counts (M, K)
int32.
Bytes moved: those of `assign` and of `centroid_sums`, with N*M labels between them.
Source: Lloyd, "Least squares quantization in PCM" (1982).
Ladder: 1. `assign`, then `centroid_sums` by a one-hot product: 2.5 ms at N=65,536, M=48, K=256 on an H200.
2. both in one kernel, with the one-hot product on the matrix units after the scores: 1.6 ms, because the
one-hot operand is written 2 bytes at a time and leaves room for one program per multiprocessor. 3. (here)
`assign`, then `centroid_sums` by atomic additions of integers.
"""

from torch import Tensor

from .assign import assign
from .centroid_sums import centroid_sums


def kmeans_step(x: Tensor, centroids: Tensor, reach: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Launch: (N, M*S) float32, (M, K, S) float32 -> (M, K, S) float32, (M, K) int32.

    reach: `column_reach` of x, if known.
    """
    return centroid_sums(x, assign(x, centroids), centroids.shape[1], reach)
