"""Compares with USearch: the same bytes and the same neighbours."""

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip import GpuzipError

usearch = pytest.importorskip("usearch.index")

INT8 = gpuzip.ScalarQuantizer(range=(-128.5 / 127, 127.5 / 127), signed=True)


@pytest.fixture(scope="module")
def theirs(real):
    index = usearch.Index(ndim=384, metric="cos", dtype="i8")
    index.add(np.arange(2000), real[:2000].numpy())
    return index


@pytest.fixture(scope="module")
def ours(real):
    return INT8.fit(real).encode(real[:2000])


def vectors(index):
    return np.vstack(index.get(np.arange(len(index))))


def test_from_usearch_keeps_the_bytes_of_int8(real, theirs):
    codes = gpuzip.from_usearch(theirs)
    assert isinstance(codes.codec, gpuzip.ScalarQuantizer)
    np.testing.assert_array_equal(codes.data.numpy().view(np.int8), vectors(theirs))
    np.testing.assert_allclose(codes.decode().numpy(), vectors(theirs) / 127, atol=1e-6)
    cut = np.trunc(real[:2000].numpy() * 127)  # as USearch quantizes rows of norm 1
    assert np.mean(cut == vectors(theirs)) > 0.9999


def test_to_usearch_keeps_the_bytes(real, ours):
    index = gpuzip.to_usearch(ours)
    np.testing.assert_array_equal(vectors(index), ours.data.numpy().view(np.int8))
    np.testing.assert_array_equal(vectors(index), np.floor(real[:2000].numpy() * 127 + 0.5))
    back = gpuzip.from_usearch(index)
    assert torch.equal(back.data, ours.data)
    torch.testing.assert_close(back.decode(), ours.decode(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_int8_index_finds_the_same_neighbours(real_queries, ours, metric):
    index, asked = gpuzip.to_usearch(ours, metric), INT8.fit(real_queries).encode(real_queries[:50])
    found = index.search(asked.data.numpy().view(np.int8), 10, exact=True)
    values, ids = ours.search(asked.decode(), 10, metric)
    scale = {"cosine": 1, "ip": 127**2, "l2": 127**2}[metric]
    want = values * scale if metric == "l2" else 1 - values * scale
    tolerance = {"cosine": 2e-5, "ip": 1.0, "l2": 1.0}[metric]
    np.testing.assert_allclose(found.distances, want.numpy(), rtol=1e-5, atol=tolerance)
    differ = found.keys.astype(np.int64) != ids.numpy()
    assert differ.mean() < 0.02  # rows of equal distance in another order


def test_converts_bits_both_ways(real, real_queries):
    for d in (384, 77):
        codec = gpuzip.BinaryQuantizer("median").fit(real[:, :d])
        codes, asked = codec.encode(real[:, :d]), codec.encode(real_queries[:50, :d])
        index = gpuzip.to_usearch(codes)
        found = index.search(asked.data.numpy(), 10, exact=True)
        values, ids = codes.search(asked.data, 10, "hamming")
        np.testing.assert_array_equal(found.distances, values.numpy())
        differing = np.unpackbits(asked.data.numpy()[:, None] ^ codes.data.numpy()[found.keys], axis=-1).sum(
            -1
        )
        np.testing.assert_array_equal(differing, values.numpy())
        back = gpuzip.from_usearch(index)
        assert torch.equal(back.data, codes.data)
        assert back.codec.d == d
        assert torch.equal(back.search(asked.data, 10, "hamming")[1], ids)
        levels = torch.where(
            torch.from_numpy(np.unpackbits(codes.data.numpy(), axis=1)[:, :d]) > 0, 1.0, -1.0
        )
        assert torch.equal(back.decode(), levels)


def test_from_usearch_orders_rows_by_key(real):
    index = usearch.Index(ndim=384, metric="cos", dtype="i8")
    keys = np.random.default_rng(0).permutation(1000)[:500] * 7
    index.add(keys, real[:500].numpy())
    codes, found = gpuzip.from_usearch(index, return_keys=True)
    order = np.argsort(keys)
    assert found.tolist() == keys[order].tolist()
    assert torch.equal(gpuzip.from_usearch(index).data, codes.data)
    np.testing.assert_array_equal(codes.data.numpy().view(np.int8), np.vstack(index.get(keys[order])))
    assert float(torch.cosine_similarity(codes.decode(), real[torch.from_numpy(order)]).min()) > 0.99


def test_converts_an_index_that_was_saved_or_had_rows_removed(ours, tmp_path):
    index = gpuzip.to_usearch(ours)
    index.save(str(tmp_path / "x.usearch"))
    back = gpuzip.from_usearch(usearch.Index.restore(str(tmp_path / "x.usearch")))
    assert torch.equal(back.data, ours.data)
    index.remove(3)
    left = gpuzip.from_usearch(index)
    assert torch.equal(left.data, torch.cat([ours.data[:3], ours.data[4:]]))


def test_converts_symmetric_signed_codes_of_one_range(real):
    codes = gpuzip.ScalarQuantizer(symmetric=True, signed=True, per="tensor").fit(real).encode(real[:200])
    index = gpuzip.to_usearch(codes)
    assert np.array_equal(vectors(index), codes.data.numpy().view(np.int8))
    unit = float(codes.codec.state()["step"])
    torch.testing.assert_close(codes.decode(), torch.from_numpy(vectors(index)).float() * unit)


def test_converts_codes_without_rows(ours):
    index = gpuzip.to_usearch(ours[[]])
    assert len(index) == 0
    assert gpuzip.from_usearch(index).shape == (0, 384)


def test_refuses_what_usearch_cannot_hold(real, ours):
    x = real[:300]
    for codec in (gpuzip.ScalarQuantizer(), gpuzip.ScalarQuantizer(signed=True), gpuzip.ScalarQuantizer(4)):
        with pytest.raises(
            GpuzipError, match=r"must be int8 multiples of one step; got ScalarQuantizer\(.*Fit"
        ):
            gpuzip.to_usearch(codec.fit(x).encode(x))
    shifted = gpuzip.ScalarQuantizer(range=(-1, 1), signed=True).fit(x)
    with pytest.raises(GpuzipError, match="int8 multiples of one step"):
        gpuzip.to_usearch(shifted.encode(x))
    with pytest.raises(GpuzipError, match=r"codes must be of a BinaryQuantizer or of .*; got HalfQuantizer"):
        gpuzip.to_usearch(gpuzip.HalfQuantizer().fit(x).encode(x))
    with pytest.raises(
        GpuzipError, match=r"metric must be one of cosine, ip, l2 for an index of int8.*; got 'hamming'"
    ):
        gpuzip.to_usearch(ours, "hamming")
    with pytest.raises(GpuzipError, match=r"metric must be one of hamming for an index of bits.*; got 'ip'"):
        gpuzip.to_usearch(gpuzip.BinaryQuantizer().fit(x).encode(x), "ip")
    with pytest.raises(GpuzipError, match="codes must be Codes of one codec; got ScalarQuantizer"):
        gpuzip.to_usearch(ours.codec)
    with pytest.raises(GpuzipError, match=r"index must be a usearch\.index\.Index; got Tensor"):
        gpuzip.from_usearch(x)
    with pytest.raises(GpuzipError, match="the index must hold i8 or b1; got f32"):
        gpuzip.from_usearch(usearch.Index(ndim=4, dtype="f32"))
    with pytest.raises(GpuzipError, match=r"must hold one vector per key; got one with multi=True"):
        gpuzip.from_usearch(usearch.Index(ndim=4, dtype="i8", multi=True))
