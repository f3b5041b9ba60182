"""Both scans of packed codes: against FAISS, by plain loops, at any tile, and with a mask of allowed rows."""

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gpuzip
from gpuzip.ops import OPS, adc_gather, adc_scan, pack_bits, product_scan
from gpuzip.search.scorers import rounding, tables
from gpuzip.search.scorers.common import normalized

METRICS = ["l2", "ip", "cosine"]
needs_interpreter = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or torch.cuda.is_available(),
    reason="the interpreter stands in for a GPU",
)


def kernel(op):
    module, _, launcher = OPS[op].kernel.partition(":")
    return getattr(importlib.import_module(module), launcher)


def inputs(Q, N, M, nbits, S=4, seed=0):
    g, K = torch.Generator().manual_seed(seed), 1 << nbits
    packed = pack_bits(
        torch.randint(0, K, (N, M), generator=g).to(torch.uint8 if nbits <= 8 else torch.int32), nbits
    )
    table = torch.randn(M, K, S, generator=g) / (M * S) ** 0.5
    lut, scale = torch.randn(Q, M, K, generator=g), torch.rand(N, generator=g)
    queries, bias = torch.randn(Q, M * S, generator=g), torch.randn(N, generator=g)
    return packed, table.half(), lut, queries.half(), scale, bias, torch.rand(N, generator=g) < 0.5


def test_product_scan_by_loops():
    packed, table, _, queries, scale, bias, mask = inputs(2, 11, 3, 2)
    codes = OPS["unpack_bits"].call(packed, 3, 2).tolist()
    for implementation in (OPS["product_scan"].reference, OPS["product_scan"].cpu):
        got = implementation(packed, table, queries, scale, bias, mask, 4)
        for q in range(2):
            want = [float("-inf")] * 3
            for n in range(11):
                x = [float(v) for m in range(3) for v in table[m, codes[n][m]]]
                key = sum(a * float(b) for a, b in zip(x, queries[q], strict=True))
                if mask[n]:
                    want[n // 4] = max(want[n // 4], key * float(scale[n]) + float(bias[n]))
            assert got[q].tolist() == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("group", [1, 16])
def test_bfloat16_on_a_cpu_is_rounded_once_more(group):
    """The bound that product_scan states: 2**-8 of the product."""
    packed, table, _, queries, *_ = inputs(40, 5000, 6, 8)
    table, queries = table.bfloat16(), queries.bfloat16()
    want = OPS["product_scan"].reference(packed, table, queries, None, None, None, group)
    got = product_scan(packed, table, queries, group=group)
    assert bool(((got - want).abs() <= 2**-8 * want.abs() + 1e-6).all())


@pytest.mark.parametrize("nbits", [4, 8, 3])
def test_masked_rows_are_minus_infinity_and_change_nothing_else(nbits):
    packed, table, lut, queries, scale, bias, mask = inputs(3, 5000, 6, nbits)
    plain = adc_scan(packed, lut, scale)
    masked = adc_scan(packed, lut, scale, 1, mask)
    assert torch.equal(masked, plain.masked_fill(~mask, float("-inf")))
    ids = torch.arange(-1, 5001).expand(3, -1)
    gathered = adc_gather(packed, lut, scale, ids, mask)
    assert torch.equal(gathered[:, 1:-1], masked)
    assert bool(gathered[:, [0, -1]].isneginf().all())
    plain = product_scan(packed, table, queries, scale, bias)
    masked = product_scan(packed, table, queries, scale, bias, mask)
    assert torch.equal(masked, plain.masked_fill(~mask, float("-inf")))
    for scan in (
        adc_scan(packed, lut, None, 64, mask & False),
        product_scan(packed, table, queries, mask=mask & False),
    ):
        assert bool(scan.isneginf().all())


@pytest.mark.full
@needs_interpreter
@pytest.mark.parametrize("nbits", [4, 8])
def test_every_tile_of_a_table_scan_gives_the_same_bits(nbits):
    """Words at any width, codes one by one, entries from shared memory or not, two runs, and adc_gather."""
    from gpuzip.kernels.adc import Tile

    M = 16 if nbits == 8 else 31
    packed, _, lut, _, scale, _, mask = inputs(2, 70, M, nbits)
    scan, gather = kernel("adc_scan"), kernel("adc_gather")
    want = scan(packed, lut, scale, mask, 1)
    torch.testing.assert_close(want, OPS["adc_scan"].reference(packed, lut, scale, mask, 1))
    ids = torch.arange(70).expand(2, -1).contiguous()
    for tile in (None, Tile(64, True, 1), Tile(64, False, 2), Tile(32, True, 4), Tile(128, False, 0)):
        assert torch.equal(scan(packed, lut, scale, mask, 1, tile=tile), want)
        assert torch.equal(gather(packed, lut, scale, mask, ids, tile=tile), want)
    extras = torch.randn(70, 2), torch.randn(2, 2)
    more = scan(packed, lut, scale, mask, 1, *extras)
    torch.testing.assert_close(more, want + extras[1] @ extras[0].T)
    for tile in (Tile(64, True, 1), Tile(32, True, 4), Tile(128, False, 0)):
        assert torch.equal(scan(packed, lut, scale, mask, 1, *extras, tile=tile), more)
        assert torch.equal(gather(packed, lut, scale, mask, ids, *extras, tile=tile), more)
    groups = [[float(part.max()) for part in row.split(16)] for row in want]
    assert scan(packed, lut, scale, mask, 16, tile=Tile(32, True, 2)).tolist() == groups


@pytest.mark.full
@needs_interpreter
@pytest.mark.parametrize("group", [1, 8, 64])
@pytest.mark.parametrize(
    ("nbits", "S", "tiles"),
    [
        (8, 4, [(32, 16, 4, 4, True), (64, 32, 8, 4, False)]),
        (4, 3, [(32, 16, 2, 8, True), (16, 16, 4, 8, False)]),  # joined and padded: S is 8
        (8, 64, [(32, 16, 1, 16, True), (64, 16, 1, 64, False)]),
    ],
)
def test_every_tile_of_a_product_scan_is_as_near(nbits, S, tiles, group):
    from gpuzip.kernels.product_scan import Tile

    packed, table, _, queries, scale, bias, mask = inputs(19, 150, 6 if S < 64 else 2, nbits, S)
    scan = kernel("product_scan")
    want = OPS["product_scan"].reference(packed, table, queries, scale, bias, mask, group)
    for tile in (None, *map(Tile._make, tiles)):
        torch.testing.assert_close(scan(packed, table, queries, scale, bias, mask, group, tile=tile), want)


@needs_interpreter
def test_the_plain_form_runs_where_the_matrix_units_cannot(monkeypatch):
    from gpuzip.kernels import product_scan as module

    packed, table, _, queries, scale, bias, mask = inputs(19, 150, 6, 8)
    want = OPS["product_scan"].reference(packed, table, queries, scale, bias, mask, 8)
    for fallen in ("matrix units", "S < 8"):  # S is 4: it is padded to 8

        def launch_or(name, fast, simple, fallen=fallen):
            return simple() if fallen in name else fast()

        monkeypatch.setattr(module, "launch_or", launch_or)
        torch.testing.assert_close(module.product_scan(packed, table, queries, scale, bias, mask, 8), want)


def test_tiles():
    pytest.importorskip("triton")
    from gpuzip.kernels import adc
    from gpuzip.kernels import product_scan as product

    assert adc._tile(10**6, 12, 256, 64) == (1024, True, 4)
    assert adc._tile(10**6, 12, 16, 64) == (1024, True, 4)
    assert adc._tile(10**6, 11, 256, 1) == (1024, True, 1)
    assert adc._tile(10**6, 12, 256) == (512, True, 4)
    assert adc._tile(100, 12, 512) == (256, False, 0)
    assert adc._tile(100, 0, 256, 1024) == (1024, True, 0)
    assert product._tile(1000, 8, True) == (128, 128, 8, 8, True)
    assert product._tile(1, 256, True) == (128, 16, 1, 32, True)
    assert product._tile(1000, 1, False) == (128, 32, 16, 1, False)


def faiss_index(real, metric, nbits):
    faiss = pytest.importorskip("faiss")
    m = 48 if nbits == 8 else 96
    index = faiss.IndexPQ(384, m, nbits, faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT)
    index.pq.cp.niter, index.pq.cp.min_points_per_centroid = 2, 1
    index.train(real[:2000].numpy())
    index.add(real[:600].numpy())
    return faiss, index


@pytest.mark.parametrize("nbits", [4, 8])
@pytest.mark.parametrize("metric", ["l2", pytest.param("ip", marks=pytest.mark.full)])
@pytest.mark.parametrize("path", ["cpu", "kernel"])
def test_both_scans_give_the_distances_of_faiss(real, real_queries, metric, nbits, path):
    if path == "kernel" and (torch.cuda.is_available() or importlib.util.find_spec("triton") is None):
        pytest.skip("the interpreter stands in for a GPU")
    faiss, index = faiss_index(real, metric, nbits)
    N, Q, n = 600, 3, 600 if path == "cpu" else 130
    distances, ids = index.search(real_queries[:Q].numpy(), N)
    want = torch.empty(Q, N).scatter_(1, torch.from_numpy(ids), torch.from_numpy(distances))[:, :n]
    codec = gpuzip.from_faiss(index.pq)
    assert isinstance(codec, gpuzip.ProductQuantizer)
    packed = torch.from_numpy(faiss.vector_to_array(index.codes).reshape(N, -1))[:n].contiguous()
    codes = gpuzip.Codes(codec, packed)
    scorer = tables.LutScorer(codes.packed, codec.centroids, real_queries[:Q], metric)
    sign = -1 if metric == "l2" else 1
    scan, product = (
        (OPS["adc_scan"].call, OPS["product_scan"].call)
        if path == "cpu"
        else map(kernel, ("adc_scan", "product_scan"))
    )
    by_table = sign * scan(packed, scorer._lut, None, None, 1)
    torch.testing.assert_close(by_table, want, rtol=1e-4, atol=1e-5)
    bias = None if metric == "ip" else codes.norms.square().mul(-0.5)
    half = product(packed, codec.centroids.half(), real_queries[:Q].half(), None, bias, None, 1)
    if metric == "l2":
        half = real_queries[:Q].square().sum(1, keepdim=True) - 2 * half
    torch.testing.assert_close(half, want, rtol=0, atol=2e-3)  # float16 factors of unit vectors


@needs_interpreter
@pytest.mark.parametrize("metric", METRICS)
def test_the_ceiling_holds_for_the_kernel_with_float16(real, real_queries, metric, monkeypatch):
    """What a GPU does: float16 factors, scaled, products in float32."""
    codes = gpuzip.compress(real[:300], 48)
    centroids = codes.codec.state()["centroids"].float()
    monkeypatch.setattr(tables, "_product_dtype", lambda device: torch.float16)
    fast = tables.ProductScorer(codes.packed, centroids, unit(real_queries[:16], metric), metric)
    keys = fast.exact().group_max(1)
    monkeypatch.setattr(tables, "product_scan", kernel("product_scan"))
    ceiling = fast.ceiling(fast.group_max(1))
    assert bool((keys <= ceiling).all())
    torch.testing.assert_close(ceiling, keys, rtol=0, atol=5e-3)


def unit(queries, metric):
    return queries / queries.norm(dim=1, keepdim=True) if metric == "cosine" else queries


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("of_rows", [2.0**-90, 2.0**-30, 1.0, 2.0**20, 2.0**55])
@pytest.mark.parametrize("of_queries", [2.0**-90, 2.0**-30, 1.0, 2.0**20, 2.0**55])
def test_the_ceiling_holds_at_any_magnitude(metric, of_queries, of_rows, monkeypatch):
    """Queries 2**40 apart in one call, centroids that float16 loses: the bound may be wide, never wrong."""
    monkeypatch.setattr(tables, "_product_dtype", lambda device: torch.float16)
    g = torch.Generator().manual_seed(0)
    centroids = torch.randn(4, 16, 6, generator=g) * of_rows
    centroids[1, :8] *= 2.0**-26
    queries = torch.randn(9, 24, generator=g) * of_queries
    queries[3] *= 2.0**-40
    queries[4] = 0
    codec = gpuzip.ProductQuantizer(4, 4, fitted=gpuzip.codecs.pq.Codebook(centroids, 24))
    codes = gpuzip.Codes(codec, torch.randint(0, 256, (500, 2), generator=g).byte())
    queries = normalized(queries) if metric == "cosine" else queries
    fast = tables.ProductScorer(codes.packed, centroids, queries, metric)
    ceiling, exact = fast.ceiling(fast.group_max(1)), fast.exact().group_max(1)
    assert not bool((exact > ceiling).any())


def test_the_error_of_rows_is_a_bound(real):
    """|x - x'| <= u |x| + t for real codebooks and for values below float16's normal range."""
    centroids = gpuzip.compress(real[:600], 48).codec.state()["centroids"].float()
    for scale in (1.0, 2.0**-16, 2.0**-22):
        x = centroids * scale
        rounded = x.half().float()
        t = rounding.error_of_rows(x, rounded, torch.float16)
        rows = torch.randint(0, x.shape[1], (200, len(x)), generator=torch.Generator().manual_seed(1))
        every = torch.arange(len(x))
        error = (x - rounded)[every, rows].flatten(1).norm(dim=1)
        assert bool((error <= 2.0**-11 * x[every, rows].flatten(1).norm(dim=1) + t).all())


def test_centroids_of_nothing_but_zeros_are_not_scaled():
    product = rounding.product_of(torch.zeros(2, 4, 2), torch.float16, 2.0**-11)
    assert product.scale == 1.0 and product.row_error == 0.0


OFFSETS = """
import re
from tools.compile_gate import compile_for
from tools.gate import build

texts = {}
def keep(row, kernel):
    texts[str(row)] = kernel.asm["ttir"]
    return build.Built(row)
build._read = keep
compile_for("sm_90", ["adc_scan", "adc_gather", "product_scan"])
found = set()
for label, text in texts.items():
    for name in ("packed", "scale", "bias", "mask", "out"):
        bases = {"%" + name + "_ptr"}
        bases |= set(re.findall(rf"(%\\w+) = tt.splat %{name}_ptr(?: |$)", text, re.MULTILINE))
        for base, offset in re.findall(r"tt.addptr (%\\w+), %\\w+ : [^,]*, (?:tensor<[^>]*x)?(i\\d+)", text):
            if base in bases:
                found.add(name)
                assert offset == "i64", (label, name, offset)
assert found == {"packed", "scale", "bias", "mask", "out"}, found
"""


@pytest.mark.full
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
def test_offsets_of_rows_are_64_bits_in_every_specialisation():
    """No tensor of more than 2**31 rows fits in a test; the compiled text shows how its rows are found."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-W", "ignore", "-c", OFFSETS], cwd=root, env=environment, check=True)
