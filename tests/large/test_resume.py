"""Runs that are killed: the next one goes on and gives the same bytes, and no other run goes on with them."""

import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip import compress_file
from gpuzip.large import destination, job
from gpuzip.large.job import differences, is_unfinished
from tests.dataset.test_faults import dying
from tests.large.test_compress_file import bytes_of, small_blocks  # noqa: F401

#: From Python 3.12 on a fork beside threads, which torch has, warns.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:lance is not fork-safe:UserWarning"),  # which other tests import
]

X = np.random.default_rng(1).standard_normal((4000, 16)).astype(np.float32)
HOW: dict[str, Any] = {"codec": "SQ8", "sample_rows": 500, "shard_rows": 1000}


def saved(folder: Path) -> Path:
    np.save(folder / "x.npy", X)
    return folder / "x.npy"


class StoppedError(Exception):
    """The end of a run, in the middle."""


def stopped(source: Path, target: Path, after: int, **how: Any) -> None:
    """A run that ends by an error after so many rows."""

    def stop(done: int, total: int) -> None:
        if done > after:
            raise StoppedError

    with pytest.raises(StoppedError):
        compress_file(source, target, progress=stop, **HOW | how)


@pytest.mark.parametrize("name", ["x.ezip", "x"])
@pytest.mark.parametrize("after", [0, 3000])
def test_a_run_goes_on_from_its_last_whole_shard(tmp_path: Path, name: str, after: int):
    source = saved(tmp_path)
    compress_file(source, tmp_path / f"whole{name}", **HOW)
    stopped(source, tmp_path / name, after)
    done = compress_file(source, tmp_path / name, **HOW)
    assert done.resumed == after and done.n == 4000
    assert bytes_of(tmp_path / name) == bytes_of(tmp_path / f"whole{name}")
    assert not list(tmp_path.glob("*.compressing"))


def test_chunks_that_come_once_go_on_too(tmp_path: Path):
    def chunks():
        return (X[start : start + 700] for start in range(0, 4000, 700))

    compress_file(chunks(), tmp_path / "whole.ezip", **HOW)

    def broken():
        yield from list(chunks())[:4]
        raise StoppedError

    with pytest.raises(StoppedError):
        compress_file(broken(), tmp_path / "x.ezip", **HOW)  # while it is sampled
    codec = gpuzip.ScalarQuantizer().fit(X)
    with pytest.raises(StoppedError):
        compress_file(broken(), tmp_path / "y.ezip", codec, shard_rows=1000)
    done = compress_file(chunks(), tmp_path / "y.ezip", codec, shard_rows=1000)
    assert done.resumed == 2000
    compress_file(chunks(), tmp_path / "x.ezip", **HOW)
    assert bytes_of(tmp_path / "x.ezip") == bytes_of(tmp_path / "whole.ezip")


def test_what_an_interrupted_run_has_filled_is_a_dataset(tmp_path: Path):
    stopped(saved(tmp_path), tmp_path / "x", 2000)
    data = gpuzip.Dataset.open(tmp_path / "x")
    data.verify()
    assert len(data) == 2000


def test_another_run_does_not_go_on_and_says_what_differs(tmp_path: Path):
    source, target = saved(tmp_path), tmp_path / "x.ezip"
    stopped(source, target, 1000)
    others: list[tuple[dict[str, Any], str]] = [
        ({"seed": 5}, "seed was 0, is 5"),
        ({"codec": "SQ4"}, r"codec was .ScalarQuantizer\(bits=8.* is .ScalarQuantizer\(bits=4"),
        ({"codec": None, "min_cosine": 0.9}, r"codec was .*goals.min_cosine was None, is 0.9"),
        ({"sample_rows": 501}, "sample_rows was 500, is 501"),
        ({"shard_rows": 2000}, "shard_rows was 1000, is 2000"),
        ({"format": "npy", "seed": 1}, "seed was 0, is 1"),
    ]
    for how, why in others:
        with pytest.raises(gpuzip.GpuzipError, match=f"was begun by a run with other arguments.*{why}"):
            compress_file(source, target, **HOW | how)
    os.utime(source, (1, 1))
    with pytest.raises(gpuzip.GpuzipError, match=r"source\.files\[0\]\.changed was .* is 1000000000"):
        compress_file(source, target, **HOW)
    np.save(source, 2 * X)
    with pytest.raises(gpuzip.GpuzipError, match=r"source\.files\[0\]\.first was"):
        compress_file(source, target, **HOW)
    np.save(source, X[:500])
    with pytest.raises(gpuzip.GpuzipError, match=r"files\[0\]\.bytes was .*; source\.n was 4000, is 500"):
        compress_file(source, target, **HOW)
    done = compress_file(source, target, overwrite=True, **HOW)
    assert done.n == 500 and done.resumed == 0 and not list(tmp_path.glob("*.compressing"))


def test_a_source_that_changes_while_it_is_read_is_an_error(tmp_path: Path):
    source = saved(tmp_path)
    with pytest.raises(gpuzip.GpuzipError, match="src must not change while it is read"):
        compress_file(source, tmp_path / "x.ezip", progress=lambda *both: os.utime(source, (5, 5)), **HOW)
    assert not (tmp_path / "x.ezip").exists()


def test_one_run_at_a_time_fills_a_destination(tmp_path: Path):
    source, target = saved(tmp_path), tmp_path / "x.ezip"

    def again(done: int, total: int) -> None:
        with pytest.raises(gpuzip.GpuzipError, match="must have one writer at a time"):
            compress_file(source, target, **HOW)

    compress_file(source, target, progress=again, **HOW)


@pytest.mark.parametrize("text", ["", "{}", '{"format":2}', "[" * 9000])
def test_a_damaged_record_of_a_run_is_refused(tmp_path: Path, text: str):
    source, target = saved(tmp_path), tmp_path / "x"
    stopped(source, target, 1000)
    (target / "compressing.json").write_text(text)
    with pytest.raises(gpuzip.FormatError, match=r"compressing\.json: "):
        compress_file(source, target, **HOW)


def test_differences_are_named_by_where_they_are():
    before = {"a": 1, "b": {"c": [1, {"d": 2}]}, "e": [1]}
    assert differences(before, before) == []
    after = {"a": 1, "b": {"c": [1, {"d": 3}]}, "e": [1, 2]}
    assert differences(before, after) == ["b.c[1].d was 2, is 3", "e was [1], is [1, 2]"]


def is_whole(target: Path) -> bool:
    """Whether a run came to the end, even if it died behind it."""
    if target.suffix:
        return target.exists()
    return (target / "manifest.json").exists() and not is_unfinished(target)


@pytest.mark.parametrize(
    ("name", "stride"),
    [("x", 43), *(pytest.param(name, 3, marks=pytest.mark.full) for name in ("x", "x.ezip"))],
)
def test_a_run_that_dies_at_any_file_operation_goes_on_to_the_same_bytes(
    tmp_path: Path, name: str, stride: int
):
    source, at = saved(tmp_path), 3
    compress_file(source, tmp_path / f"whole{name}", **HOW)
    whole, lived = bytes_of(tmp_path / f"whole{name}"), False
    while not lived:
        target = tmp_path / str(at) / name
        lived = dying(partial(compress_file, source, target, **HOW), at)
        if not is_whole(target):
            compress_file(source, target, **HOW)
        assert bytes_of(target) == whole, at
        at += stride
    assert at > 60


def forked(work: Callable[[], object]) -> int:
    """The number of a child that does some work and ends."""
    pid = os.fork()
    if pid:
        return pid
    try:
        torch.set_num_threads(1)
        work()
    finally:
        os._exit(0)


def work_folder(target: Path) -> Path:
    """Where a run fills what becomes a target that is a file, or replaces one that is there."""
    return target.with_name(f"{target.name}.compressing")


def ended(target: Path, again: Callable[[], gpuzip.Compressed]) -> bool:
    """End what a run that died behind its commit has left. Whether the next call went on with it.

    It does if the record of the run is there, with no row left to encode; else the target must be new.
    """
    went_on = is_unfinished(work_folder(target))
    if went_on:
        done = again()
        assert done.resumed == done.n
    with pytest.raises(gpuzip.GpuzipError, match="must be new; it is there"):
        again()  # removes what one that died behind the end of its record has left
    assert sorted(path.name for path in target.parent.iterdir()) == [target.name]
    return went_on


ENDS = {"finish": destination, "remove_finished": destination, "clear": job, "rmdir": Path}


@pytest.mark.parametrize(
    "end", [pytest.param(end, marks=[] if end == "finish" else pytest.mark.full) for end in ENDS]
)
@pytest.mark.parametrize("name", ["x.ezip", "x"])
def test_a_run_that_dies_between_its_commit_and_the_removal_of_its_folder_is_ended_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, end: str
):
    source, target = saved(tmp_path), tmp_path / "new" / name
    target.parent.mkdir()
    compress_file(X[:50], target, **HOW)  # where one is replaced, a dataset too is filled beside it

    def dies(*_: Any) -> None:
        if work_folder(target).is_dir():  # not at the begin, which also looks for what is left
            os._exit(9)

    with monkeypatch.context() as patch:
        patch.setattr(ENDS[end], end, dies)
        status = os.waitpid(forked(partial(compress_file, source, target, overwrite=True, **HOW)), 0)[1]
    assert os.waitstatus_to_exitcode(status) == 9
    assert ended(target, partial(compress_file, source, target, **HOW)) == (end == "finish")
    compress_file(source, tmp_path / name, **HOW)
    if target.is_file():
        assert bytes_of(target) == bytes_of(tmp_path / name)
    else:
        now, whole = (gpuzip.Dataset.open(path) for path in (target, tmp_path / name))
        now.verify()
        assert torch.equal(now.decode(), whole.decode())


def rows_in(target: Path) -> int:
    """Rows that a run has committed so far."""
    work = work_folder(target) if target.suffix else target
    return len(gpuzip.Dataset.open(work)) if (work / "manifest.json").exists() else 0


def killed(compress: Callable[..., object], chunks: int, pause: float) -> bool:
    """Compress in a child that is killed some seconds after so many chunks. Whether it lived until then."""
    reading, writing = os.pipe()
    pid = forked(partial(compress, progress=lambda done, total: os.write(writing, b".")))
    os.close(writing)
    with open(reading, "rb", buffering=0) as told:
        while chunks and told.read(1):
            chunks -= 1
    time.sleep(pause)
    os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


@pytest.mark.full
@pytest.mark.parametrize("name", ["x.ezip", "x"])
def test_runs_killed_at_random_moments_lose_nothing_and_end_in_the_same_bytes(tmp_path: Path, name: str):
    draws, kills, committed = random.Random(0), 0, set()
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((40_000, 16)).astype(np.float32))
    codec = gpuzip.ScalarQuantizer().fit(np.load(tmp_path / "x.npy"))  # a run that is killed would fit anew
    how: dict[str, Any] = {"codec": codec, "shard_rows": 2000}
    whole = tmp_path / f"whole{name}"
    compress_file(tmp_path / "x.npy", whole, **how)
    while kills < 100:
        target = tmp_path / f"{kills}" / name
        compress = partial(compress_file, tmp_path / "x.npy", target, **how)
        while not is_whole(target):
            before = rows_in(target)
            kills += killed(compress, draws.randrange(6), draws.uniform(0, 0.01))
            committed.add(rows_in(target))
            assert is_whole(target) or rows_in(target) >= before
        assert bytes_of(target) == bytes_of(whole)
        ended(target, compress)
        assert bytes_of(target) == bytes_of(whole)
    assert len(committed) > 3
