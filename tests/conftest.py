"""Without a GPU, Triton's interpreter runs the kernels; it must be chosen before they are imported."""

import gc
import importlib.util
import os

# Idle threads of one worker would spin in the other's time; read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Tests say which way they test: otherwise plain torch would answer what loops are not compiled for.
os.environ.setdefault("GPUZIP_LOOPS", "wait")

import numpy as np
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest
from torch import Tensor

from examples.sample import load_sample
from tests import sampled

# The same cases each time, however long one takes; `--hypothesis-profile=default` draws others.
if importlib.util.find_spec("hypothesis"):
    from hypothesis import settings

    settings.load_profile("ci")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave some cases of large families to the full set, before pytest selects by marks."""
    sampled.mark(items)


def pytest_collection_finish() -> None:
    """Leave modules and tests, which stay to the end, out of each later collection of garbage."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # else libraries complain at the end of what they still hold


@pytest.fixture(scope="session")
def real() -> Tensor:
    """(8000, 384) float32 sentence embeddings of real text, unit norm."""
    return load_sample().embeddings


@pytest.fixture(scope="session")
def real_queries() -> Tensor:
    """(500, 384) float32, of texts that are not in `real`."""
    return load_sample().queries


@pytest.fixture(scope="session")
def ranges(real: Tensor) -> np.ndarray:
    """(2, 384): the least and the greatest value of each column of `real`."""
    return np.stack([real.numpy().min(0), real.numpy().max(0)])
