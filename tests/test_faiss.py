"""FAISS as the outside oracle: codes, distances, objective, layout, and both ways of conversion."""

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip.codecs.pq import Codebook
from gpuzip.kmeans import kmeans
from gpuzip.ops import adc_scan, pack_bits

faiss = pytest.importorskip("faiss")

SHAPES = [(48, 8), (96, 4), (24, 6), (32, 5), (128, 3), (16, 9), (12, 10)]


def codec_of(pq) -> gpuzip.ProductQuantizer:
    codec = gpuzip.from_faiss(pq)
    assert isinstance(codec, gpuzip.ProductQuantizer)
    return codec


def trained(x, m, nbits):
    pq = faiss.ProductQuantizer(x.shape[1], m, nbits)
    pq.cp.niter, pq.cp.min_points_per_centroid = 4, 1
    pq.train(x.numpy())
    return pq


@pytest.mark.parametrize(("m", "nbits"), SHAPES)
def test_the_same_codebook_gives_the_same_bytes(real, m, nbits):
    pq = trained(real[:2048], m, nbits)
    ours, theirs = codec_of(pq).encode(real).data, torch.from_numpy(pq.compute_codes(real.numpy()))
    assert ours.shape == theirs.shape
    differ = (ours != theirs).any(1).nonzero().view(-1)
    assert len(differ) <= 5e-6 * len(real) * m
    check_ties(pq, real[differ], ours[differ], theirs[differ])


def check_ties(pq, x, ours, theirs):
    """Where bytes differ, both choices are as near within 1e-5 of (distance + |x|^2)."""
    if not len(x):
        return
    S = pq.dsub
    distance = [
        (x - torch.from_numpy(pq.decode(c.numpy()))).view(-1, pq.M, S).square().sum(-1)
        for c in (ours, theirs)
    ]
    allowed = 1e-5 * (distance[1] + x.view(-1, pq.M, S).square().sum(-1))
    assert bool(((distance[0] - distance[1]).abs() <= allowed).all())


@pytest.mark.parametrize(("m", "nbits"), SHAPES)
def test_decoded_rows_are_equal(real, m, nbits):
    pq = trained(real[:2048], m, nbits)
    codes = codec_of(pq).encode(real[:500])
    assert np.array_equal(codes.decode().numpy(), pq.decode(codes.data.numpy()))


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize(("m", "nbits"), SHAPES)
def test_search_is_index_pq_search(real, real_queries, m, nbits, metric):
    pq = trained(real[:2048], m, nbits)
    codes = codec_of(pq).encode(real)
    index = gpuzip.to_faiss(codes, metric)
    for queries in (real_queries[:3], real_queries[:150]):
        want, want_ids = index.search(queries.numpy(), 10)
        values, ids = codes.search(queries, 10, metric)
        np.testing.assert_allclose(values.numpy(), want, rtol=2e-5, atol=2e-6)
        differ = ids != torch.from_numpy(want_ids)  # rows of equal score, in another order
        ours, theirs = (exact_scores(codes, queries, i, metric) for i in (ids, torch.from_numpy(want_ids)))
        torch.testing.assert_close(ours[differ], theirs[differ], rtol=2e-5, atol=2e-6)


def exact_scores(codes, queries, ids, metric):
    rows = codes.decode()[ids].double()
    difference = rows - queries[:, None].double()
    return difference.square().sum(-1) if metric == "l2" else (rows * queries[:, None]).sum(-1)


def test_adc_table_sums_are_faiss_distances(real):
    pq = trained(real[:2048], 48, 8)
    codes = codec_of(pq).encode(real[:1000])
    table = np.empty((48, 256), np.float32)
    pq.compute_distance_table(faiss.swig_ptr(real[7:8].numpy()), faiss.swig_ptr(table))
    scores = adc_scan(codes.data, torch.from_numpy(table)[None])[0]
    expected = ((real[7] - codes.decode()) ** 2).sum(1)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("nbits", range(1, 17))
def test_bit_layout_is_faiss_bitstring(nbits):
    values = np.random.default_rng(nbits).integers(0, 1 << nbits, (50, 7))
    ours = pack_bits(torch.from_numpy(values.astype(np.int32)), nbits).numpy()
    theirs = np.zeros_like(ours)
    for row, out in zip(values, theirs, strict=True):
        writer = faiss.BitstringWriter(faiss.swig_ptr(out), len(out))
        for value in row:
            writer.write(int(value), nbits)
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(("m", "nbits", "n"), [(48, 8, 3000), (64, 4, 1000), (96, 4, 8000)])
def test_objective_is_within_a_percent_of_faiss(real, m, nbits, n):
    """Means over three seeds: one run's luck is larger than a percent."""
    x, K = real[:n], 1 << nbits
    ours, theirs = [], []
    for seed in range(3):
        centroids = kmeans(x, m, K, seed=seed).centroids
        codec = gpuzip.ProductQuantizer(m, nbits, codebook=Codebook(centroids, 384))
        ours.append(float((codec.encode(x).decode() - x).square().sum()))
        pq = faiss.ProductQuantizer(384, m, nbits)
        pq.cp.seed, pq.cp.min_points_per_centroid = 1234 + seed, 1
        pq.train(x.numpy())
        theirs.append(float(np.square(pq.decode(pq.compute_codes(x.numpy())) - x.numpy()).sum()))
    assert np.mean(ours) <= 1.01 * np.mean(theirs)


@pytest.mark.parametrize(("m", "nbits"), [(48, 8), (96, 4), (24, 6), (16, 9)])
def test_there_and_back(real, m, nbits):
    codes = (
        gpuzip.ProductQuantizer(m, nbits).fit(real, n_iter=2, min_points_per_centroid=1).encode(real[:300])
    )
    index = gpuzip.to_faiss(codes)
    assert np.array_equal(faiss.vector_to_array(index.codes).reshape(300, -1), codes.data.numpy())
    back = gpuzip.from_faiss(index)
    assert isinstance(back, gpuzip.Codes)
    assert torch.equal(back.data, codes.data)
    assert torch.equal(back.decode(), codes.decode())
    pq = gpuzip.to_faiss(codes.codec)
    assert np.array_equal(pq.compute_codes(real[:300].numpy()), codes.data.numpy())


def test_an_index_survives_its_own_file(real, tmp_path):
    codes = gpuzip.compress(real[:500], 48, 6)
    faiss.write_index(gpuzip.to_faiss(codes, "ip"), str(tmp_path / "x.index"))
    back = gpuzip.from_faiss(faiss.read_index(str(tmp_path / "x.index")))
    assert isinstance(back, gpuzip.Codes)
    assert torch.equal(back.data, codes.data)


def test_what_has_no_twin_is_refused(real):
    padded = gpuzip.ProductQuantizer(m=7, nbits=4, pad=True).fit(real[:1000])
    with pytest.raises(gpuzip.GpuzipError, match="pads d=384 to a multiple of m=7"):
        gpuzip.to_faiss(padded)
    with pytest.raises(gpuzip.GpuzipError, match="IndexFlatL2 came"):
        gpuzip.from_faiss(faiss.IndexFlatL2(4))
    with pytest.raises(gpuzip.GpuzipError, match="metric is 'cosine'"):
        gpuzip.to_faiss(gpuzip.compress(real[:1000]), "cosine")
    with pytest.raises(gpuzip.NotFittedError, match="not fitted"):
        gpuzip.to_faiss(gpuzip.ProductQuantizer())
