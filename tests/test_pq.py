"""ProductQuantizer and the one-call functions: embzip's behaviours, dtypes, shapes, edges."""

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip.codecs.pq import default_shape, nearest_divisors

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def cosine(a, b):
    a, b = a.flatten().double(), b.flatten().double()
    return float(a @ b / (a.norm() * b.norm()))


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# --- what embzip promises


def test_round_trip_keeps_the_shape_and_resembles_the_input():
    x = normal(100, 768)
    y = gpuzip.quantize(x)
    assert y.shape == x.shape
    assert not torch.allclose(x, y)
    assert 0.5 < cosine(x, y) < 1.0


def test_more_subquantizers_are_more_accurate():
    x = normal(100, 768)
    by_m = [cosine(x, gpuzip.quantize(x, m=m)) for m in (24, None, 96)]
    assert by_m == sorted(by_m)
    assert len(set(by_m)) == 3


@pytest.mark.parametrize("m", [24, 48, 96])
def test_a_file_gives_back_what_quantize_gives(tmp_path, m):
    x = normal(100, 768)
    gpuzip.save(x, tmp_path / "x.ezip", m=m)
    assert torch.equal(gpuzip.load(tmp_path / "x.ezip"), gpuzip.quantize(x, m=m))


def test_default_m():
    assert gpuzip.compress(normal(100, 768)).codec.config()["m"] == 48
    shapes = [default_shape(d, False) for d in (768, 384, 100, 16, 1, 1000)]
    assert shapes == [(m, False) for m in (48, 24, 5, 1, 1, 50)]


@pytest.mark.parametrize(("d", "m"), [(769, 48), (97, 6), (2 * 383, 47)])
def test_columns_without_a_near_divisor_are_padded(d, m):
    x = normal(200, d)
    codes = gpuzip.compress(x)
    assert codes.codec.config().items() >= {"m": m, "pad": True}.items()
    assert codes.codec.spec == f"PQ{m}x4(pad=True)" and codes.decode().shape == (200, d)
    with pytest.raises(gpuzip.GpuzipError, match=f"m must divide d={d}; got {m}"):
        gpuzip.compress(x, m)


def test_a_column_of_tiny_values_does_not_double_the_codebook(tmp_path):
    x = normal(500, 32)
    plain = gpuzip.save(x, tmp_path / "a.ezip", m=32).nbytes
    x[:, 3] *= 1e-7
    tiny = gpuzip.save(x, tmp_path / "b.ezip", m=32)
    assert abs(tiny.nbytes - plain) < 64
    exact = normal(16, 32) * 1e-7  # every row is a centroid: nothing may be added
    assert torch.equal(gpuzip.quantize(exact, m=1), exact)


def test_nearest_divisors():
    assert nearest_divisors(100, 48) == [50, 25, 20]
    assert nearest_divisors(384, 50) == [48, 64, 32]
    assert nearest_divisors(7, 3) == [1, 7]


# --- input of every kind


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_and_device_come_back(real, dtype):
    x = real[:600].to(dtype)
    y = gpuzip.quantize(x, m=48)
    assert (y.dtype, y.device) == (dtype, x.device)
    assert cosine(x, y) > 0.7


def test_float64_codes_are_the_float32_codes(real):
    codec = gpuzip.ProductQuantizer(48, 4).fit(real[:1000])
    assert torch.equal(codec.encode(real[:100].double()).data, codec.encode(real[:100]).data)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numpy_arrays_are_rows_too(real, dtype):
    x = real[:600].numpy().astype(dtype)
    y = gpuzip.quantize(x, m=48)
    assert y.dtype == torch.from_numpy(x).dtype
    assert torch.equal(y, gpuzip.quantize(torch.from_numpy(x), m=48))


def test_memory_maps_are_read_in_blocks(real, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", real[:3000].numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    codec = gpuzip.ProductQuantizer(48, 4).fit(mapped)
    monkeypatch.setattr("gpuzip._core.rows.BLOCK_BYTES", 1 << 20)
    assert torch.equal(codec.encode(mapped).data, codec.encode(real[:3000]).data)


def test_strides_do_not_matter(real):
    wide = torch.zeros(1200, 768)
    strided = wide[::2, ::2]
    strided.copy_(real[:600])
    transposed = real[:600].T.contiguous().T
    want = gpuzip.compress(real[:600], 48)
    for x in (strided, transposed, transposed.numpy(), strided.numpy(), strided.numpy()[::-1][::-1]):
        assert torch.equal(gpuzip.compress(x, 48).data, want.data)


def test_gradients_and_inference_mode_are_no_obstacle(real):
    x = real[:600].clone().requires_grad_()
    want = gpuzip.quantize(real[:600])
    assert torch.equal(gpuzip.quantize(x), want)
    assert not gpuzip.quantize(x).requires_grad
    with torch.inference_mode():
        assert torch.equal(gpuzip.quantize(real[:600]), want)
        values, _ = gpuzip.compress(real[:5000], 24).search(real[:150], 3)
    assert values.shape == (150, 3)


def test_the_input_is_left_alone(real):
    x = real[:600].clone()
    codes = gpuzip.compress(x)
    codes.search(x[:3], 2, "cosine")
    assert torch.equal(x, real[:600])


# --- sizes


@pytest.mark.parametrize("nbits", range(1, 17))
def test_every_nbits(nbits, tmp_path):
    """12 normal dimensions in 4 sub-spaces: error falls as 2^(-2 nbits / 3), within a factor of 1.9."""
    x = normal(max(4000, 1 << nbits), 12)
    codec = gpuzip.ProductQuantizer(m=4, nbits=nbits)
    codec = codec.fit(x, n_iter=5 if nbits <= 10 else 0, min_points_per_centroid=1)
    codes = codec.encode(x[:200])
    assert codes.data.shape == (200, (4 * nbits + 7) // 8)
    assert float((codes.decode() - x[:200]).square().mean()) <= 1.9 * 2 ** (-2 * nbits / 3)
    codes[:50].save(tmp_path / "x.ezip")
    assert torch.equal(gpuzip.load(tmp_path / "x.ezip"), codes[:50].decode())


@pytest.mark.parametrize("n", [0, 1, 2, 1023, 1025])
def test_any_number_of_rows(real, n):
    codec = gpuzip.ProductQuantizer(48, 4).fit(real[:1000])
    codes = codec.encode(real[:n])
    assert len(codes) == n
    assert codes.decode().shape == (n, 384)
    assert torch.equal(codes.data, codec.encode(real[:1100]).data[:n])
    values, ids = codes.search(real[:2], k=5)
    assert values.shape == ids.shape == (2, min(5, n))


def test_no_rows_in_a_file(real, tmp_path):
    codes = gpuzip.ProductQuantizer(48, 4).fit(real[:1000]).encode(real[:0])
    info = codes.save(tmp_path / "x.ezip", real[:0])
    assert (info.n, info.quality) == (0, None)
    assert gpuzip.load(tmp_path / "x.ezip").shape == (0, 384)


@pytest.mark.parametrize(("d", "m"), [(100, 48), (7, 3), (5, 7), (384, 50)])
def test_padding(d, m, tmp_path):
    x = normal(700, d) + 3
    codes = gpuzip.compress(x, m, pad=True)
    assert codes.data.shape[1] == (m + 1) // 2
    assert codes.decode().shape == (700, d)
    gpuzip.save(x, tmp_path / "x.ezip", m, pad=True)
    assert torch.equal(gpuzip.load(tmp_path / "x.ezip"), codes.decode())
    for metric in ("l2", "ip", "cosine"):
        assert codes.search(codes.decode()[:3], 1, metric)[0].shape == (3, 1)
    values, _ = codes.search(codes.decode()[:3], 1, "l2")
    assert float(values.max()) <= 1e-6


def test_few_rows_for_many_centroids_warn_once(real):
    with pytest.warns(UserWarning, match=r"at least 9984 rows for 2\*\*8 centroids; got 300") as caught:
        gpuzip.ProductQuantizer(48, 8).fit(real[:300], n_iter=1)
    assert len(caught) == 1


@pytest.mark.parametrize("scale", [1e-12, 1e-5, 1e6, 1e15])
def test_accuracy_does_not_depend_on_the_scale(real, scale, tmp_path):
    """A float16 codebook would lose all of these but the float32 one is kept where that is so."""
    x = real[:1000] * scale
    assert cosine(x, gpuzip.quantize(x, m=48)) == pytest.approx(
        cosine(real[:1000], gpuzip.quantize(real[:1000], m=48)), abs=2e-3
    )
    gpuzip.save(x, tmp_path / "x.ezip", m=48)
    assert torch.equal(gpuzip.load(tmp_path / "x.ezip"), gpuzip.quantize(x, m=48))


def test_fit_changes_nothing_in_the_codec_it_is_called_on(real):
    plain = gpuzip.ProductQuantizer(48, 4)
    fitted = plain.fit(real[:1000])
    assert not plain.is_fitted
    assert fitted.is_fitted
    with pytest.raises(AttributeError):
        fitted.m = 3  # type: ignore[misc]


def test_the_seed_decides(real):
    a, b, c = (gpuzip.compress(real[:1000], seed=seed) for seed in (0, 0, 1))
    assert torch.equal(a.data, b.data)
    assert a.codec.same_as(b.codec)
    assert not torch.equal(a.data, c.data)


def test_training_takes_a_sample_of_many_rows(real):
    seen = gpuzip.ProductQuantizer(24, 2).fit(real, max_points_per_centroid=50)
    assert not seen.same_as(gpuzip.ProductQuantizer(24, 2).fit(real))
    assert cosine(real, seen.encode(real).decode()) > 0.4


def test_another_byte_order_is_read(real):
    x = real[:600].numpy()
    assert torch.equal(gpuzip.compress(x.astype(">f4"), 48).data, gpuzip.compress(x, 48).data)


def test_the_former_keyword_of_what_was_learned_warns(real):
    codec = gpuzip.ProductQuantizer(m=8, nbits=2).fit(real[:200])
    with pytest.warns(DeprecationWarning, match="codebook= is now fitted="):
        same = gpuzip.ProductQuantizer(m=8, nbits=2, codebook=codec.fitted)  # type: ignore[call-arg]
    assert same.same_as(codec)
