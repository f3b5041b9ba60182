"""A rank that ends or hangs is an error on the others, within the timeout."""

import os
import signal
import time
from typing import Any

import pytest

import gpuzip
from bench.ranks import cluster
from gpuzip import distributed
from gpuzip.distributed.codec import packed
from tests.distributed.shards import rows_of


def search_or_die(group: Any, codec: bytes, how: int | None) -> Any:
    """Search; this rank is sent a signal first. Returns the seconds until the error, and the error."""
    codes = gpuzip.load_codec(codec).encode(rows_of(50, 1))
    distributed.search(codes, rows_of(3, 2), 4, group=group, timeout=600)  # all ranks compile
    if how is not None:
        os.kill(os.getpid(), how)
    start = time.monotonic()
    try:
        for _ in range(100):
            distributed.search(codes, rows_of(3, 2), 4, group=group, timeout=3)
    except ConnectionError as error:
        return time.monotonic() - start, str(error)
    return None


@pytest.mark.full
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_rank_that_ends_or_hangs_is_an_error_on_the_others(how):
    codec = packed(gpuzip.ScalarQuantizer().fit(rows_of(50, 1)))
    with cluster(4) as ranks:
        for rank, pipe in enumerate(ranks.pipes):
            pipe.send((search_or_die, 4, (codec, how if rank == 2 else None)))
        for rank in (0, 1, 3):
            ok, (took, message) = ranks.answer(rank)
            assert ok and took < 300  # the group itself waits for 600 s
            assert "all 4 ranks must take part within 3 s" in message


@pytest.mark.parametrize("timeout", [0, -1, "60", True, float("nan"), float("inf")])
def test_the_timeout_is_a_number_of_seconds(timeout):
    with pytest.raises(gpuzip.GpuzipError, match="timeout must be a number of seconds above 0"):
        distributed.sample(rows_of(5, 1), 3, timeout=timeout)


def test_without_a_group_there_is_one_rank():
    x = rows_of(50, 1)
    codes = distributed.encode(gpuzip.ScalarQuantizer().fit(x), x)
    found, want = distributed.search(codes, x[:3], 4), codes.search(x[:3], 4)
    assert found.ids.tolist() == want.ids.tolist()
