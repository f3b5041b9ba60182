"""Load the real embeddings that the examples, tests and benchmarks use.

They are all-MiniLM-L6-v2 embeddings of docstrings; `make_sample.py` makes both sets.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

SAMPLE_DIR = Path(__file__).resolve().parent / "data"


@dataclass(frozen=True)
class Sample:
    """Unit-length rows to search, queries held apart from them, and the text behind each row."""

    embeddings: torch.Tensor
    queries: torch.Tensor
    texts: list[str]
    query_texts: list[str]


def large_dir() -> Path:
    """The cache folder of the large set."""
    cache = os.environ.get("GPUZIP_CACHE")
    return (Path(cache).expanduser() if cache else Path.home() / ".cache" / "gpuzip") / "docstrings-large"


def load_sample(dtype: torch.dtype = torch.float32) -> Sample:
    """The shipped set: 8,000 rows and 500 queries of 384 dimensions."""
    return _load(SAMPLE_DIR, "python -m examples.make_sample", dtype)


def load_large(dtype: torch.dtype = torch.float32) -> Sample:
    """The large set: 40,000 rows and 1,000 queries of 384 dimensions, made once into the cache folder."""
    return _load(large_dir(), "python -m examples.make_sample --large", dtype)


def _load(folder: Path, command: str, dtype: torch.dtype) -> Sample:
    # The manifest is written last, so a folder without one is an interrupted run.
    if not (folder / "manifest.json").is_file():
        raise FileNotFoundError(f"no complete set in {folder}; make it with: {command}")
    tensors = load_file(folder / "embeddings.safetensors")
    sample = Sample(
        tensors["embeddings"].to(dtype),
        tensors["queries"].to(dtype),
        _lines(folder / "texts.txt"),
        _lines(folder / "queries.txt"),
    )
    rows = len(sample.embeddings), len(sample.queries)
    if rows != (len(sample.texts), len(sample.query_texts)):
        raise ValueError(f"rows and texts in {folder} do not match; make them anew with: {command}")
    return sample


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
