"""Writers that are killed, disks that are full: what was acknowledged is whole, and nothing else is left."""

import builtins
import errno
import os
import random
import resource
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import gpuzip
from tests.dataset.plain import Plain, check_same, half, rows_of
from tests.dataset.test_dataset import filled

#: From Python 3.12 on a fork beside threads, which torch has, warns.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:lance is not fork-safe:UserWarning"),  # which other tests import
]

Step = Callable[[Any], object]

STEPS: dict[str, Step] = {
    "append": lambda d: d.append(rows_of(4, 8), range(100, 104)),
    "remove": lambda d: d.remove([3, 25, 26]),
    "update": lambda d: d.update([3, 25], rows_of(2, 9)),
    "compact": lambda d: d.compact(removed=0) if isinstance(d, gpuzip.Dataset) else None,
}
#: What a writer does to files. Each call of one of these is a moment to die.
OPERATIONS = [(os, "replace"), (os, "fsync"), (os, "open"), (os, "unlink"), (builtins, "open")]


def files_of(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def dying(work: Callable[[], object], at: int) -> bool:
    """Run work in a child that dies before file operation `at`. Whether it lived to the end."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    code = 1
    try:
        torch.set_num_threads(1)
        calls = 0

        def counted(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls > at:
                    os._exit(9)
                return original(*arguments, **named)

            return call

        for where, name in OPERATIONS:
            setattr(where, name, counted(getattr(where, name)))
        work()
        code = 0
    finally:
        os._exit(code)


EVERY = [pytest.param(name, 1, marks=pytest.mark.full) for name in STEPS]


@pytest.mark.parametrize(("step", "stride"), [("remove", 15), *EVERY])
def test_a_writer_that_dies_at_any_file_operation_leaves_the_old_or_the_new_state(
    tmp_path: Path, step: str, stride: int
):
    data, before = filled(tmp_path, "int64")
    data.remove([40])
    before.remove([40])
    states, at = [], 0
    while True:
        lived = dying(lambda: STEPS[step](gpuzip.Dataset.open(tmp_path)), at)
        seen = gpuzip.Dataset.open(tmp_path)
        states.append(seen.info().generation)
        expected = Plain()
        expected.rows = dict(before.rows)
        if states[-1] > states[0]:
            STEPS[step](expected)
        check_same(seen, expected)
        seen.verify()
        if states[-1] > states[0]:
            break
        at += stride
    assert states == sorted(states)
    assert at > 15
    assert not lived or stride > 1  # it died after the commit, while it removed what nobody needs
    seen.remove([7])  # the next writer removes what the dead ones left
    del seen, data
    last = gpuzip.Dataset.open(tmp_path)
    last.remove([8])
    named = {member.name for member in last._view.manifest.members}
    assert files_of(tmp_path) - named - {"manifest.json"} == {
        name for name in files_of(tmp_path) if name.startswith("generation-")
    }
    assert len(list(tmp_path.glob("generation-*"))) == 1


@pytest.mark.full
def test_a_create_that_dies_can_be_done_again(tmp_path: Path):
    at = 0
    while not dying(lambda: gpuzip.Dataset.create(tmp_path, half()), at):
        at += 1
        if (tmp_path / "manifest.json").exists():
            break
    assert at > 10
    assert len(gpuzip.Dataset.open(tmp_path)) == 0


def change(number: int, target: Any, ids: list[int]) -> None:
    """The change of this number: of a dataset, or of the plain dict that it is compared with."""
    draws = random.Random(number)
    kind = draws.choice(["append", "append", "append", "remove", "update", "compact"])
    some = draws.sample(ids, min(len(ids), draws.randint(1, 6)))
    count = draws.randint(1, 9)
    if kind == "append" or not ids:
        target.append(rows_of(count, number), range(1000 * number, 1000 * number + count))
    elif kind == "remove":
        target.remove(some)
    elif kind == "update":
        target.update(some, rows_of(len(some), number))
    elif isinstance(target, gpuzip.Dataset):
        target.compact(removed=0.1, small=30)


def write_until_killed(folder: Path, plain: Plain, number: int, draws: random.Random) -> list[int]:
    """Make changes from `number` on in a child that is killed, and return those that it acknowledged."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        torch.set_num_threads(1)
        try:
            data = gpuzip.Dataset.open(folder)
            while True:
                change(number, data, plain.ids)
                os.write(writing, struct.pack("<q", number))
                change(number, plain, plain.ids)
                number += 1
        finally:
            os._exit(1)
    os.close(writing)
    told = os.read(reading, 8) if draws.random() < 0.9 else b""  # else it may not even have opened
    time.sleep(draws.uniform(0, 0.05))
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL, "it failed before"
    with open(reading, "rb") as pipe:
        return [number for (number,) in struct.iter_unpack("<q", told + pipe.read())]


@pytest.mark.parametrize("moments", [4, pytest.param(200, marks=pytest.mark.full)])
def test_a_writer_that_is_killed_at_any_moment_loses_nothing_that_was_acknowledged(
    tmp_path: Path, moments: int
):
    gpuzip.Dataset.create(tmp_path, half(), ids="int64")
    plain, draws, number, unfinished = Plain(), random.Random(moments), 0, 0
    for _ in range(moments):
        done = write_until_killed(tmp_path, plain, number, draws)
        assert done == list(range(number, number + len(done)))
        for number in done:
            change(number, plain, plain.ids)
        number += 1 if done else 0
        seen = gpuzip.Dataset.open(tmp_path)
        if list(seen.ids) != plain.ids or not torch.equal(seen.decode(), plain.decoded()):
            change(number, plain, plain.ids)  # the next one was done, and not yet acknowledged
            number, unfinished = number + 1, unfinished + 1
        check_same(seen, plain)
    seen.verify()
    assert number > moments / 2


STOPS = [KeyboardInterrupt(), PermissionError(errno.EACCES, "denied"), OSError(errno.ENOSPC, "full")]


@pytest.mark.parametrize("stop", STOPS, ids=["interrupt", "permission", "space"])
def test_an_error_at_any_step_leaves_the_dataset_as_it_was_and_nothing_besides(
    tmp_path: Path, stop: BaseException
):
    data, plain = filled(tmp_path, "int64")
    before, call = files_of(tmp_path), 0
    faults: list[BaseException] = []
    while True:
        call += 1
        with pytest.MonkeyPatch.context() as patch:
            left = [call]

            def failing(original: Callable[..., Any], left: list[int] = left) -> Callable[..., Any]:
                def step(*arguments: Any, **named: Any) -> Any:
                    left[0] -= 1
                    if left[0] == 0:
                        raise stop
                    return original(*arguments, **named)

                return step

            for name in ("replace", "fsync"):
                patch.setattr(os, name, failing(getattr(os, name)))
            try:
                data.update([3, 25], rows_of(2, 9))
                break
            except type(stop) as error:
                faults.append(error)
        if data.refresh().info().generation > 3:  # it came after the commit
            break
        assert files_of(tmp_path) == before
        check_same(data, plain)
    assert call > 5
    assert all(isinstance(fault, KeyboardInterrupt) or str(tmp_path) in str(fault) for fault in faults)
    plain.update([3, 25], rows_of(2, 9))
    check_same(data.refresh(), plain)


def test_a_full_disk_leaves_the_dataset_as_it_was(tmp_path: Path):
    data, plain = filled(tmp_path, "string")
    before, limit = files_of(tmp_path), 0
    faults: list[OSError] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    while True:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            data.append(rows_of(300, 4), [f"new {n}" for n in range(300)])
            break
        except OSError as error:
            faults.append(error)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert files_of(tmp_path) == before
        check_same(data, plain)
        limit += 500
    assert len(faults) > 5  # in codes, in ids and in the manifest
    assert all(fault.errno == errno.EFBIG and str(tmp_path) in str(fault) for fault in faults)
    plain.append(rows_of(300, 4), [f"new {n}" for n in range(300)])
    check_same(data, plain)


def test_a_file_that_vanished_or_was_cut_is_named(tmp_path: Path):
    data, _ = filled(tmp_path, "string")
    data.remove(["row 3"])
    del data
    for name in sorted(files_of(tmp_path) - {"manifest.json"}):
        path = tmp_path / name
        whole = path.read_bytes()
        path.unlink()
        with pytest.raises(gpuzip.FormatError, match="missing") as caught:
            gpuzip.Dataset.open(tmp_path)
        assert str(path) in str(caught.value)
        if not name.startswith("generation"):
            path.write_bytes(whole[:-1])
            with pytest.raises(gpuzip.FormatError, match="bytes") as caught:
                gpuzip.Dataset.open(tmp_path)
            assert str(path) in str(caught.value)
        path.write_bytes(whole)
    gpuzip.Dataset.open(tmp_path).verify()
