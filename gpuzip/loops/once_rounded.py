"""Which sums of float64 are so near the middle of two numbers of float32 that their errors may matter."""

import numpy as np

from gpuzip.loops._jit import jit


@jit("intp(float64[:, ::1], float64[::1], float64[::1], float64, float32[:, ::1], int64[::1])")
def rounded(sums, lengths, norms, off, found, unsure):
    """Round sums (Q, W), each off by at most off * lengths[q] * norms[w]; set places where that may matter.

    Return how many of these there are; no more than fit are set.
    """
    W, count = sums.shape[1], 0
    for q in range(len(sums)):
        length = off * lengths[q]
        for w in range(W):
            total, error = sums[q, w], length * norms[w]
            found[q, w] = np.float32(total)
            if np.float32(total - error) != np.float32(total + error):
                if count < len(unsure):
                    unsure[count] = q * W + w
                count += 1
    return count
