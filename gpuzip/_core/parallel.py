"""Run a function over fixed blocks of rows, one thread per block.

The boundaries of blocks and the single-threaded code do not depend on the number of threads, so results are
the same bytes for any thread count. It is also faster than torch's own threads, whose barriers dominate on
the short matrix products of product quantization.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillAtWork
from contextvars import copy_context
from typing import TypeVar

import torch

T = TypeVar("T")

_TURN = 0.5  # seconds

_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}  # by size, as the number of threads may change between calls
_in_worker = threading.local()


def map_blocks(
    fn: Callable[[int, int], T], n: int, block: int, *, lone_here: bool = False, with_caller: bool = False
) -> list[T]:
    """Call `fn(start, stop)` for every block of `block` rows of `n`; results in block order.

    Where blocks fail, raise the error of the first one, for any number of threads.

    lone_here: run a single block in the caller's thread. Use it for work that takes no longer than waking
    another thread and that does not use torch's threads.
    with_caller: let the caller's thread run blocks as well, a single one alone. Use it for compiled loops,
    which ask nothing of torch's threads: short work is done before another thread wakes.
    """
    bounds = [(start, min(start + block, n)) for start in range(0, n, block)]
    threads = torch.get_num_threads()
    if threads == 1 or getattr(_in_worker, "yes", False) or ((lone_here or with_caller) and len(bounds) == 1):
        return [fn(*b) for b in bounds]
    pool, inference = _workers(threads), torch.is_inference_mode_enabled()
    results: dict[int, T] = {}
    failed: dict[int, Exception] = {}
    todo: Iterator[tuple[int, tuple[int, int]]] = iter(enumerate(bounds))
    next_one = threading.Lock()

    def some_blocks() -> None:
        nonlocal todo
        with torch.inference_mode(inference), torch.no_grad():  # both modes are per thread
            while True:
                with next_one:
                    at, b = next(todo, (-1, (0, 0)))
                if at < 0:
                    return
                try:
                    results[at] = fn(*b)
                except Exception as error:
                    failed[at] = error
                    with next_one:
                        todo = iter(())  # blocks before this one have begun, those behind it need not

    try:
        # One task per thread, not per block: one that ends wakes the caller, which costs as much as a block.
        count = min(threads, len(bounds)) - with_caller
        tasks = [pool.submit(copy_context().run, some_blocks) for _ in range(count)]
        if with_caller:
            _as_worker(some_blocks)
            tasks = [task for task in tasks if not task.cancel()]  # of those that begin now none is needed
        for task in tasks:
            _wait_for(task)
    except BaseException:
        todo = iter(())  # after Ctrl-C nobody waits for the other blocks, not even at exit
        raise
    if failed:
        raise failed[min(failed)]
    return [results[at] for at in range(len(bounds))]


def _as_worker(work: Callable[[], None]) -> None:
    """Run it in this thread, where blocks within blocks then wait for no other thread."""
    try:
        _in_worker.yes = True
        work()
    finally:
        _in_worker.yes = False


def _wait_for(task: Future[None]) -> None:
    """Wait in turns: a Ctrl-C that comes just before Python waits is seen when it next does not."""
    while True:
        try:
            return task.result(_TURN)
        except StillAtWork:
            continue


def rows_per_thread(n: int, least: int, most: int) -> int:
    """Rows of a block if each thread takes one, within limits."""
    return max(least, min(most, -(-n // torch.get_num_threads())))


def _workers(threads: int) -> ThreadPoolExecutor:
    with _lock:
        if threads not in _pools:
            _pools[threads] = _started(threads)
        return _pools[threads]


def _started(threads: int) -> ThreadPoolExecutor:
    pool = ThreadPoolExecutor(threads, "gpuzip", _start_worker)
    ready = threading.Barrier(threads + 1)
    try:
        for _ in range(threads):
            pool.submit(ready.wait)
        ready.wait()
    except BaseException:
        ready.abort()  # after Ctrl-C: workers that wait here would be waited for at exit
        raise
    # A worker's set_num_threads(1) also sets the default for threads that start later: restore it.
    torch.set_num_threads(threads)
    return pool


def _start_worker() -> None:
    torch.get_num_threads()  # the first such call in a thread sets its number of threads to the default
    torch.set_num_threads(1)
    _in_worker.yes = True


def after_fork(reset: Callable[[], None]) -> None:
    """Call `reset` in every child that is forked: threads do not survive a fork, and locks stay held.

    What it cannot reset are torch's own threads; docs/guarantees.md says what to do about them.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=reset)


def _forget_pools() -> None:
    global _lock
    _lock = threading.Lock()
    _pools.clear()


after_fork(_forget_pools)
