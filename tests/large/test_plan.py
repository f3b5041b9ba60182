"""How many rows are taken at a time, copies that overlap, and searches of what does not fit on a device."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip._core.rows import BLOCK_BYTES
from gpuzip._core.uploads import uploaded
from gpuzip.dataset.searching import nearest
from gpuzip.dataset.streaming import Piece, nearest_on, pieces_of
from gpuzip.large.plan import LEAST_MEMORY, Memory, sampled, shard_rows_of
from gpuzip.storage.blocks import rows_per_block

CPU = torch.device("cpu")


@pytest.mark.parametrize("d", [1, 384, 4096])
def test_more_memory_reads_more_and_blocks_begin_at_the_same_rows(d: int):
    block, before = max(1, BLOCK_BYTES // (4 * d)), 0
    for memory in (LEAST_MEMORY, 1 << 30, 8 << 30):
        rows = Memory(memory, None).chunk(d)
        assert rows % block == 0 and rows >= before
        assert 4 * d * rows <= max(memory // 16, 4 * d * block)
        before = rows


@pytest.mark.parametrize("gpu", [1 << 20, 1 << 30, 80 << 30])
def test_chunks_on_a_gpu_fit_there_and_in_pinned_memory(gpu: int):
    memory = Memory(1 << 30, gpu)
    rows = memory.chunk(384)
    assert rows >= 1 and 6 * 4 * 384 * rows <= gpu
    assert 2 * 4 * 384 * rows <= (1 << 30) // 8  # two buffers
    assert 6 * 4 * 384 * memory.most_sampled(384) <= min(gpu, 1 << 30)


def test_samples_and_shards_are_bounded():
    assert sampled("f", None, Memory(1 << 40, None), 384) == 1 << 16
    assert sampled("f", None, Memory(LEAST_MEMORY, None), 4096) * 6 * 4 * 4096 <= LEAST_MEMORY
    with pytest.raises(gpuzip.GpuzipError, match="sample_rows must be at most"):
        sampled("f", 1 << 20, Memory(LEAST_MEMORY, None), 384)
    for size in (1, 48, 1536, 1 << 20):
        rows = shard_rows_of("f", None, size)
        assert rows % rows_per_block(size) == 0
        assert rows * size <= max(64 << 20, rows_per_block(size) * size)
        assert shard_rows_of("f", 1, size) == rows_per_block(size)


class Fake:
    """A lane that notes what it does."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def begin(self, block: torch.Tensor) -> tuple[torch.Tensor, object]:
        self.log.append(f"begin {int(block[0])}")
        return block.clone(), None

    def arrived(self, copy: tuple[torch.Tensor, object]) -> torch.Tensor:
        self.log.append(f"arrived {int(copy[0][0])}")
        return copy[0]


def test_each_copy_begins_before_the_block_in_front_of_it_is_used():
    lane = Fake()
    for block in uploaded((torch.tensor([i]) for i in range(3)), CPU, lane):
        lane.log.append(f"used {int(block)}")
    order = "begin 0, begin 1, arrived 0, used 0, begin 2, arrived 1, used 1, arrived 2, used 2"
    assert ", ".join(lane.log) == order
    assert list(uploaded([], CPU, lane)) == []
    block = torch.tensor([1])
    assert next(uploaded([block], CPU)) is block


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_blocks_arrive_on_a_gpu_as_they_are():
    blocks = [torch.full((1000 + i, 64), float(i)) for i in range(7)]
    for i, block in enumerate(uploaded(iter(blocks), torch.device("cuda"))):
        assert block.is_cuda and bool((block == i).all()) and len(block) == 1000 + i


@pytest.mark.parametrize("budget", [300_000, 1 << 20, 1 << 30])
def test_pieces_cover_all_rows_once_within_the_budget(budget: int):
    sizes = [5000, 0, 1, 123_456]
    pieces = pieces_of(sizes, 48, budget)
    covered = [np.zeros(n, int) for n in sizes]
    for piece in pieces:
        covered[piece.shard][piece.start : piece.stop] += 1
        assert (piece.stop - piece.start) * 56 * 4 <= budget
    assert all((part == 1).all() for part in covered)
    assert pieces == sorted(pieces)


def test_a_budget_without_room_is_refused():
    with pytest.raises(gpuzip.GpuzipError, match="max_gpu_memory must be at least"):
        pieces_of([10], 48, 1000)


OTHERS = [pytest.param(spec, marks=pytest.mark.full) for spec in ("SQ8", "HR,RaBitQ3", "SQfp16")]


@pytest.mark.parametrize("spec", ["PQ4x4", *OTHERS])
def test_a_search_piece_by_piece_is_that_of_all_rows(tmp_path: Path, spec: str):
    x = torch.randn(3000, 16, generator=torch.Generator().manual_seed(0))
    data = gpuzip.Dataset.create(tmp_path, gpuzip.from_spec(spec).fit(x))
    for part in x.split(1000):
        data.append(part)
    data.remove(range(500, 900))
    view = data._view
    pieces = [Piece(n, a, min(a + 300, 1000)) for n in range(3) for a in range(0, 1000, 300)]
    nothing: list[Any] = [np.zeros(1000, bool)] * 3
    some: list[Any] = [np.arange(1000) % 7 == n for n in range(3)]
    gone = view.shards[0].gone
    assert gone is not None
    every: list[Any] = [~gone, None, None]
    for allowed in (every, some, nothing):
        truth = nearest(view, x[:20], 5, "cosine", allowed)
        found = nearest_on(CPU, view, x[:20], 5, "cosine", allowed, pieces)
        assert torch.equal(truth[1], found[1])
        torch.testing.assert_close(truth[0], found[0])


def test_large_datasets_are_closed_behind_a_search_and_small_ones_stay_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    x = torch.randn(300, 16, generator=torch.Generator().manual_seed(0))
    data = gpuzip.Dataset.create(tmp_path, gpuzip.ScalarQuantizer().fit(x))
    for part in x.split(100):
        data.append(part)
    truth = data.search(x, k=3)
    files = [shard.files for shard in data._view.shards]
    assert all("codes" in vars(one) for one in files)
    monkeypatch.setattr("gpuzip.dataset.searching.KEPT_OPEN", 0)
    assert torch.equal(data.search(x, k=3).ids, truth.ids)
    assert not any("codes" in vars(one) for one in files)
    assert torch.equal(data.search(x, k=3).values, truth.values)
    assert all(one.codes.packed.is_verified for one in files)


def test_memory_and_devices_of_a_search_are_checked(tmp_path: Path):
    x = torch.randn(30, 16, generator=torch.Generator().manual_seed(0))
    data = gpuzip.Dataset.create(tmp_path, gpuzip.ScalarQuantizer().fit(x))
    data.append(x)
    with pytest.raises(gpuzip.GpuzipError, match="max_gpu_memory must come with a GPU"):
        data.search(x, max_gpu_memory="1GB")
    with pytest.raises(gpuzip.GpuzipError, match="device must be one that torch finds"):
        data.search(x, device="nowhere")
