"""A dataset: a folder of immutable shards and a manifest that is replaced atomically."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch

from gpuzip._core.checks import whole
from gpuzip._core.rows import Matrix
from gpuzip.codecs.codes import Codes
from gpuzip.codecs.quantizer import Quantizer
from gpuzip.dataset.compacting import compact
from gpuzip.dataset.creating import TIMEOUT, create, seconds
from gpuzip.dataset.draft import Draft
from gpuzip.dataset.files import sweep
from gpuzip.dataset.ids import Array, Given, as_ids, check_distinct
from gpuzip.dataset.lock import writing
from gpuzip.dataset.snapshot import Snapshot
from gpuzip.dataset.tables import columns_at
from gpuzip.dataset.view import View
from gpuzip.errors import GpuzipError
from gpuzip.storage.atomic import behind_links
from gpuzip.storage.paths import local_path

_SMALL = 1 << 16  # rows; a shard of fewer is merged with its neighbours


class Dataset(Snapshot):
    """A folder of compressed rows that are appended, removed, replaced and searched by id.

    `create` and `open` make it. Every write is done completely or not at all, also where the process is
    killed. One process writes at a time; any number read, and never wait.

    Examples
    --------
    >>> import gpuzip, tempfile, torch
    >>> x = torch.randn(256, 32, generator=torch.Generator().manual_seed(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     data = gpuzip.Dataset.create(folder, gpuzip.ScalarQuantizer(bits=8).fit(x), ids="int64")
    ...     _ = data.append(x, ids=range(1000, 1256))
    ...     data.remove([1000, 1001])
    ...     values, ids = data.search(x[7], k=1)
    >>> ids.tolist(), len(data)
    ([1007], 254)
    """

    def __init__(self, view: View, timeout: float) -> None:
        super().__init__(view)
        self._timeout = timeout

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        codec: Quantizer,
        *,
        ids: Literal["int64", "string"] | None = None,
        dtype: torch.dtype = torch.float32,
        timeout: float = TIMEOUT,
    ) -> Dataset:
        """Make a dataset without rows.

        Parameters
        ----------
        path : str or path-like
            Folder, which must be new or empty. Parent folders are made.
        codec : Quantizer
            The fitted codec of all rows.
        ids : {"int64", "string"}, optional
            Kind of the ids that `append` is given. Default: rows number themselves from 0, and are never
            renumbered.
        dtype : torch.dtype, default torch.float32
            Dtype in which rows are decoded.
        timeout : float, default 10
            Seconds that a write waits for another writer, before it raises GpuzipError.

        Returns
        -------
        Dataset
            The dataset, open for reading and writing.

        Raises
        ------
        NotFittedError
            If the codec is not fitted.
        GpuzipError
            If the folder holds files.
        """
        timeout = seconds("Dataset.create", timeout)
        return cls(View.open(create(path, codec, ids, dtype, timeout)), timeout)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, timeout: float = TIMEOUT) -> Dataset:
        """Open a dataset, for reading and writing.

        Parameters
        ----------
        path : str or path-like
            Folder that `create` made.
        timeout : float, default 10
            Seconds that a write waits for another writer, before it raises GpuzipError.

        Returns
        -------
        Dataset
            The newest state. Its files are mapped, and checked where they are first read.

        Raises
        ------
        FileNotFoundError, NotADirectoryError
            If there is no such folder.
        FormatError
            If the manifest is damaged or newer than this version, or a file is missing or of another size.
        """
        who = "Dataset.open"
        return cls(View.open(behind_links(local_path("open", path))), seconds(who, timeout))

    def snapshot(self) -> Snapshot:
        """Return this state, to be read while the dataset goes on.

        Returns
        -------
        Snapshot
            It stays valid and the same while this process or another appends, removes and compacts.
        """
        return Snapshot(self._view)

    def refresh(self) -> Dataset:
        """Go on to the newest state, with what other processes have written.

        Returns
        -------
        Dataset
            This dataset.
        """
        self._view = View.open(self._view.folder, self._view)
        return self

    def append(self, x: Matrix | Codes, ids: Given | None = None, columns: Any = None) -> Any:
        """Compress rows and add them behind the others.

        Parameters
        ----------
        x : (n, D) float tensor, array or memory map, or Codes
            Rows to add. Codes of the dataset's codec are added as they are.
        ids : (n,) ints or strings, optional
            Their ids, distinct and new. Needed unless rows number themselves.
        columns : pyarrow.Table, pyarrow.RecordBatch or dict, optional
            Columns of n rows to be stored beside them. Later rows need those of the first append.

        Returns
        -------
        (n,) int64 tensor or array of str objects
            The ids of the new rows.

        Raises
        ------
        GpuzipError
            If an id comes twice or is in the dataset; the message names it, and nothing is written.
        OSError
            If the disk is full or the folder must not be written; the dataset is as it was.
        """
        who = "Dataset.append"
        if (ids is None) != (self._view.kind is None):
            needed = "be left out, since rows number themselves" if ids is not None else "be given"
            raise GpuzipError(f"{who}: ids must {needed}. create(ids=...) says which kind a dataset has.")
        codes = self._alike(who, x) if isinstance(x, Codes) else self.codec.encode(x)
        given = None if ids is None else self._given(who, ids, len(codes))
        if given is not None:
            check_distinct(who, given)

        def change(draft: Draft) -> Array:
            table = draft.table(who, columns, len(codes))
            new = np.arange(draft.next, draft.next + len(codes)) if given is None else given
            if given is not None:
                _check_new(who, draft.view, given)
            if len(codes):
                draft.append(codes, new, table)
                draft.next += len(codes) if given is None else 0
            return new

        new = self._write(who, change)
        return new if new.dtype == object else torch.from_numpy(new.astype(np.int64))

    def remove(self, ids: Given) -> None:
        """Remove rows. Their bytes stay in the files until `compact`.

        Parameters
        ----------
        ids : (n,) ints or strings
            Ids of rows.

        Raises
        ------
        GpuzipError
            If no row has an id, which the message names; then nothing is removed.
        """
        who = "Dataset.remove"
        gone = self._given(who, ids)
        check_distinct(who, gone)

        def change(draft: Draft) -> None:
            draft.remove([(number, rows) for number, _, rows in draft.view.locate(who, gone)])

        self._write(who, change)

    def update(self, ids: Given, x: Matrix, columns: Any = None) -> None:
        """Replace rows, all or none. They keep their ids and stand behind the others, as if appended now.

        Parameters
        ----------
        ids : (n,) ints or strings
            Ids of rows, distinct.
        x : (n, D) float tensor, array or memory map
            The new rows.
        columns : pyarrow.Table, pyarrow.RecordBatch or dict, optional
            Their new columns. Default: those that they have.

        Raises
        ------
        GpuzipError
            If no row has an id, which the message names; then nothing is replaced.
        """
        who = "Dataset.update"
        codes = self.codec.encode(x)
        changed = self._given(who, ids, len(codes))
        check_distinct(who, changed)

        def change(draft: Draft) -> None:
            found = list(draft.view.locate(who, changed))
            if not found:
                return
            if columns is None:
                table = columns_at(draft.view.shards, found)
            else:
                table = draft.table(who, columns, len(codes))
            draft.remove([(number, rows) for number, _, rows in found])
            draft.append(codes, changed, table)

        self._write(who, change)

    def compact(self, *, removed: float = 0.25, small: int = _SMALL) -> None:
        """Rewrite shards of which much is removed, and merge small ones with their neighbours.

        Bytes of rows are copied and never decoded, so that no row changes. Ids and the order stay. Files that
        nobody reads any more are removed.

        Parameters
        ----------
        removed : float, default 0.25
            Share of removed rows above which a shard is rewritten. 0 rewrites all that have any.
        small : int, default 65536
            A shard of fewer rows is merged with small neighbours, up to 256 MB of codes.
        """
        who = "Dataset.compact"
        if isinstance(removed, bool) or not isinstance(removed, int | float) or not 0 <= removed <= 1:
            raise GpuzipError(f"{who}: removed must be a number from 0 to 1; got {removed!r}.")
        least = whole(who, "small", small, 0)
        self._write(who, lambda draft: compact(draft, removed, least))

    def _alike(self, who: str, codes: Codes) -> Codes:
        if not self.codec.same_as(codes.codec):
            raise GpuzipError(
                f"{who}: codes must be of the dataset's codec, {self.codec!r}; got those of {codes.codec!r}, "
                "or of one that was fitted on other rows. Append the rows."
            )
        return codes.to("cpu")

    def _given(self, who: str, ids: Given, n: int | None = None) -> Array:
        found = as_ids(who, self._view.kind, ids)
        if n is not None and len(found) != n:
            raise GpuzipError(f"{who}: ids must be {n}, one per row of x; got {len(found)}.")
        return found

    def _write(self, who: str, change: Callable[[Draft], Any]) -> Any:
        """Change the newest state, and go on to what that makes of it. Other writers wait.

        Files that no state needs, as an interrupted writer leaves them, are removed before and after.
        """
        folder = self._view.folder
        with writing(who, folder, self._timeout):
            try:
                sweep(folder)
                self.refresh()
                draft = Draft(self._view)
                result = change(draft)
                draft.save()
                del draft
                self.refresh()
            finally:
                sweep(folder)
        return result


def _check_new(who: str, view: View, ids: Array) -> None:
    """Raise GpuzipError, which names it, for an id that a row has."""
    known = ids[view.find(ids)[0] >= 0].tolist()
    if known:
        raise GpuzipError(
            f"{who}: ids must be new; got {known[0]!r:.200}, which a row has. Nothing was written. "
            "Use update, or remove it first."
        )
