"""Lance: datasets of codes with their codec, and its own search over them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip import GpuzipError
from gpuzip._core.checks import SearchMetric

pytestmark = pytest.mark.full

CODECS = [
    gpuzip.BinaryQuantizer(),
    gpuzip.ScalarQuantizer(signed=True),
    gpuzip.HalfQuantizer(),
    gpuzip.RaBitQuantizer(4),
    gpuzip.ProductQuantizer(6, nbits=4),
]


@pytest.fixture(scope="module")
def lance():
    """The package, which the full set alone installs."""
    import lance

    return lance


@pytest.fixture(scope="module")
def x(real):
    return real[:1000, :24].half()


@pytest.mark.parametrize("layout", ["binary", "list"])
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.id)
def test_codes_come_back_with_their_codec(x, codec, layout, tmp_path):
    codes = codec.fit(x).encode(x)
    dataset = gpuzip.to_lance(codes, tmp_path / "x.lance", {"id": range(1000)}, column="e", layout=layout)
    assert dataset.count_rows() == 1000
    for source in (tmp_path / "x.lance", str(tmp_path / "x.lance"), dataset):
        back = gpuzip.from_lance(source)
        assert torch.equal(back.data[:], codes.data[:])
        assert back.codec.same_as(codes.codec)
        assert back.dtype == torch.float16


def test_its_search_finds_our_distances(x, tmp_path):
    bits = gpuzip.BinaryQuantizer().fit(x).encode(x)
    halves = gpuzip.HalfQuantizer().fit(x).encode(x)
    of_bits = gpuzip.to_lance(bits, tmp_path / "bits.lance", {"id": range(1000)})
    of_halves = gpuzip.to_lance(halves, tmp_path / "halves.lance", {"id": range(1000)})
    for row in (0, 5, 999):
        cases: list[tuple[Any, gpuzip.Codes, SearchMetric, Any, torch.Tensor, Callable]] = [
            (of_bits, bits, "hamming", bits.data[row].numpy(), bits.data[row], lambda v: v),
            (of_halves, halves, "l2", x[row].numpy(), x[row].float(), lambda v: v),
            (of_halves, halves, "cosine", x[row].numpy(), x[row].float(), lambda v: 1 - v),
        ]
        for dataset, codes, metric, query, asked, ours in cases:
            nearest = {"column": "codes", "q": query, "k": 1000, "metric": metric}
            found = dataset.to_table(nearest=nearest)
            theirs = dict(zip(found["id"].to_pylist(), found["_distance"].to_pylist(), strict=True))
            values, ids = codes.search(asked, 1000, metric)
            np.testing.assert_allclose([theirs[i] for i in ids.tolist()], ours(values).numpy(), atol=2e-6)


def test_appended_codes_follow_and_an_older_version_stays(lance, x, tmp_path):
    codes = gpuzip.ScalarQuantizer().fit(x).encode(x)
    gpuzip.to_lance(codes[:600], tmp_path / "x.lance")
    dataset = gpuzip.to_lance(codes[600:], tmp_path / "x.lance", mode="append")
    assert torch.equal(gpuzip.from_lance(dataset).data, codes.data)
    assert torch.equal(
        gpuzip.from_lance(lance.dataset(str(tmp_path / "x.lance"), version=1)).data, codes.data[:600]
    )
    with pytest.raises(OSError, match="already exists"):
        gpuzip.to_lance(codes, tmp_path / "x.lance")
    with pytest.raises(GpuzipError, match=r"column must be the name of one column of \['codes'\]; got 'e'"):
        gpuzip.from_lance(dataset, column="e")
