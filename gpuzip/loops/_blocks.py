"""How rows are cut for a search in one pass, and memory for its tiles."""

import numpy as np
import torch

LINE = 64  # bytes of a cache line
AHEAD = 1 << 13  # bytes from a row to what is fetched meanwhile; less and more are slower
_ROWS = 256  # a block of rows is a multiple of it
_SHARE = 3 << 20  # bytes of codes times queries that are worth another thread


def rows_of_a_block(N, work):
    """Return the rows per block: even blocks, one per thread that pays. work: bytes times queries per row."""
    blocks = max(1, min(torch.get_num_threads(), N * work // _SHARE))
    return max(1, -(-N // (blocks * _ROWS)) * _ROWS)


def zeros(count, dtype):
    """Return zeros that start on a cache line: a load across two lines takes longer."""
    size = np.dtype(dtype).itemsize
    memory = np.zeros(count + LINE // size, dtype)
    start = -memory.ctypes.data % LINE // size
    return memory[start : start + count]
