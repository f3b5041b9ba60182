"""A small valid file, and a path for its forgeries."""

from pathlib import Path

import pytest
import torch

import gpuzip
from gpuzip.codecs.pq import Codebook
from tests.attacks.forge import NBITS, ROWS, M, S


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a small valid file."""
    path = tmp_path_factory.mktemp("original") / "a.ezip"
    centroids = torch.arange(1.0, M * 2 * S + 1).view(M, 2, S)
    codec = gpuzip.ProductQuantizer(m=M, nbits=NBITS, fitted=Codebook(centroids, M * S, seed=0))
    gpuzip.Codes(codec, torch.tensor([[3], [0]] * 3, dtype=torch.uint8)).save(path, torch.tensor(ROWS))
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "attack.ezip"
