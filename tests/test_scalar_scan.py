"""Scalar scans against float64, against FAISS's codes, and every tile of the kernel against every other."""

import importlib.util
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gpuzip._core.byte_products import bytes_are_exact, products_of_bytes, products_of_floats
from gpuzip.ops import OPS, pack_bits, scalar_scan
from gpuzip.ops._dispatch import use_loops

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or torch.cuda.is_available(),
    reason="the interpreter stands in for a GPU",
)
TILES = [
    (1, 128, 16, False), (4, 64, 16, False), (16, 64, 128, True), (16, 64, 64, True), (64, 64, 64, True),
    (32, 64, 32, True),
]  # fmt: skip


def inputs(Q: int, N: int, D: int, nbits: int, seed: int = 0) -> tuple[Tensor, ...]:
    """codes, queries, query_scale, query_offset, scale, bias, mask, and the codes before they were packed."""
    g = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 1 << nbits, (N, D), generator=g).to(torch.uint8)
    queries = torch.randint(-128, 128, (Q, D), generator=g).to(torch.int8)
    floats = torch.rand(Q, generator=g), *(torch.randn(n, generator=g) for n in (Q, N, N))
    return pack_bits(values, nbits), queries, *floats, torch.rand(N, generator=g) < 0.8, values


@pytest.mark.parametrize("nbits", [4, 8])
@pytest.mark.parametrize(("Q", "N", "D"), [(1, 3001, 384), (5, 700, 33), (20, 2500, 100)])
def test_against_float64(Q, N, D, nbits):
    codes, queries, query_scale, query_offset, scale, bias, mask, values = inputs(Q, N, D, nbits)
    dots = queries.double() @ values.double().T
    dots = query_scale.double()[:, None] * dots
    products = (dots + query_offset.double()[:, None]) * scale.double()
    scores = products + bias.double()
    bound = (
        4 * (dots * scale).abs() + 4 * products.abs() + 2 * scores.abs() + 1
    ) * 2**-24  # a rounding a step
    got = scalar_scan(codes, queries, query_scale, query_offset, scale, bias, None, nbits)
    assert bool(((got.double() - scores).abs() <= bound).all())
    masked = scalar_scan(codes, queries, query_scale, query_offset, scale, bias, mask, nbits)
    assert torch.equal(masked.isneginf(), (~mask).expand(Q, N))
    best = scalar_scan(codes, queries, query_scale, query_offset, scale, bias, mask, nbits, 64)
    padded = torch.nn.functional.pad(masked, (0, -N % 64), value=float("-inf"))
    assert torch.equal(best, padded.view(Q, -1, 64).amax(2))


@pytest.mark.parametrize("nbits", [4, 8])
def test_by_loops(nbits):
    codes, queries, query_scale, query_offset, scale, bias, mask, values = inputs(3, 7, 5, nbits)
    got = scalar_scan(codes, queries, query_scale, query_offset, scale, bias, mask, nbits)
    for q in range(3):
        for n in range(7):
            dot = sum(int(a) * int(b) for a, b in zip(queries[q], values[n], strict=True))
            score = np.float32(query_scale[q]) * np.float32(dot) + np.float32(query_offset[q])
            score = score * np.float32(scale[n]) + np.float32(bias[n])
            assert got[q, n] == (score if mask[n] else -np.inf)


@pytest.mark.parametrize(("nbits", "name"), [(8, "QT_8bit_uniform"), (4, "QT_4bit_uniform")])
def test_codes_of_faiss_are_ranked_as_their_decoded_rows(real, real_queries, nbits, name):
    """FAISS decodes a uniform code c to low + (c + 0.5) * step, a scale and a bias away."""
    faiss = pytest.importorskip("faiss")
    quantizer = faiss.ScalarQuantizer(384, getattr(faiss.ScalarQuantizer, name))
    x = np.ascontiguousarray(real[:2000].numpy())
    quantizer.train(x)
    codes = torch.from_numpy(quantizer.compute_codes(x))
    decoded = torch.from_numpy(quantizer.decode(codes.numpy())).double()
    q = real_queries[:20]
    step = q.abs().amax(1) / 127
    whole = (q / step[:, None]).round()
    low, width = faiss.vector_to_array(quantizer.trained).tolist()
    unit = width / ((1 << nbits) - 1)
    scores = scalar_scan(codes, whole.to(torch.int8), step * unit, nbits=nbits)
    offset = (low + 0.5 * unit) * (step * whole.sum(1))
    want = (whole.double() * step.double()[:, None]) @ decoded.T
    assert torch.allclose(scores.double() + offset.double()[:, None], want, rtol=0, atol=2e-6)


@settings(max_examples=50, deadline=None)
@given(
    Q=st.integers(0, 9), N=st.integers(0, 70), D=st.integers(1, 40), nbits=st.sampled_from([4, 8]),
    power=st.integers(0, 10), given_rows=st.integers(0, 15), seed=st.integers(0, 9),
)  # fmt: skip
def test_any_size_agrees_with_the_reference(Q, N, D, nbits, power, given_rows, seed):
    codes, queries, query_scale, *rows, _ = inputs(Q, N, D, nbits, seed)
    some = [row if given_rows >> i & 1 else None for i, row in enumerate(rows)]
    want = OPS["scalar_scan"].reference(codes, queries, query_scale, *some, nbits, 1 << power)
    for loops in (False, True):
        with use_loops(loops):
            got = scalar_scan(
                codes, queries, query_scale, some[0], some[1], some[2], some[3], nbits, 1 << power
            )
            assert torch.equal(got, want)


def extremes(D: int, nbits: int) -> tuple[Tensor, Tensor, Tensor]:
    top = (1 << nbits) - 1
    values = torch.tensor([0, top, top // 2, top // 2 + 1], dtype=torch.uint8)[:, None].repeat(1, D)
    queries = torch.tensor([-128, 127, -1, 0, 64], dtype=torch.int8)[:, None].repeat(1, D)
    queries[4, ::2] = -128
    return pack_bits(values, nbits), queries, queries.double() @ values.double().T


@pytest.mark.parametrize("nbits", [4, 8])
@pytest.mark.parametrize("D", [1, 4095, 4096, 65536])
def test_extremes_do_not_overflow(D, nbits):
    codes, queries, want = extremes(D, nbits)
    assert torch.equal(scalar_scan(codes, queries, torch.ones(5), nbits=nbits), want.float())


def test_both_products_of_a_cpu_are_exact():
    codes, queries, want = extremes(4096, 8)
    assert torch.equal(products_of_floats(codes, queries).T.double(), want)
    if bytes_are_exact():
        assert torch.equal(products_of_bytes(codes, queries).T.double(), want)


@pytest.mark.full
@needs_triton
@pytest.mark.parametrize("nbits", [4, 8])
def test_extremes_do_not_overflow_in_the_kernel(nbits):
    from gpuzip.kernels import scalar_scan as kernel

    codes, queries, want = extremes(4096, nbits)
    for tile in (kernel.Tile(64, 64, 64, True), kernel.Tile(4, 128, 16, False)):
        got = kernel.scalar_scan(codes, queries, torch.ones(5), *[None] * 4, nbits, 1, tile)
        assert torch.equal(got, want.float())


@pytest.mark.full
@needs_triton
@pytest.mark.parametrize(
    ("D", "nbits", "group"), [(96, 8, 1), (96, 4, 64), (35, 8, 1024), (35, 4, 1), (528, 8, 128)]
)
def test_every_tile_gives_the_same_bytes(D, nbits, group):
    from gpuzip.kernels import scalar_scan as kernel

    args = (*inputs(9, 300, D, nbits)[:7], nbits, group)
    want = OPS["scalar_scan"].reference(*args)
    for tile in TILES:
        assert torch.equal(kernel.scalar_scan(*args, kernel.Tile(*tile)), want), tile


@needs_triton
def test_plain_products_stand_in_where_the_tensor_core_form_does_not_compile(monkeypatch):
    from gpuzip.kernels import _launch
    from gpuzip.kernels import scalar_scan as kernel

    def fails(*args):
        raise RuntimeError("PassManager::run failed")

    monkeypatch.setattr(_launch, "FALLEN", {})
    monkeypatch.setattr(kernel, "_launch_products", fails)
    args = (*inputs(9, 50, 7, 8)[:7], 8, 2)
    want = OPS["scalar_scan"].reference(*args)
    with pytest.warns(UserWarning, match="_scalar_scan"):
        assert torch.equal(kernel.scalar_scan(*args), want)
    with warnings.catch_warnings():  # said once
        warnings.simplefilter("error", UserWarning)
        assert torch.equal(kernel.scalar_scan(*args), want)


@needs_triton
def test_tiles():
    from gpuzip.kernels import scalar_scan as kernel

    tile = kernel._tile
    assert tile(1, 384, 8, 1024, "cuda 90") == (16, 64, 128, True, 0)
    assert tile(17, 192, 4, 1024, "cuda 90") == (32, 64, 64, True, 0)
    assert tile(1000, 384, 8, 1024, "cuda 90") == (64, 64, 64, True, 168)  # three programs an SM
    assert tile(1000, 384, 8, 1, "cuda 90") == (64, 64, 64, True, 0)
    assert tile(1000, 384, 8, 32, "cuda 90") == (128, 64, 128, True, 0)
    assert tile(1000, 192, 4, 1024, "cuda 100") == (32, 64, 64, True, 0)
    assert tile(1000, 384, 8, 1024, "cuda 80") == (64, 64, 64, True, 0)
    assert tile(1000, 192, 4, 1024, "cuda 90") == (64, 64, 64, True, 0)
    assert tile(1000, 192, 4, 1024, "cuda 80") == (32, 64, 64, True, 0)
    assert tile(1000, 31, 8, 1024, "cuda 90") == (32, 64, 32, True, 0)
