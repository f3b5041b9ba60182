"""Codes that were altered in a file that was opened without verifying: a row is judged alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import gpuzip
from gpuzip._core.checks import SearchMetric

N, D, BAD = 9000, 32, [7, 5000, 8999]


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(0))


CODECS: dict[str, tuple[gpuzip.Quantizer, int]] = {  # and where in a row to write a float16 or bfloat16
    "half": (gpuzip.HalfQuantizer(), 6),
    "half-bfloat16": (gpuzip.HalfQuantizer("bfloat16"), 6),
    "half-rotated": (gpuzip.HalfQuantizer(rotation=gpuzip.Rotation("pca", dims=16)), 6),
    "rabitq-surplus": (gpuzip.RaBitQuantizer(1), 4 + 2),
    "rabitq-lean": (gpuzip.RaBitQuantizer(1), 4 + 4),
    "rabitq-deep": (gpuzip.RaBitQuantizer(4), 4 + 6 + 12 + 2),
}
VALUES = {"nan": 0x7E00, "inf": 0x7C00, "-inf": 0xFC00}


@pytest.fixture(scope="module", params=CODECS)
def made(request: pytest.FixtureRequest, x: Tensor) -> tuple[gpuzip.Codes, int]:
    codec, at = CODECS[request.param]
    return codec.fit(x).encode(x), at


def altered(made: tuple[gpuzip.Codes, int], path: Path, value: int, rows: list[int]) -> gpuzip.Codes:
    codes, at = made
    bits = value
    if getattr(codes.codec, "dtype", None) == "bfloat16":
        bits = {0x7E00: 0x7FC0, 0x7C00: 0x7F80, 0xFC00: 0xFF80}[value]
    data = codes.data[:].clone()
    data[rows, at : at + 2] = torch.from_numpy(np.array([bits], "<u2").view(np.uint8).copy())
    parts = data.split(codes.codec.plane_sizes, 1)
    planes = type(codes.data)([part.contiguous() for part in parts]) if len(parts) > 1 else data
    gpuzip.Codes(codes.codec, planes).save(path)
    return gpuzip.open(path)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_a_row_that_is_no_number_hides_no_other(
    made: tuple, x: Tensor, path: Path, metric: SearchMetric, value: str
):
    right = made[0]
    mask = torch.ones(N, dtype=torch.bool)
    mask[BAD] = False
    bad = altered(made, path, VALUES[value], BAD)
    for queries in (x[:3], x[:200]):
        values, ids = bad.search(queries, 10, metric)
        assert torch.isfinite(values).all() and not np.isin(ids, BAD).any()
        wanted, wanted_ids = right.search(queries, 10, metric, mask)
        assert torch.equal(ids, wanted_ids)
        torch.testing.assert_close(values, wanted)
    few = torch.zeros(N, dtype=torch.bool)
    few[[3, 7, 9, 11]] = True
    assert sorted(bad.search(x[0], 3, metric, few)[1].tolist()) == [3, 9, 11]


def test_a_row_that_is_no_number_hides_no_other_when_it_rescores(x: Tensor, path: Path):
    codes = gpuzip.HalfQuantizer().fit(x).encode(x)
    bad = altered((codes, 6), path, VALUES["inf"], BAD)
    coarse = gpuzip.ScalarQuantizer(4).fit(x).encode(x)
    for metric in ("l2", "ip", "cosine"):
        values, ids = coarse.search(x[[7, 5000, 1]], 5, metric, rescore=bad)
        assert torch.isfinite(values).all() and not np.isin(ids, BAD).any()


def test_codes_that_are_all_numbers_have_no_mask(x: Tensor):
    codes = gpuzip.HalfQuantizer().fit(x).encode(x)
    codes.search(x[:2], 3)
    assert codes.packed.remembered("sound rows by norms", lambda: "asked again") is None
