"""Several readers and writers: snapshots stay, one writes at a time, and each sees what was acknowledged."""

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import gpuzip
from tests.dataset.plain import Plain, check_same, half, rows_of
from tests.dataset.test_dataset import filled

#: From Python 3.12 on a fork beside threads, which torch has, warns.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

ROOT = Path(__file__).parents[2]


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a process that runs code beside this one."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_a_snapshot_stays_while_the_dataset_goes_on(tmp_path: Path):
    data, plain = filled(tmp_path, "int64")
    kept = data.snapshot()
    data.remove(range(0, 60, 2))
    data.append(rows_of(9, 5), range(100, 109))
    data.compact(removed=0)
    check_same(kept, plain)  # type: ignore[arg-type]
    kept.verify()  # its files are there
    assert len(data) == 39
    assert not hasattr(kept, "append")


def test_files_that_nobody_reads_are_removed(tmp_path: Path):
    data, _ = filled(tmp_path, "int64")
    kept = data.snapshot()
    data.remove([1])
    data.compact(removed=0)
    assert len(list(tmp_path.glob("codes-*"))) == 4
    del kept
    data.append(rows_of(1, 0), [100])
    assert len(list(tmp_path.glob("codes-*"))) == 2
    assert len(list(tmp_path.glob("generation-*"))) == 1


def test_refresh_sees_what_another_wrote(tmp_path: Path):
    data, plain = filled(tmp_path, "string")
    other = gpuzip.Dataset.open(tmp_path)
    opened = other._view.shards[0].codes
    data.append(rows_of(2, 7), ["x", "y"])
    assert len(other) == 60
    assert other.refresh() is other
    assert len(other) == 62
    assert other._view.shards[0].codes is opened  # open files stay open
    other.remove(["x"])  # and its writes build on the newest state, refreshed or not
    data.remove(["y"])
    check_same(data, plain)
    assert "x" not in data


def test_a_second_writer_waits_and_is_then_refused(tmp_path: Path):
    data, plain = filled(tmp_path, "string")
    hurried = gpuzip.Dataset.open(tmp_path, timeout=0.05)
    from gpuzip.dataset.lock import writing

    with writing("test", data.path, 0):
        with pytest.raises(gpuzip.GpuzipError, match=r"Dataset\.remove: .* one writer"):
            hurried.remove(["row 1"])
        assert len(gpuzip.Dataset.open(tmp_path)) == 60  # readers never wait
        waiting = threading.Thread(target=data.remove, args=(["row 1"],))
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive()
    waiting.join()
    plain.remove(["row 1"])
    check_same(data, plain)
    for wrong in (-1, "3", float("nan"), True):
        with pytest.raises(gpuzip.GpuzipError, match="timeout must"):
            gpuzip.Dataset.open(tmp_path, timeout=wrong)  # type: ignore[arg-type]


def test_threads_write_and_search_at_once(tmp_path: Path):
    data = gpuzip.Dataset.create(tmp_path, half(), ids="int64")
    data.append(rows_of(5, 0), range(-5, 0))
    faults: list[BaseException] = []

    def work(thread: int) -> None:
        own = gpuzip.Dataset.open(tmp_path, timeout=600)  # all write to one disk
        try:
            for step in range(3):
                own.append(rows_of(4, thread), range(100 * thread + 10 * step, 100 * thread + 10 * step + 4))
                assert own.search(rows_of(2, 3), 3, "l2").ids.shape == (2, 3)
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    data.refresh()
    assert sorted(data.ids.tolist()) == [
        *range(-5, 0),
        *(100 * t + 10 * s + n for t in range(3) for s in range(3) for n in range(4)),
    ]


HOLDER = """
import sys, gpuzip
kept = gpuzip.Dataset.open(sys.argv[1]).snapshot()
print("ready", flush=True)
sys.stdin.readline()
kept.verify()
print(kept.decode().sum().item(), len(kept), flush=True)
"""


@pytest.mark.full
def test_a_snapshot_of_another_process_keeps_its_files(tmp_path: Path):
    data, _ = filled(tmp_path, "int64")
    total = float(data.decode().sum())
    with python(HOLDER, tmp_path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        data.remove(range(59))
        data.compact(removed=0)
        data.append(rows_of(1, 0), [1000])
        out, _ = holder.communicate("\n", timeout=600)
    assert out.split() == [str(total), "60"]
    data.remove([1000])
    assert len(list(tmp_path.glob("codes-*"))) == 1


APPENDER = """
import sys, torch, gpuzip
from tests.dataset.plain import rows_of
torch.set_num_threads(1)
data = gpuzip.Dataset.open(sys.argv[1], timeout=600)
first = int(sys.argv[2])
print("ready", flush=True)
for n in range(first, first + 20):
    data.append(rows_of(3, n), [f"{n} {i}" for i in range(3)])
    print(n, flush=True)
"""


@pytest.mark.full
def test_two_processes_write_while_a_third_searches(tmp_path: Path):
    gpuzip.Dataset.create(tmp_path, half(), ids="string")
    data = gpuzip.Dataset.open(tmp_path)
    writers = [python(APPENDER, tmp_path, first) for first in (0, 100)]
    sizes = []
    while any(writer.poll() is None for writer in writers):
        snapshot = data.refresh().snapshot()
        sizes.append(len(snapshot))
        ids = list(snapshot.ids)
        steps = [ids[at : at + 3] for at in range(0, len(ids), 3)]
        for step in steps:  # whole appends, none in part
            number = step[0].split()[0]
            assert step == [f"{number} {i}" for i in range(3)]
        if ids:
            numbers = [int(step[0].split()[0]) for step in steps]
            want = torch.cat([rows_of(3, number) for number in numbers])
            found = snapshot.search(rows_of(2, 1), 4, "l2")
            plain = data.codec.encode(want).search(rows_of(2, 1), 4, "l2")
            assert torch.equal(found.values, plain.values)
    for writer in writers:
        assert writer.wait() == 0
        assert writer.stdout is not None
        writer.stdout.close()
        assert writer.stdin is not None
        writer.stdin.close()
    assert sizes == sorted(sizes)
    data.refresh().verify()
    assert len(data) == 120


def test_the_lock_of_a_writer_that_dies_is_free(tmp_path: Path):
    filled(tmp_path, "int64")
    pid = os.fork()
    if pid == 0:  # holds the lock, and dies without a word
        from gpuzip.dataset.lock import writing

        held: Any = writing("test", tmp_path, 0)
        held.__enter__()
        os._exit(0)
    os.waitpid(pid, 0)
    gpuzip.Dataset.open(tmp_path, timeout=0).remove([1])


def test_a_process_that_is_forked_while_another_thread_writes_does_not_hold_the_lock(tmp_path: Path):
    filled(tmp_path, "int64")
    from gpuzip.dataset.lock import writing

    reading, held = os.pipe()
    with writing("test", tmp_path, 0):
        pid = os.fork()
        if pid == 0:
            os.close(held)
            os.read(reading, 1)  # lives until the parent closes its end
            os._exit(0)
    gpuzip.Dataset.open(tmp_path, timeout=0).remove([1])
    os.close(held)
    os.waitpid(pid, 0)
    os.close(reading)


def test_without_locks_nothing_that_may_be_read_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gpuzip.dataset.lock.HAS_LOCKS", False)
    monkeypatch.setattr("gpuzip.storage.atomic.HAS_LOCKS", False)
    data, plain = filled(tmp_path, "int64")
    kept, old = data.snapshot(), Plain()
    old.rows = dict(plain.rows)
    for change in (data, plain):
        change.remove([1, 30])
    data.compact(removed=0, small=100)
    check_same(kept, old)  # type: ignore[arg-type]
    kept.verify()
    check_same(data, plain)
    check_same(gpuzip.Dataset.open(tmp_path), plain)
