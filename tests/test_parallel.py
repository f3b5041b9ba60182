"""Blocks of rows over threads."""

import threading

import pytest
import torch

from gpuzip.parallel import map_blocks


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_blocks_cover_the_rows_in_order(threads):
    assert map_blocks(lambda start, stop: (start, stop), 10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert map_blocks(lambda start, stop: start, 0, 4) == []


def test_a_block_has_one_torch_thread_and_the_caller_keeps_its_own(threads):
    assert set(map_blocks(lambda start, stop: torch.get_num_threads(), 8, 1)) == {1}
    assert torch.get_num_threads() == threads
    seen: list[int] = []
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert seen == [threads]


def test_blocks_inside_blocks_do_not_wait_for_each_other(threads):
    inner = map_blocks(lambda start, stop: sum(map_blocks(lambda a, b: b - a, 100, 7)), 9, 1)
    assert inner == [100] * 9


def test_errors_come_out(threads):
    def fail(start, stop):
        raise RuntimeError(f"block {start}")

    with pytest.raises(RuntimeError, match="block 0"):
        map_blocks(fail, 8, 4)


def test_gradients_are_off_inside(threads):
    x = torch.ones(3, requires_grad=True)
    with torch.no_grad():
        assert not any(map_blocks(lambda a, b: (x * 2).requires_grad, 4, 1))
