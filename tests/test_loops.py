"""Compiled loops beside plain torch, on shapes that nobody would think of."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gpuzip.ops import OPS, code_bytes
from gpuzip.ops._samples import anisotropic, generator, random_codes

pytest.importorskip("numba")

# Loops are reached by name, as operators reach them.
LOOPS = {
    name: getattr(importlib.import_module(f"gpuzip.loops.{module}"), name)
    for name, module in {
        "assign": "assign",
        "encode": "encode",
        "kmeans_step": "kmeans_step",
        "centroid_sums": "centroid_sums",
        "decode": "decode",
        "pack_bits": "bits",
        "unpack_bits": "bits",
        "bucketize": "bucketize",
        "beam_search": "beam_search",
    }.items()
}
FEW = settings(deadline=None, max_examples=25)
DTYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16])
ROWS, SUBSPACES = st.integers(0, 300), st.integers(1, 5)
LENGTHS = st.sampled_from([1, 2, 3, 6, 8, 16, 17, 33])  # each compiles loops of its own, up to 16


def same(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=0, atol=0)


def spread(t: Tensor) -> Tensor:
    """The same values, two apart in memory in every dimension."""
    wide = torch.zeros([2 * n for n in t.shape], dtype=t.dtype)
    return wide[tuple(slice(None, None, 2) for _ in t.shape)].copy_(t)


def codebook(M: int, K: int, S: int, seed: int = 1) -> Tensor:
    return anisotropic(K, M * S, seed).view(K, M, S).transpose(0, 1).contiguous()


def distances(x: Tensor, centroids: Tensor) -> Tensor:
    """(N, M, K) float64 of direct differences."""
    M, _, S = centroids.shape
    sub = x.double().view(-1, M, 1, S)
    return (sub - centroids.double()).square().sum(-1)


def check_labels(x: Tensor, centroids: Tensor, labels: Tensor) -> None:
    """As near as float32 differences can tell: no products, which lose the digits of distant rows."""
    every = distances(x, centroids)
    least = every.amin(2)
    chosen = every.gather(2, labels.long()[:, :, None])[:, :, 0]
    torch.testing.assert_close(chosen, least, rtol=1e-5, atol=1e-30)


@FEW
@given(ROWS, SUBSPACES, st.integers(1, 300), LENGTHS, DTYPES, st.booleans())
def test_assign_finds_the_nearest(N, M, K, S, dtype, strided):
    x, centroids = anisotropic(N, M * S).to(dtype), codebook(M, K, S)
    labels = LOOPS["assign"](*((spread(x), spread(centroids)) if strided else (x, centroids)))
    assert labels.dtype == (torch.uint8 if K <= 256 else torch.int32)
    check_labels(x, centroids, labels)


@FEW
@given(ROWS, SUBSPACES, st.integers(1, 300), LENGTHS)
def test_assign_gives_the_lowest_index_of_a_tie(N, M, K, S):
    values = torch.randint(0, 2, (N + K, M * S), generator=generator(N + K)).float()
    x, centroids = values[:N], values[N:].view(K, M, S).transpose(0, 1)
    same(LOOPS["assign"](x, centroids), OPS["assign"].reference(x, centroids))


@pytest.mark.parametrize("S", [5, 20])
def test_assign_far_from_the_origin(S):
    x, centroids = anisotropic(200, 2 * S) + 1000, codebook(2, 37, S) + 1000
    check_labels(x, centroids, LOOPS["assign"](x, centroids))


@pytest.mark.parametrize("S", [3, 17])
def test_assign_of_values_that_are_no_numbers(S):
    x = torch.full((3, S), float("nan"))
    x[1], x[2] = float("inf"), 3e38
    centroids = torch.randn(1, 6, S, generator=generator())
    same(LOOPS["assign"](x, centroids), torch.zeros((3, 1), dtype=torch.uint8))


@FEW
@given(ROWS, st.integers(1, 20), st.integers(1, 10), LENGTHS, DTYPES)
def test_encode_is_assign_and_pack(N, M, nbits, S, dtype):
    x, centroids = anisotropic(N, M * S).to(dtype), codebook(M, 1 << nbits, S)
    labels = LOOPS["assign"](x, centroids)
    same(LOOPS["encode"](x, centroids), OPS["pack_bits"].reference(labels, nbits))


@FEW
@given(st.integers(0, 600), st.integers(1, 40), st.integers(1, 300), LENGTHS)
def test_kmeans_step_is_assign_and_sums(N, M, K, S):
    x, centroids = anisotropic(N, M * S), codebook(M, K, S)
    check_sums(LOOPS["kmeans_step"](x, centroids), x, LOOPS["assign"](x, centroids), K)


@FEW
@given(st.integers(0, 600), st.integers(1, 40), st.integers(1, 300), LENGTHS, st.booleans())
def test_centroid_sums(N, M, K, S, strided):
    x, labels = anisotropic(N, M * S), random_codes(N, M, K)
    check_sums(
        LOOPS["centroid_sums"](*((spread(x), spread(labels)) if strided else (x, labels)), K), x, labels, K
    )


def check_sums(found, x, labels, K):
    """Counts are exact. A float32 sum of n terms, in any order, is off by at most n roundings of them."""
    sums, counts = OPS["centroid_sums"].reference(x, labels, K)
    sizes = OPS["centroid_sums"].reference(x.abs(), labels, K)[0]
    assert torch.equal(found[1], counts)
    assert bool(((found[0] - sums).abs() <= 2 * 2.0**-24 * counts[:, :, None] * sizes).all())


def test_centroid_sums_refuses_labels_that_would_be_written_elsewhere():
    for label in (-1, 3):
        with pytest.raises(IndexError, match="label"):
            LOOPS["centroid_sums"](torch.ones(2, 4), torch.full((2, 2), label, dtype=torch.int32), 3)


@pytest.mark.parametrize("name", ["kmeans_step", "centroid_sums", "encode", "assign"])
def test_the_same_bytes_for_any_number_of_threads(name):
    x, centroids, threads = anisotropic(5000, 60), codebook(12, 16, 5), torch.get_num_threads()
    args = (x, random_codes(5000, 12, 16), 16) if name == "centroid_sums" else (x, centroids)
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found = LOOPS[name](*args)
            results.append(found if isinstance(found, tuple) else (found,))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@FEW
@given(ROWS, st.integers(1, 40), st.integers(1, 16), st.booleans())
def test_bits(N, M, nbits, strided):
    values = random_codes(N, M, 1 << nbits)
    packed = LOOPS["pack_bits"](spread(values) if strided else values, nbits)
    same(packed, OPS["pack_bits"].reference(values, nbits))
    same(LOOPS["unpack_bits"](spread(packed) if strided else packed, M, nbits), values)


@pytest.mark.full
@FEW
@given(
    st.integers(1, 300), st.integers(1, 9), st.integers(1, 10), LENGTHS, DTYPES, st.booleans(), st.booleans()
)
def test_decode(N, M, nbits, S, dtype, strided, chosen):
    codes, centroids = random_codes(N, M, 1 << nbits), codebook(M, 1 << nbits, S).to(dtype)
    packed = OPS["pack_bits"].reference(codes, nbits)
    ids = torch.randint(0, N, (N // 2,), generator=generator(N)) if chosen else None
    want = OPS["decode"].reference(packed, centroids, ids)
    same(
        LOOPS["decode"](*((spread(packed), spread(centroids)) if strided else (packed, centroids)), ids), want
    )


def test_decode_of_codes_that_do_not_lie_together():
    codes, centroids = random_codes(9, 8, 16), codebook(8, 16, 1)
    packed, ids = OPS["pack_bits"].reference(codes, 4), torch.tensor([8, 0, 3])
    for some in (None, ids):
        want = OPS["decode"].reference(packed, centroids, some)
        same(LOOPS["decode"](spread(packed), spread(centroids), some), want)


@pytest.mark.parametrize(("M", "nbits", "S", "dtype"), [(3, 5, 7, torch.float16), (7, 8, 9, torch.float32)])
def test_decode_in_blocks(M, nbits, S, dtype, monkeypatch):
    """More rows than a block holds, some of which are not there."""
    monkeypatch.setattr(sys.modules[LOOPS["decode"].__module__], "_BLOCK", 1 << 12)
    codes, centroids = random_codes(1003, M, 1 << nbits), codebook(M, 1 << nbits, S).to(dtype)
    packed = OPS["pack_bits"].reference(codes, nbits)
    ids = torch.randint(-9, 1012, (2000,), generator=generator())
    for some in (None, ids):
        same(LOOPS["decode"](packed, centroids, some), OPS["decode"].reference(packed, centroids, some))


def test_decode_of_no_rows_and_of_rows_that_are_not_there():
    packed, centroids = torch.zeros((4, 2), dtype=torch.uint8), codebook(2, 256, 3)
    assert LOOPS["decode"](packed[:0], centroids).shape == (0, 6)
    assert LOOPS["decode"](packed, centroids, torch.tensor([], dtype=torch.int64)).shape == (0, 6)
    same(
        LOOPS["decode"](packed, centroids, torch.tensor([3, 3], dtype=torch.int32)),
        centroids[:, :1].reshape(1, 6).expand(2, 6),
    )
    for row in (-1, 4):
        same(LOOPS["decode"](packed, centroids, torch.tensor([row])), torch.zeros(1, 6))


@FEW
@given(ROWS, st.integers(1, 40), st.integers(1, 255), DTYPES, st.booleans())
def test_bucketize(N, D, L, dtype, shared):
    x = anisotropic(N, D).to(dtype)
    boundaries = anisotropic(L, 1 if shared else D, seed=2).to(dtype).float().T.sort(1).values
    if N:
        x[0, 0] = float("nan")
        x[-1, -1] = boundaries[-1, 0].item()
    columns = boundaries.expand(D, L).contiguous()
    want = torch.stack([torch.bucketize(x[:, d].float().contiguous(), columns[d]) for d in range(D)], 1)
    same(LOOPS["bucketize"](spread(x), spread(boundaries)), want.to(torch.uint8))


@pytest.mark.parametrize("scale", [None, 0.3, 1, 8])  # of whole numbers: few values and many ties, or none
@pytest.mark.parametrize(
    ("P", "M", "K", "beam"),
    [
        (2, 4, 16, 5),
        (1, 5, 16, 16),
        (1, 4, 32, 17),
        (1, 3, 64, 64),
        (1, 6, 256, 5),
        (1, 4, 256, 40),
        (1, 5, 8, 7),
    ],
)
def test_beam_search_keeps_the_least_of_any_beam(P, M, K, beam, scale):
    g = generator(K + beam)
    products, cross = (
        torch.randn(7, P, M, K, generator=g),
        torch.randn(P, M * (M - 1) // 2, K, K, generator=g),
    )
    if scale:
        products, cross = products.mul(scale).round(), cross.mul(scale).round()
    same(LOOPS["beam_search"](products, cross, beam), OPS["beam_search"].reference(products, cross, beam))


def test_code_bytes_is_what_encode_writes():
    x, centroids = anisotropic(2, 9), codebook(3, 8, 3)
    assert LOOPS["encode"](x, centroids).shape == (2, code_bytes(3, 3))


def test_loops_make_no_arrays():
    """A function that numba compiles takes memory of its caller: numba's own takes long to compile."""
    makers = {"empty", "zeros", "ones", "full", "arange", "array", "empty_like", "zeros_like", "concatenate"}
    found = []
    for path in sorted((Path(__file__).parents[1] / "gpuzip" / "loops").glob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef) or not any(map(is_jit, function.decorator_list)):
                continue
            calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
            made = [call.attr for call in calls if isinstance(call, ast.Attribute) and call.attr in makers]
            found += [(path.name, function.name, name) for name in made]
    assert found == []


def is_jit(decorator):
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Name) and called.id == "jit"
