"""embzip's suite, restated: a round trip, and a file of it.

Peer: jxmorris12/embzip, commit ebeda18 (2025-04-20), and 0.2.0 on PyPI; MIT.
Cases: 7, of which 7 apply. At ebeda18 embzip's default m is d // 4, with which its own test of a larger m
cannot pass; the default here is that of 0.2.0 and of its README, d // 16.

| embzip | here |
|---|---|
| test_quantize_basic | a round trip is near its rows, and not the same |
| test_quantize_custom_m | a larger m is nearer |
| test_save_load_with_tempfile | a file loads to rows near those that were saved |
| test_save_load_custom_m (3 cases) | the same for m of 24, 48 and 96 |
| test_embzip | both calls on 1,000 rows, and the file is much smaller |
"""

import os

import pytest
import torch
from torch import Tensor

import gpuzip
from tests.peers.draws import flat_cosine

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def rows() -> Tensor:
    return torch.randn(100, 768, generator=torch.Generator().manual_seed(0))


def test_a_round_trip_is_near_its_rows_and_not_the_same(rows):
    decoded = gpuzip.quantize(rows)
    assert decoded.shape == rows.shape and decoded.dtype == rows.dtype
    assert not torch.allclose(decoded, rows)
    assert 0.5 < flat_cosine(rows, decoded) < 1


def test_a_larger_m_is_nearer(rows):
    default = rows.shape[1] // 16
    assert torch.equal(gpuzip.quantize(rows), gpuzip.quantize(rows, m=default))
    low, middle, high = (
        flat_cosine(rows, gpuzip.quantize(rows, m=m)) for m in (default // 2, default, 2 * default)
    )
    assert low < middle < high


def test_a_file_loads_to_rows_near_those_that_were_saved(rows, tmp_path):
    path = tmp_path / "new folder" / "rows.ezip"
    gpuzip.save(rows, path)
    assert path.stat().st_size > 0
    loaded = gpuzip.load(path)
    assert loaded.shape == rows.shape and torch.equal(loaded, gpuzip.quantize(rows))
    assert 0.5 < flat_cosine(rows, loaded) < 1


def test_a_file_that_is_there_already_is_replaced(rows, tmp_path):
    path = tmp_path / "rows.ezip"
    path.touch()  # embzip's test saves onto an empty temporary file
    gpuzip.save(rows, path)
    assert gpuzip.load(path).shape == rows.shape


@pytest.mark.parametrize("m", [24, 48, 96])
def test_a_file_of_any_m_loads(rows, tmp_path, m):
    path = os.fspath(tmp_path / f"m{m}.ezip")
    gpuzip.save(rows, path, m=m)
    loaded = gpuzip.load(path)
    assert loaded.shape == rows.shape
    assert 0.5 < flat_cosine(rows, loaded) < 1


def test_a_file_of_a_thousand_rows_is_much_smaller(tmp_path):
    rows = torch.randn(1000, 768, generator=torch.Generator().manual_seed(1))
    path = tmp_path / "thousand.ezip"
    gpuzip.save(rows, path)
    assert rows.nbytes / path.stat().st_size > 30  # 32 bits of 0.25, and a codebook
    assert torch.equal(gpuzip.load(path), gpuzip.quantize(rows))


@pytest.mark.parametrize(("m", "size"), [(64, 56_372), (128, 87_920)])
def test_files_are_no_larger_than_those_that_its_readme_measured(real, tmp_path, m, size):
    """Not a case of the suite: embzip's README names sizes for 1,000 rows of the model of `real`."""
    path = tmp_path / "readme.ezip"
    gpuzip.save(real[:1000], path, m=m)
    assert path.stat().st_size <= size
