"""Archives beside a decoder that was written from their description."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gpuzip
from gpuzip.ops._samples import generator
from tests.archive.by_hand import decode

GOLDEN = Path(__file__).parent / "golden"
SCHEMES = ["transform", "unit", "dictionary", "grid", "lossless"]  # only ever grows
DICTIONARY = GOLDEN / "golden.gpuzip-dictionary"


def check(x: Tensor, **settings: object) -> None:
    archive = gpuzip.TransformCoder(**settings).fit(x).encode(x)  # type: ignore[arg-type]
    out = io.BytesIO()
    archive.save(out)
    assert np.abs(decode(out.getvalue()) - archive.decode().double().numpy()).max() < 1e-5


@pytest.mark.parametrize("states", [4, 8, 256])
def test_a_plain_decoder_reads_archives(states):
    x = torch.randn(40, 6, generator=generator(0)) * torch.logspace(0, -1, 6) + 0.2
    check(x, max_row_error=0.3, states=states, block_rows=33)


def test_a_plain_decoder_reads_rows_that_are_kept():
    x = torch.randn(40, 6, generator=generator(0))
    x[7] = 1024.0**5
    check(x, max_row_error=0.3)


@pytest.mark.full
@pytest.mark.parametrize("cosine", [0.8, 0.95, 0.9999])
def test_a_plain_decoder_reads_real_rows(cosine, real):
    check(real[:300, :100], min_cosine=cosine)
    check(real[:90], min_cosine=cosine)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_golden_archive_decodes_to_what_it_always_did(name):
    archive: Any = gpuzip.open(GOLDEN / f"{name}.ezip", dictionary=DICTIONARY, verify=True)
    want = np.load(GOLDEN / f"{name}.npy")
    got = archive.decode().numpy()
    assert got.dtype == want.dtype and got.shape == want.shape == (100, 16)
    if name in ("grid", "lossless"):
        assert got.tobytes() == want.tobytes()
    assert np.abs(got - want).max() < 1e-5
    assert torch.equal(archive[:].blocks.stream, archive.blocks.stream)  # it is coded to the same bytes


@pytest.mark.parametrize("name", ["transform", "unit"])
def test_a_plain_decoder_reads_golden_archives(name):
    assert (
        np.abs(decode((GOLDEN / f"{name}.ezip").read_bytes()) - np.load(GOLDEN / f"{name}.npy")).max() < 1e-5
    )


def test_every_golden_archive_is_tested():
    assert {path.stem for path in GOLDEN.glob("*.ezip")} == set(SCHEMES)
