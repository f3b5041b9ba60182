"""Hamming distances against FAISS, against plain Python, and every tile of the kernel against every other."""

import importlib.util
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gpuzip.ops import OPS, hamming_gather, hamming_scan, pack_bits
from gpuzip.ops._dispatch import use_loops

ABSENT = 2**31 - 1
TILES = [
    (1, 128), (2, 256), (8, 128), (16, 128, 32), (16, 128, 64), (32, 64, 32), (64, 128, 16, True, 4),
    (128, 128, 16, True, 8), (64, 64, 32, False, 4), (64, 128, 64, False, 4),
]  # fmt: skip
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or torch.cuda.is_available(),
    reason="the interpreter stands in for a GPU",
)


def random_bytes(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def faiss_distances(queries: Tensor, codes: Tensor, k: int) -> tuple[Tensor, Tensor]:
    faiss = pytest.importorskip("faiss")
    index = faiss.IndexBinaryFlat(8 * codes.shape[1])
    index.add(np.ascontiguousarray(codes.numpy()))
    distances, ids = index.search(np.ascontiguousarray(queries.numpy()), k)
    return torch.from_numpy(distances), torch.from_numpy(ids)


def check_against_faiss(queries: Tensor, codes: Tensor) -> None:
    k = 20
    distances, ids = faiss_distances(queries, codes, k)
    scan = hamming_scan(queries, codes)
    assert torch.equal(scan.sort(1).values[:, :k], distances)
    assert torch.equal(hamming_gather(queries, codes, None, ids), distances)
    assert torch.equal(hamming_scan(queries, codes, None, 1024).amin(1), distances[:, 0])


@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize(("Q", "N", "B"), [(1, 5000, 48), (7, 9001, 13), (40, 3001, 16), (3, 100, 1)])
def test_random_codes_against_faiss(Q, N, B, loops):
    with use_loops(loops):
        check_against_faiss(random_bytes(Q, B, seed=1), random_bytes(N, B, seed=2))


@pytest.mark.parametrize("Q", [3, 64])
def test_signs_of_real_embeddings_against_faiss(real, real_queries, Q):
    codes, queries = (pack_bits((x > 0).to(torch.uint8), 1) for x in (real, real_queries[:Q]))
    check_against_faiss(queries, codes)


def test_by_loops():
    queries, codes = random_bytes(3, 5, seed=1), random_bytes(11, 5, seed=2)
    mask = torch.tensor([n not in (2, 8, 9, 10) for n in range(11)])
    distance = [
        [sum((int(a) ^ int(b)).bit_count() for a, b in zip(q, x, strict=True)) for x in codes]
        for q in queries
    ]
    kept = [[d if mask[n] else ABSENT for n, d in enumerate(row)] for row in distance]
    ids = torch.tensor([[10, 0, 3, -1], [3, 3, 7, 11], [1, 2**40, -(2**40), 9]])
    for scan, gather in (
        (hamming_scan, hamming_gather),
        (OPS["hamming_scan"].reference, OPS["hamming_gather"].reference),
    ):
        assert scan(queries, codes, None, 1).tolist() == distance
        assert scan(queries, codes, mask, 4).tolist() == [
            [min(row[a : a + 4]) for a in (0, 4, 8)] for row in kept
        ]
        assert gather(queries, codes, mask, ids).tolist() == [
            [row[i] if 0 <= i < 11 else ABSENT for i in some]
            for row, some in zip(kept, ids.tolist(), strict=True)
        ]


@settings(max_examples=60, deadline=None)
@given(
    Q=st.integers(0, 30),
    N=st.integers(0, 70),
    B=st.integers(1, 20),
    power=st.integers(0, 10),
    seed=st.integers(0, 9),
)
def test_any_size_agrees_with_the_reference(Q, N, B, power, seed):
    queries, codes = random_bytes(Q, B, seed=seed), random_bytes(N, B, seed=seed + 1)
    mask = random_bytes(N, seed=seed + 2) < 200 if seed % 2 else None
    ids = torch.randint(-3, N + 3, (Q, 1 + seed), generator=torch.Generator().manual_seed(seed))
    for loops in (False, True):
        with use_loops(loops):
            want = OPS["hamming_scan"].reference(queries, codes, mask, 1 << power)
            assert torch.equal(hamming_scan(queries, codes, mask, 1 << power), want)
            want = OPS["hamming_gather"].reference(queries, codes, mask, ids)
            assert torch.equal(hamming_gather(queries, codes, mask, ids), want)


@pytest.mark.parametrize("Q", [2, 20])
def test_a_metric(Q):
    """d(a, b) = d(b, a), d(a, a) = 0, d(a, c) <= d(a, b) + d(b, c), d(a, not a) = every bit."""
    a, b, c = (random_bytes(Q, 9, seed=s) for s in range(3))
    ab, bc, ac = hamming_scan(a, b), hamming_scan(b, c), hamming_scan(a, c)
    assert torch.equal(ab, hamming_scan(b, a).T)
    assert hamming_scan(a, a).diagonal().count_nonzero() == 0
    assert bool((hamming_scan(a, ~a).diagonal() == 72).all())
    assert bool((ac[:, None, :] <= ab[:, :, None] + bc[None, :, :]).all())


def test_without_numpys_own_count(monkeypatch):
    queries, codes = random_bytes(3, 9, seed=1), random_bytes(50, 9, seed=2)
    want = OPS["hamming_scan"].cpu(queries, codes, None, 4)
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert torch.equal(OPS["hamming_scan"].cpu(queries, codes, None, 4), want)


@pytest.mark.full
@needs_triton
@pytest.mark.parametrize(("B", "group"), [(48, 1), (20, 64), (16, 1024), (132, 128)])
def test_every_tile_gives_the_same_bytes(B, group):
    from gpuzip.kernels import hamming as kernel

    queries, codes = random_bytes(13, B, seed=1), random_bytes(150, B, seed=2)
    queries[0], queries[1], codes[0], codes[1] = 0, 255, 0, 255
    mask = random_bytes(150, seed=3) < 200
    want = OPS["hamming_scan"].reference(queries, codes, mask, group)
    for tile in TILES:
        form = {2: kernel.PopcountTile, 3: kernel.RowsTile, 5: kernel.DotTile}[len(tile)]
        chosen = form(*tile)
        assert torch.equal(kernel.hamming_scan(queries, codes, mask, group, chosen), want), tile


@needs_triton
def test_rows_that_start_at_an_odd_byte():
    from gpuzip.kernels import hamming as kernel

    queries, codes = random_bytes(3, 8, seed=1), random_bytes(8 * 37 + 1, seed=2)[1:].view(37, 8)
    want = OPS["hamming_scan"].reference(queries, codes, None, 1)
    assert torch.equal(kernel.hamming_scan(queries, codes, None, 1), want)
    many = queries.repeat(5, 1)
    assert torch.equal(kernel.hamming_scan(many, codes, None, 1), want.repeat(5, 1))


@needs_triton
def test_counting_stands_in_where_the_tensor_core_form_does_not_compile(monkeypatch):
    from gpuzip.kernels import _launch
    from gpuzip.kernels import hamming as kernel

    def fails(*args):
        raise RuntimeError("PassManager::run failed")

    monkeypatch.setattr(_launch, "FALLEN", {})
    monkeypatch.setattr(kernel, "_launch_dot", fails)
    for Q, form in ((20, "_scan_few"), (40, "_scan_dot")):
        queries, codes = random_bytes(Q, 16, seed=1), random_bytes(99, 16, seed=2)
        want = OPS["hamming_scan"].reference(queries, codes, None, 16)
        with pytest.warns(UserWarning, match=form):
            assert torch.equal(kernel.hamming_scan(queries, codes, None, 16), want)
        with warnings.catch_warnings():  # said once
            warnings.simplefilter("error", UserWarning)
            assert torch.equal(kernel.hamming_scan(queries, codes, None, 16), want)


@needs_triton
def test_tiles():
    from gpuzip.kernels import hamming as kernel

    tile = kernel._tile
    assert tile(1, 48, True, "cuda 90") == (1, 256)
    assert tile(2, 96, True, "cuda 90") == (2, 64)
    assert tile(1000, 13, False, "cuda 90") == (8, 32)  # rows that are not whole words
    assert tile(3, 48, True, "cuda 90") == (16, 64, 64)
    assert tile(32, 96, True, "cuda 90") == (32, 64, 32)
    assert tile(33, 48, True, "cuda 90") == (64, 128, 16, True, 4)
    assert tile(65, 48, True, "cuda 90") == (128, 128, 16, True, 8)
    assert tile(65, 48, True, "cuda 80") == (64, 128, 16, True, 4)
    assert tile(33, 48, True, "cuda 100") == (128, 64, 64, False, 8)
    assert tile(65, 48, True, "hip gfx942") == (128, 128, 16, True, 8)
