"""Rows and queries of any scale: 30 orders of magnitude, the ends of float16, a mean that is nearly zero."""

from typing import Any

import pytest
import torch
from torch import Tensor

import gpuzip
from gpuzip import HalfQuantizer, RaBitQuantizer
from tests.test_codec_laws import EACH, SETTINGS
from tests.test_surroundings import small

pytestmark = pytest.mark.filterwarnings("ignore:.*x should have at least")


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(300, 96, generator=torch.Generator().manual_seed(0))


def cosine(x: Tensor, y: Tensor) -> float:
    x, y = (torch.nn.functional.normalize(rows.double(), eps=1e-300) for rows in (x, y))
    return float((x * y).sum(1).mean())


def is_of_floats_of_16_bits(codec: Any) -> bool:
    return codec.id == "half" and "bfloat16" not in repr(codec)


@pytest.mark.parametrize("name", EACH)
def test_a_codec_loses_as_much_at_any_scale(x, name):
    codec = small(SETTINGS[name])
    want = cosine(x, codec.fit(x).encode(x).decode())
    for exponent in (-15, 15):
        scaled = (x.double() * 10.0**exponent).float()
        codes = codec.fit(scaled).encode(scaled)
        if not is_of_floats_of_16_bits(codec):
            assert cosine(scaled, codes.decode()) == pytest.approx(want, abs=0.02)
        assert bool(codes.decode().isfinite().all())
        for metric in codes.codec.metrics:
            assert bool(codes.search(scaled[:4], 3, metric)[0].isfinite().all()), (metric, exponent)


@pytest.mark.parametrize("name", EACH)
def test_a_query_of_any_scale_has_finite_scores(x, name):
    codes = small(SETTINGS[name]).fit(x).encode(x)
    want = codes.search(x[:4], 3)[0]
    for exponent in (-44, -30, -20, -15, 17):
        queries = (x[:4].double() * 10.0**exponent).float()
        for metric in codes.codec.metrics:
            for store in (None, x) if metric != "hamming" else (None,):
                values, _ = codes.search(queries, 3, metric, rescore=store)
                assert bool(values.isfinite().all()), (metric, exponent)
        if exponent > -20:
            torch.testing.assert_close(codes.search(queries, 3)[0], want, rtol=0, atol=1e-4)


@pytest.mark.parametrize("bits", [1, 4])
@pytest.mark.parametrize("size", [1e-22, 1e-19, 3e-20, 0.0])
def test_a_mean_that_is_nearly_zero_gives_scores(x, bits, size):
    rows = torch.cat([x, -x])
    codec = RaBitQuantizer(bits, rotation=None).fit(rows)
    codec.center.copy_(torch.full((96,), size))
    codes = codec.encode(rows)
    for metric in ("ip", "l2", "cosine"):
        values, ids = codes.search(rows[:5], 1, metric)
        assert bool(values.isfinite().all()) and ids.flatten().tolist() == [0, 1, 2, 3, 4]
    mask = torch.zeros(600, dtype=torch.bool)
    mask[417] = True
    assert codes.search(rows[:2], 3, mask=mask)[1].tolist() == [[417], [417]]


@pytest.mark.parametrize("name", EACH)
def test_float16_rows_at_the_end_of_their_range_stay_finite(name, tmp_path):
    rows = torch.full((300, 96), 65504.0, dtype=torch.float16)
    rows[:, ::2] *= -1
    rows[:150] *= 0.99
    codes = small(SETTINGS[name]).fit(rows, seed=0).encode(rows)
    for decoded in (codes.decode(), codes.rows([0, -1])):
        assert decoded.dtype == torch.float16 and bool(decoded.isfinite().all())
    info = codes.save(tmp_path / "x.ezip", rows)
    assert info.quality is not None and info.quality.row_cosine > 0.5


def test_a_half_of_other_rows_is_clamped_too(x):
    codes = HalfQuantizer("bfloat16").fit(x).encode(x * 1e5)
    assert float(codes.decode(torch.float16).abs().max()) == torch.finfo(torch.float16).max
    assert gpuzip.cat([codes, codes]).decode(torch.float16).isfinite().all()
