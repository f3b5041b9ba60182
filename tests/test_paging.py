"""Bytes that a mapped file is read by: a row by id costs its block, and not what systems read ahead."""

import subprocess
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import gpuzip
from gpuzip.storage import blocks, paging

N, D = 60_000, 96
PROGRAM = """
import os, sys, torch, gpuzip
def read():
    return int(open("/proc/self/io").read().partition("read_bytes:")[2].split()[0])
path = sys.argv[1]
gpuzip.open(path).rows([0])
for call in (lambda opened: opened.rows([opened.shape[0] // 2]), lambda opened: opened.decode()):
    counts = []
    for _ in range(3):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        before = read()
        call(gpuzip.open(path))
        counts.append(read() - before)
    print(min(counts))
"""


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(0))


def bytes_read(path: Path) -> list[int]:
    """Count the bytes that a process reads from disk for one row by id, and for all rows.

    The least of three times: where memory is short a process also reads its own code again.
    """
    command = [sys.executable, "-c", PROGRAM, str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [int(count) for count in said.split()]


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs Linux's counts of bytes")
@pytest.mark.full
@pytest.mark.parametrize("name", ["codes", "archive"])
def test_a_row_by_id_reads_its_block(tmp_path: Path, x: Tensor, name: str):
    path = tmp_path / "x.ezip"
    codec = gpuzip.HalfQuantizer() if name == "codes" else gpuzip.TransformCoder(max_error=1e-4)
    size = codec.fit(x).encode(x).save(path).nbytes  # synced, so that its pages can be dropped
    row, every = bytes_read(path)
    if every < size // 2:
        pytest.skip("this file system keeps files in memory")
    assert row < 6 * blocks.BLOCK_BYTES < size // 4


def test_a_scan_reads_ahead_and_rows_do_not(tmp_path: Path, x: Tensor, monkeypatch: pytest.MonkeyPatch):
    told: list[tuple[str, int]] = []

    def note(name: str, arrays: Iterable[np.ndarray]) -> None:
        told.append((name, sum(array.nbytes for array in arrays)))

    for name in ("touched_alone", "soon", "in_order"):
        monkeypatch.setattr(paging, name, partial(note, name))
    codes = gpuzip.HalfQuantizer().fit(x).encode(x)
    codes.save(tmp_path / "x.ezip")
    opened = gpuzip.open(tmp_path / "x.ezip")
    (_, mapped), (_, read) = told
    assert [name for name, _ in told] == ["touched_alone", "soon"] and read < 1000
    assert mapped - read == codes.packed.data.nbytes
    told.clear()
    assert torch.equal(opened.rows([5, 6]), codes.rows([5, 6]))
    assert told == [("soon", blocks.BLOCK_BYTES // codes.codec.code_size * codes.codec.code_size)]
    told.clear()
    opened.search(x[:2], 3)
    assert {name for name, _ in told} == {"in_order"}
    assert torch.equal(opened.data, codes.data)


def test_advice_changes_no_bytes():
    memory = torch.arange(3 * 4096 + 7, dtype=torch.int32).view(torch.uint8).numpy()[3:]
    before = memory.copy()
    for advise in (paging.touched_alone, paging.soon, paging.in_order):
        advise([memory, memory[:0]])
        assert (memory == before).all()
