"""How rows are cut for a search in one pass, and memory for its tiles."""

import threading

import numpy as np
import torch

LINE = 64  # bytes of a cache line
AHEAD = 1 << 13  # bytes from a row to what is fetched meanwhile; less and more are slower
AHEAD_IN_ORDER = 1 << 14  # the same where each line is asked for in its turn, as sums are made
_MOST_KEPT = 16
_ROWS = 256  # a block of rows is a multiple of it
_TIMES = 4  # k
_SHARE = 3 << 20  # bytes of codes times queries that are worth another thread


def rows_of_a_block(N, work, k):
    """Return the rows per block: even blocks, one per thread that pays. work: bytes times queries per row.

    A block has several times k rows, so that what all threads keep is never much more than the rows.
    """
    blocks = max(1, min(torch.get_num_threads(), N * work // _SHARE, N // (_TIMES * k)))
    return max(1, -(-N // (blocks * _ROWS)) * _ROWS)


def is_lone(N, work, k):
    """Return whether all rows are one such block. Where they are few, threads are not counted."""
    return N * work < 2 * _SHARE or rows_of_a_block(N, work, k) >= N


class Scratch(threading.local):
    """Memory of a thread for its tiles, which later searches use again.

    It starts on a cache line, because a load across two lines takes longer.
    """

    def __init__(self):
        self._kept, self._made = {}, {}

    def take(self, name, count, dtype):
        """Return `count` entries with any values, the same memory for the same name."""
        return self.at_least(name, count, dtype)[:count]

    def at_least(self, name, count, dtype):
        """Return what `take` does, and all that follows them."""
        kept = self._kept.get(name)
        if kept is None or len(kept) < count:
            memory = np.zeros(count + LINE // dtype().itemsize, dtype)
            self._kept[name] = kept = memory[-memory.ctypes.data % LINE // memory.itemsize :]
        return kept

    def kept(self, key, make):
        """Return what make(*key) returned for this key, of which a few are kept."""
        made = self._made.get((make, key))
        if made is None:
            if len(self._made) >= _MOST_KEPT:
                self._made.clear()
            made = self._made[make, key] = make(*key)
        return made


scratch = Scratch()
