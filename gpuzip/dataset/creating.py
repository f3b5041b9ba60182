"""A dataset is made: a new folder, the codec in it, and a manifest of no rows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from gpuzip._core.checks import is_whole
from gpuzip.codecs.quantizer import Quantizer
from gpuzip.dataset.files import add_file, commit, sweep
from gpuzip.dataset.lock import writing
from gpuzip.dataset.manifest import DTYPES, ID_KINDS, OURS, UNFINISHED, Manifest
from gpuzip.errors import GpuzipError
from gpuzip.storage.atomic import behind_links
from gpuzip.storage.folder import MANIFEST
from gpuzip.storage.paths import local_path

#: Seconds that a writer waits for another one by default.
TIMEOUT = 10.0


def create(path: Any, codec: Any, ids: Any, dtype: torch.dtype, timeout: float) -> Path:
    """Implements `Dataset.create`; returns the folder."""
    who = "Dataset.create"
    if not isinstance(codec, Quantizer):
        raise GpuzipError(f"{who}: codec must be a codec such as ScalarQuantizer(8); got {codec!r:.200}.")
    codec.check_fitted(who)
    if ids not in ID_KINDS:
        raise GpuzipError(f'{who}: ids must be "int64", "string" or None; got {ids!r}.')
    kind = str(dtype).removeprefix("torch.")
    if kind not in DTYPES:
        raise GpuzipError(f"{who}: dtype must be one of {', '.join(DTYPES)}; got {dtype!r}.")
    folder = _new_folder(who, path)
    with writing(who, folder, timeout):
        check_empty(who, folder)
        member = add_file(folder, "codec", codec.to("cpu").save)
        commit(folder, Manifest(0, ids, 0, kind, None, member, ()))
        sweep(folder)
    return folder


def seconds(who: str, timeout: Any) -> float:
    if not (is_whole(timeout) or isinstance(timeout, float)) or not timeout >= 0:
        raise GpuzipError(f"{who}: timeout must be a number of seconds, at least 0; got {timeout!r}.")
    return float(timeout)


def _new_folder(who: str, path: Any) -> Path:
    folder = behind_links(local_path("create", path))
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{who}: {folder} must be a folder; it is a file. Name a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_empty(who: str, folder: Path) -> None:
    """Raise GpuzipError for a folder that holds files which a dataset to be made in it may not."""
    names = os.listdir(folder)
    if MANIFEST in names:
        raise GpuzipError(
            f"{who}: {folder} must be a new folder; it has a manifest. Use gpuzip.Dataset.open."
        )
    if others := sorted(name for name in names if not OURS.fullmatch(name) and name != UNFINISHED):
        raise GpuzipError(
            f"{who}: {folder} must be new or empty; it holds {', '.join(others[:3])}"
            f"{' ...' * (len(others) > 3)}. Name another folder."
        )
