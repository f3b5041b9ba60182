"""An inverted file of our codes finds what FAISS finds: all of it with all lists, and its own with few."""

import numpy as np
import pytest
import torch

import gpuzip

faiss = pytest.importorskip("faiss")

CODECS = {
    "pq": gpuzip.ProductQuantizer(m=48),
    "rotated": gpuzip.ProductQuantizer(m=48, nbits=4, rotation="balanced"),
    "scalar": gpuzip.ScalarQuantizer(bits=8),
    "half": gpuzip.HalfQuantizer(),
    "residual": gpuzip.ResidualQuantizer(m=4, nbits=4),
    "splits": gpuzip.ResidualQuantizer(m=2, nbits=4, nsplits=8),
}


@pytest.fixture(scope="module", params=CODECS)
def codes(request, real):
    return CODECS[request.param].fit_quietly(real[:1000]).encode(real[:1500])


def lists_of(index):
    return faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_all_lists_find_what_the_index_without_lists_finds(codes, real_queries, metric):
    index, flat = gpuzip.to_faiss(codes, metric, nlist=16), gpuzip.to_faiss(codes, metric)
    lists_of(index).nprobe = 16
    found, rows = index.search(real_queries[:50].numpy(), 10)
    want, expected = flat.search(real_queries[:50].numpy(), 10)
    np.testing.assert_allclose(found, want, rtol=2e-5, atol=2e-6)
    assert (rows == expected).mean() > 0.99  # but for rows of equal distance


def test_lists_hold_the_codes_as_they_are(codes):
    index = gpuzip.to_faiss(codes, nlist=16)
    again = gpuzip.from_faiss(index)
    assert torch.equal(again.data, codes.data[:])
    np.testing.assert_allclose(again.decode(), codes.decode(), atol=1e-5)
    sizes = [lists_of(index).invlists.list_size(i) for i in range(16)]
    assert sum(sizes) == 1500 and min(sizes) > 0


def test_few_lists_find_what_an_index_that_faiss_filled_finds(real, real_queries):
    codes = CODECS["pq"].fit_quietly(real[:1000]).encode(real[:3000])
    index = gpuzip.to_faiss(codes, nlist=32)
    coarse = faiss.downcast_index(index.quantizer)
    theirs = faiss.IndexIVFPQ(coarse, 384, 32, 48, 8)
    theirs.pq, theirs.by_residual, theirs.is_trained = index.pq, False, True
    theirs.add(codes.decode().numpy())
    theirs.nprobe = index.nprobe = 4
    (found, rows), (want, expected) = (one.search(real_queries[:100].numpy(), 10) for one in (index, theirs))
    np.testing.assert_allclose(found, want, rtol=1e-5)
    assert (rows == expected).mean() > 0.99
    exact = codes.search(real_queries[:100], 10, "l2").ids
    assert gpuzip.recall(torch.from_numpy(rows), exact) > 0.7


def test_an_index_outlives_what_it_was_made_of(real, real_queries, tmp_path):
    index = gpuzip.to_faiss(CODECS["half"].fit(real[:500]).encode(real[:500]), nlist=4)
    faiss.write_index(index, str(tmp_path / "lists.faiss"))
    again = faiss.read_index(str(tmp_path / "lists.faiss"))
    for one in (index, again):
        one.nprobe = 4
        assert one.search(real[:5].numpy(), 1)[1][:, 0].tolist() == list(range(5))


def test_what_has_no_lists_is_refused(real):
    codes = gpuzip.BinaryQuantizer().fit(real[:50]).encode(real[:50])
    with pytest.raises(gpuzip.GpuzipError, match="must be None for codes that become an IndexBinaryFlat"):
        gpuzip.to_faiss(codes, nlist=4)
    half = gpuzip.HalfQuantizer().fit(real[:50])
    with pytest.raises(gpuzip.GpuzipError, match="must be None for a codec"):
        gpuzip.to_faiss(half, nlist=4)
    with pytest.raises(gpuzip.GpuzipError, match="from 1 to 50, the number of rows; got 51"):
        gpuzip.to_faiss(half.encode(real[:50]), nlist=51)
