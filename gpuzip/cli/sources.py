"""What the commands read: matrices, codes of gpuzip, and whichever of the two a file holds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gpuzip
from gpuzip._core.device import as_device
from gpuzip._core.rows import Matrix
from gpuzip.cli.failure import CommandError
from gpuzip.interop.matrices import read_matrix
from gpuzip.interop.matrices.formats import is_matrix_file
from gpuzip.storage.folder import MANIFEST

#: Files of word vectors in text or in word2vec's binary format, which may be compressed.
WORDS = (".txt", ".vec", ".bin")
_PACKED = (".gz", ".bz2", ".xz", ".zip")


def matrix(path: str, name: str | None = None, format: str | None = None, device: str = "cpu") -> Matrix:
    """The matrix of a file, or of standard input for "-"; on a device other than the CPU, all of it."""
    try:
        x = read_matrix(sys.stdin.buffer if path == "-" else path, name=name, format=format)
    except gpuzip.GpuzipError as error:
        if Path(path).suffix == ".ezip":
            raise CommandError(f"{path} holds codes, not source rows. Decompress it first.") from error
        raise
    if as_device("gpuzip", device).type == "cpu":
        return x
    return torch.as_tensor(np.asarray(x) if isinstance(x, np.ndarray) else x, device=device)


def is_matrix(path: str) -> bool:
    """Whether the suffix names a format of matrices."""
    return is_matrix_file(path)


def is_words(path: str) -> bool:
    """Whether the suffix names a file of word vectors."""
    name = Path(path)
    return (Path(name.stem) if name.suffix in _PACKED else name).suffix in WORDS


def codes(path: str, **options: Any) -> Any:
    """The codes of a file or folder of gpuzip, or of standard input for "-"."""
    if path == "-":
        return gpuzip.open(sys.stdin.buffer.read(), **options)
    if is_words_folder(path):
        return gpuzip.WordVectors.load(path).codes
    return gpuzip.open(path, **options)


def is_words_folder(path: str) -> bool:
    """Whether the manifest of a folder says that it holds word vectors."""
    return bool(_kind(path) == "words")


def is_dataset(path: str) -> bool:
    """Whether the manifest of a folder says that it holds a dataset."""
    return bool(_kind(path) == "dataset")


def _kind(path: str) -> Any:
    """What the manifest of a folder says that it holds; None without one."""
    try:
        about = json.loads((Path(path) / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return about.get("kind") if isinstance(about, dict) else None
