"""Blocks of rows over threads."""

import os
import subprocess
import sys
import threading
import time

import pytest
import torch

from gpuzip._core.parallel import map_blocks


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


def test_the_first_error_comes_out(threads):
    def fail(start, stop):
        if start < 4 * min(threads, 2):
            time.sleep(0.05 if start == 0 else 0)  # the second block fails first
            raise RuntimeError(f"block {start}")

    with pytest.raises(RuntimeError, match="block 0"):
        map_blocks(fail, 80, 4)


def test_no_block_begins_after_an_error(threads):
    begun: list[int] = []

    def fail(start, stop):
        begun.append(start)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        map_blocks(fail, 1000, 1)
    assert len(begun) <= threads


def test_the_caller_takes_part(threads):
    """One block per thread waits for the others, so the caller runs one of as many."""
    all_here, ran = threading.Barrier(threads), []

    def block(start, stop):
        all_here.wait(60)
        ran.append(threading.get_ident())
        return start

    assert map_blocks(block, threads, 1, with_caller=True) == list(range(threads))
    assert threading.get_ident() in ran and len(set(ran)) == threads


def test_the_caller_does_not_wait_for_threads_that_have_not_begun(threads):
    """All workers are busy until the caller is done with every block."""
    done, busy = threading.Event(), threading.Barrier(threads + 1)

    def keep_busy(start, stop):
        busy.wait(60)
        assert done.wait(60)

    other = threading.Thread(target=lambda: map_blocks(keep_busy, threads, 1))
    if threads > 1:
        other.start()
        busy.wait(60)
    here = map_blocks(lambda start, stop: threading.get_ident(), 100, 1, with_caller=True)
    done.set()
    assert here == [threading.get_ident()] * 100
    if threads > 1:
        other.join()


def test_errors_and_blocks_inside_blocks_of_a_caller_that_takes_part(threads):
    def fail(start, stop):
        raise RuntimeError(f"block {start}")

    with pytest.raises(RuntimeError, match="block 0"):
        map_blocks(fail, 80, 4, with_caller=True)
    inner = map_blocks(
        lambda start, stop: sum(map_blocks(lambda a, b: b - a, 100, 7)), 9, 1, with_caller=True
    )
    assert inner == [100] * 9
    assert set(map_blocks(lambda start, stop: torch.get_num_threads(), 8, 1)) == {1}  # workers again


def test_gradients_are_off_inside(threads):
    x = torch.ones(3, requires_grad=True)
    with torch.no_grad():
        assert not any(map_blocks(lambda a, b: (x * 2).requires_grad, 4, 1))


@pytest.mark.full
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_workers_of_its_own():
    """Threads do not survive a fork; a child that waited for its parent's would wait for ever."""
    script = """
import os, warnings, torch
from gpuzip._core.parallel import map_blocks
warnings.simplefilter("ignore")
torch.set_num_threads(2)
assert map_blocks(lambda a, b: a, 4, 1) == [0, 1, 2, 3]
child = os.fork()
if child == 0:
    os._exit(0 if map_blocks(lambda a, b: a, 4, 1) == [0, 1, 2, 3] else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=600)


def test_callers_with_different_numbers_of_threads_do_not_disturb_each_other():
    def call(threads: int) -> None:
        torch.set_num_threads(threads)
        for _ in range(50):
            results.append(map_blocks(lambda a, b: torch.get_num_threads(), 6, 1))

    before = torch.get_num_threads()
    results: list[list[int]] = []
    callers = [threading.Thread(target=call, args=(threads,)) for threads in (1, 2, 3, 4, 2, 3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    torch.set_num_threads(before)
    assert results == [[1] * 6] * 300


FORK_WHILE_LOCKED = """
import os, threading, torch
from gpuzip._core import parallel, probe
torch.set_num_threads(2)
held, end = threading.Barrier(2), threading.Event()
def hold():
    with parallel._lock, probe._lock:
        held.wait()
        end.wait()
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if not child:
    torch.set_num_threads(1)
    assert probe.fastest("work", {"a": int, "b": int}) in "ab"
    torch.set_num_threads(2)
    os._exit(0 if parallel.map_blocks(lambda a, b: a, 4, 1) == [0, 1, 2, 3] else 1)
end.set()
assert os.waitpid(child, 0)[1] == 0
"""

FORK_AFTER_USE = """
import os, torch, gpuzip
torch.set_num_threads(2)
x = torch.randn(4000, 64)
found = gpuzip.compress(x, m=16).search(x[:50], 5)[1]
for _ in range(3):
    child = os.fork()
    if not child:
        torch.set_num_threads(1)
        os._exit(0 if torch.equal(gpuzip.compress(x, m=16).search(x[:50], 5)[1], found) else 1)
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.full
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("script", [FORK_WHILE_LOCKED, FORK_AFTER_USE], ids=["while locked", "after use"])
def test_a_process_that_is_forked_does_not_wait_for_threads_of_its_parent(script: str):
    """After use by the cure that docs/guarantees.md names: torch's own threads need it."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=600)


INTERRUPTED_AT_THE_START = """
import threading
from gpuzip._core import parallel
class Interrupted(threading.Barrier):
    def wait(self, timeout=None):
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return super().wait(timeout)
parallel.threading.Barrier = Interrupted
parallel._started(2)
"""

#: The first block is at work, and so is the caller, which still starts the second thread.
INTERRUPTED_AT_SUBMIT = """
import time, torch
from concurrent.futures import ThreadPoolExecutor
from gpuzip._core.parallel import map_blocks
torch.set_num_threads(2)
map_blocks(lambda start, stop: None, 2, 1)
submit, calls = ThreadPoolExecutor.submit, []
def interrupted(self, *work):
    calls.append(work)
    if len(calls) == 2:
        raise KeyboardInterrupt
    return submit(self, *work)
ThreadPoolExecutor.submit = interrupted
map_blocks(lambda start, stop: time.sleep(0.1), 3000, 1)
"""

INTERRUPTED_AT_WORK = """
import os, signal, time, torch
from gpuzip._core.parallel import map_blocks
torch.set_num_threads(2)
signal.signal(signal.SIGINT, signal.default_int_handler)
def block(start, stop):
    if start == 1:
        os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)
map_blocks(block, 30_000, 1)
"""


@pytest.mark.full
@pytest.mark.parametrize(
    "script",
    [
        INTERRUPTED_AT_THE_START,
        INTERRUPTED_AT_SUBMIT,
        INTERRUPTED_AT_WORK,
        INTERRUPTED_AT_WORK.replace("30_000, 1)", "30_000, 1, with_caller=True)"),
    ],
    ids=["start", "submit", "work", "caller at work"],
)
def test_a_process_ends_soon_after_ctrl_c(script: str):
    """Workers are waited for at exit: none may wait for the caller, or go on with 1,500 seconds of blocks."""
    done = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, timeout=600)
    assert b"KeyboardInterrupt" in done.stderr and done.returncode != 0
