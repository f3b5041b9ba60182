"""Codes as a value."""

import numpy as np
import pytest
import torch

import gpuzip


@pytest.fixture(scope="module")
def codes(real):
    return gpuzip.compress(real[:1000], 48)


def test_length_shape_and_device(codes):
    assert len(codes) == 1000
    assert codes.shape == (1000, 384)
    assert codes.device.type == "cpu"


@pytest.mark.parametrize("index", [slice(3, 9), slice(None, None, 7), [1, 5], [], torch.tensor([4, 4, 0])])
def test_an_index_gives_codes_of_those_rows(codes, index):
    part = codes[index]
    assert isinstance(part, gpuzip.Codes)
    assert torch.equal(part.decode(), codes.decode()[index])


def test_an_int_keeps_the_row_dimension(codes):
    assert torch.equal(codes[7].decode(), codes.decode()[7:8])
    assert torch.equal(codes[-1].decode(), codes.decode()[-1:])
    for outside in (1000, -1001):
        with pytest.raises(
            IndexError, match=f"row must be from -1000 to 999, as there are 1000 rows; got {outside}"
        ):
            codes[outside]


def test_a_mask_is_an_index(codes):
    mask = torch.arange(1000) % 3 == 0
    assert torch.equal(codes[mask].decode(), codes.decode()[mask])


def test_iteration_gives_one_row_at_a_time(codes):
    assert sum(len(row) for row in codes[:5]) == 5


def test_bytes_are_counted_from_the_tensors(codes):
    assert codes.nbytes == 1000 * 24 + 16 * 384 * 2
    assert codes.ratio == pytest.approx(1000 * 384 * 4 / codes.nbytes)
    assert "1000 x 384" in repr(codes)
    assert f"{codes.nbytes} bytes" in repr(codes)


def test_concatenation_undoes_slicing(codes):
    whole = gpuzip.cat([codes[:10], codes[10:10], codes[10:]])
    assert torch.equal(whole.data, codes.data)
    assert whole.codec is codes.codec


def test_only_codes_of_one_codec_are_concatenated(codes, real, tmp_path):
    with pytest.raises(gpuzip.GpuzipError, match="parts must come from one codec"):
        gpuzip.cat([codes, gpuzip.compress(real[:1000], 24)])
    with pytest.raises(gpuzip.GpuzipError, match="at least one"):
        gpuzip.cat([])
    codes.save(tmp_path / "x.ezip")
    assert len(gpuzip.cat([codes, gpuzip.open(tmp_path / "x.ezip")])) == 2000  # the same codec, read back


def test_decode_to_another_dtype(codes):
    assert codes.decode(torch.float16).dtype == torch.float16
    assert torch.equal(codes.decode(torch.float64), codes.decode().double())


def test_to_moves_everything(codes):
    moved = codes.to("cpu")
    assert torch.equal(moved.decode(), codes.decode())
    if torch.cuda.is_available():
        assert codes.to("cuda").decode().device.type == "cuda"


def test_norms_are_those_of_the_decoded_rows(codes):
    torch.testing.assert_close(codes.norms, codes.decode().norm(dim=1))


def test_quality_is_measured_against_the_source(codes, real):
    x, y = real[:1000].double(), codes.decode().double()
    quality = codes.quality(x)
    assert quality is not None
    assert quality.cosine == pytest.approx(
        float(torch.cosine_similarity(x.flatten(), y.flatten(), 0)), abs=1e-6
    )
    assert quality.row_cosine == pytest.approx(float(torch.cosine_similarity(x, y).mean()), abs=1e-6)
    assert quality.mse == pytest.approx(float((x - y).square().mean()), rel=1e-5)
    with pytest.raises(gpuzip.GpuzipError, match="x must have 1000 rows, one per code; got 9"):
        codes.quality(x[:9])


def test_quality_of_zeros():
    zeros = torch.zeros(50, 8)
    quality = gpuzip.compress(zeros, 2, nbits=1).quality(zeros)
    assert quality is not None
    assert (quality.cosine, quality.row_cosine, quality.mse) == (1, 1, 0)


def test_data_of_another_width_is_refused(codes):
    with pytest.raises(
        gpuzip.GpuzipError, match=r"data must be \(N, 24\) uint8 for this codec; got \(1000, 12\) uint8"
    ):
        gpuzip.Codes(codes.codec, codes.data[:, :12])


def test_recall_counts_shared_ids():
    assert gpuzip.recall(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[2, 9], [4, 3]])) == 0.75


@pytest.mark.parametrize("row", [np.int64(3), torch.tensor(3), np.array(3)])
def test_ids_from_a_search_are_indices(codes, row):
    assert torch.equal(codes[row].data, codes[3].data)


def test_numpy_ids_and_masks_are_indices(codes):
    assert torch.equal(codes[np.array([5, 2])].data, codes[[5, 2]].data)
    assert torch.equal(codes[np.arange(1000) < 4].data, codes[:4].data)


@pytest.mark.parametrize("index", [None, "7", 1.5, [0.5]])
def test_what_is_no_index_is_refused(codes, index):
    with pytest.raises((TypeError, IndexError)):
        codes[index]
