"""Queries of one call that threads share."""

import torch

from gpuzip._core.parallel import map_blocks

LEAST = 4  # queries that are worth another thread


def can_share(Q):
    """Return whether every thread has enough of Q queries."""
    return torch.get_num_threads() <= Q // LEAST


def in_shares(search, width, queries, Q, k, are_distances, values, rows):
    """Run search(queries, Q, k, are_distances, values, rows), a `Few.at_address`, for a share per thread.

    width: bytes of a query. Returns whether all did. Shares but the last are multiples of LEAST queries.
    """

    def some(first, last):
        places = values + 4 * k * first, rows + 8 * k * first
        return search(queries + width * first, last - first, k, are_distances, *places)

    share = -(-Q // (torch.get_num_threads() * LEAST)) * LEAST
    return all(map_blocks(some, Q, share, with_caller=True))
