"""Where the codes go: a dataset, or a file that is put together from one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gpuzip.codecs import Quantizer
from gpuzip.codecs.codes import Codes, save_parts
from gpuzip.dataset import Dataset
from gpuzip.dataset.adopting import adopt
from gpuzip.dataset.creating import TIMEOUT, check_empty
from gpuzip.dataset.files import sweep
from gpuzip.dataset.lock import writing
from gpuzip.dataset.view import View
from gpuzip.errors import GpuzipError
from gpuzip.large.job import finish, is_unfinished, remove_finished
from gpuzip.storage.atomic import behind_links
from gpuzip.storage.folder import MANIFEST
from gpuzip.storage.paths import local_path

_FILE = ".ezip"
_BESIDE = ".compressing"  # of the name of the folder that is filled in place of what it becomes


@dataclass(frozen=True)
class Destination:
    """A file or a dataset to be made.

    Attributes
    ----------
    path : Path
        What the caller named.
    work : Path
        The dataset that is filled: the destination itself, or a folder beside it that is gone at the end.
    """

    path: Path
    work: Path

    @property
    def is_file(self) -> bool:
        return self.path.suffix == _FILE

    def dataset(self) -> Dataset | None:
        """What a run before has filled; None if it did not begin."""
        return Dataset.open(self.work) if (self.work / MANIFEST).exists() else None

    def create(self, codec: Quantizer, dtype: torch.dtype) -> Dataset:
        """The dataset to be filled."""
        return Dataset.create(self.work, codec, dtype=dtype)

    def finish(self) -> int:
        """Make the destination of the dataset that is filled; returns its bytes."""
        if self.work == self.path:
            with writing("compress_file", self.path, TIMEOUT):
                sweep(self.path)  # what an append that died behind its commit has left
            finish(self.work)
            return Dataset.open(self.path).nbytes
        if self.is_file:
            nbytes = self._join()
        else:
            adopt(self.path, self.work)
            nbytes = Dataset.open(self.path).nbytes
        finish(self.work)
        remove_finished(self.work)
        return nbytes

    def _join(self) -> int:
        view = View.open(self.work)

        def parts() -> Iterator[Codes]:
            for shard in view.shards:
                yield shard.codes
                shard.files.close()

        dtype: torch.dtype = getattr(torch, view.manifest.dtype)
        return save_parts(self.path, view.codec, dtype, parts).nbytes


def destination_of(who: str, dst: Any, overwrite: bool) -> Destination:
    """A file where the name ends in .ezip, else a dataset. Raises for what is there and must stay."""
    path = behind_links(local_path(who, dst, "dst"))
    beside = path.with_name(path.name + _BESIDE)
    remove_finished(beside)
    if path.suffix == _FILE:
        if path.is_dir():
            raise IsADirectoryError(f"{who}: {path} must be a file; it is a folder. Name another.")
        if os.path.lexists(path) and not is_unfinished(beside):
            _check(who, path, overwrite)
        return Destination(path, beside)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(
            f"{who}: {path} must be a folder, or end in .ezip to be a file; it is a file. Name another."
        )
    if is_unfinished(path) or not path.exists():
        return Destination(path, path)
    if not (path / MANIFEST).exists():
        check_empty(who, path)
        return Destination(path, path)
    if not is_unfinished(beside):
        _check(who, path, overwrite)
    Dataset.open(path)  # raises for a folder of another kind
    return Destination(path, beside)


def _check(who: str, path: Path, overwrite: bool) -> None:
    if not overwrite:
        raise GpuzipError(
            f"{who}: {path} must be new; it is there. Name another, or pass overwrite=True to replace it "
            "when the new one is whole. Dataset.append adds rows to a dataset."
        )
