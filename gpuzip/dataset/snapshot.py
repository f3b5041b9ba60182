"""What can be read of a dataset: searches, rows, ids and columns of one state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import SearchMetric
from gpuzip._core.rows import Matrix
from gpuzip.codecs.codes import Codes
from gpuzip.codecs.quantizer import Quantizer
from gpuzip.dataset.filters import allowed_rows
from gpuzip.dataset.ids import Given, as_ids
from gpuzip.dataset.info import DatasetInfo, info_of, nbytes_of
from gpuzip.dataset.ranges import check_radius, within
from gpuzip.dataset.results import Found, FoundWithin, as_given
from gpuzip.dataset.searching import WHO, nearest, rescored, store_of
from gpuzip.dataset.tables import columns_at, columns_of
from gpuzip.dataset.verifying import verify
from gpuzip.dataset.view import View
from gpuzip.errors import GpuzipError


class Snapshot:
    """One state of a dataset, to be read. It stays valid and the same while others write.

    `Dataset.snapshot` makes it. As long as it lives, in any process, no writer removes its files.
    """

    _view: View

    def __init__(self, view: View) -> None:
        self._view = view

    def __len__(self) -> int:
        """Number of rows that are not removed."""
        return len(self._view)

    def __contains__(self, id: object) -> bool:
        """Whether a row has this id."""
        try:
            return bool(self._view.find(as_ids("Dataset", self._view.kind, [id]))[0][0] >= 0)
        except GpuzipError:
            return False

    def __repr__(self) -> str:
        view = self._view
        return (
            f"{type(self).__name__}({str(view.folder)!r}, {len(view)} x {view.codec.d}, {view.codec!r}, "
            f"ids={view.kind!r}, {len(view.shards)} shards, {self.nbytes} bytes)"
        )

    def _repr_html_(self) -> str:
        return self.info()._repr_html_()

    @property
    def path(self) -> Path:
        """The folder."""
        return self._view.folder

    @property
    def codec(self) -> Quantizer:
        """The codec of all rows."""
        return self._view.codec

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D): rows that are not removed, and their columns."""
        return len(self._view), self._view.codec.d

    @property
    def dtype(self) -> torch.dtype:
        """Dtype in which rows are decoded."""
        dtype: torch.dtype = getattr(torch, self._view.manifest.dtype)
        return dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all files of this state."""
        return nbytes_of(self._view)

    @property
    def ids(self) -> Tensor | np.ndarray[Any, Any]:
        """Ids of all rows, in order: an int64 tensor, or an array of str objects."""
        return as_given(self._view.ids())

    def info(self) -> DatasetInfo:
        """Return the facts of this state: rows, bytes, shards, codec.

        Returns
        -------
        DatasetInfo
            The facts. print() shows them.
        """
        return info_of(self._view)

    def rows(self, ids: Given) -> Tensor:
        """Decode some rows, without reading the others.

        Parameters
        ----------
        ids : (R,) ints or strings
            Ids of rows, in any order; one may come twice.

        Returns
        -------
        (R, D) tensor
            The decoded rows.

        Raises
        ------
        GpuzipError
            If no row has an id, which the message names.
        """
        who, view = "Dataset.rows", self._view
        wanted = as_ids(who, view.kind, ids)
        out = torch.empty((len(wanted), view.codec.d), dtype=self.dtype, device="cpu")
        for number, here, rows in view.locate(who, wanted):
            out[torch.from_numpy(here)] = view.shards[number].codes.rows(rows).to(self.dtype)
        return out

    def decode(self) -> Tensor:
        """Decode all rows, in the order in which they were appended.

        Returns
        -------
        (N, D) tensor
            The decoded rows.
        """
        view = self._view
        out = torch.empty((len(view), view.codec.d), dtype=self.dtype, device="cpu")
        for shard, start in zip(view.shards, view.starts.tolist(), strict=False):
            rows = shard.codes.decode() if shard.gone is None else shard.codes.rows(shard.live)
            out[start : start + len(shard)] = rows
        return out

    def columns(self, ids: Given | None = None) -> Any:
        """Read the columns beside the rows.

        Parameters
        ----------
        ids : (R,) ints or strings, optional
            Ids of rows, in any order. Default: all rows, in order.

        Returns
        -------
        pyarrow.Table or None
            A row per id; None if there are no columns.

        Raises
        ------
        GpuzipError
            If no row has an id, which the message names.
        """
        who, view = "Dataset.columns", self._view
        if not view.manifest.columns:
            return None
        if ids is None:
            return columns_of([(shard, shard.live) for shard in view.shards])
        wanted = as_ids(who, view.kind, ids)
        found = list(view.locate(who, wanted)) or [(0, np.arange(0), np.arange(0))]
        return columns_at(view.shards, found) if view.shards else None

    def verify(self) -> None:
        """Check every byte of every file against its checksum, and that no id comes twice.

        Raises
        ------
        FormatError
            If a file is damaged or missing; the message names it.
        """
        verify(self._view)

    @overload
    def search(
        self,
        queries: Matrix,
        k: int = ...,
        metric: SearchMetric = ...,
        *,
        filter: Any = ...,
        mask: Tensor | np.ndarray[Any, Any] | None = ...,
        radius: None = ...,
        rescore: Matrix | Codes | Snapshot | None = ...,
        rescore_multiplier: float = ...,
    ) -> Found: ...

    @overload
    def search(
        self,
        queries: Matrix,
        k: Literal[None] = ...,
        metric: SearchMetric = ...,
        *,
        filter: Any = ...,
        mask: Tensor | np.ndarray[Any, Any] | None = ...,
        radius: float,
    ) -> FoundWithin: ...

    def search(
        self,
        queries: Matrix,
        k: int | None = None,
        metric: SearchMetric = "cosine",
        *,
        filter: Any = None,
        mask: Tensor | np.ndarray[Any, Any] | None = None,
        radius: float | None = None,
        rescore: Matrix | Codes | Snapshot | None = None,
        rescore_multiplier: float = 4,
    ) -> Found | FoundWithin:
        """Find the nearest rows of every query, exactly: the k best ones, or all within a radius.

        Parameters
        ----------
        queries : (Q, D) or (D,) float tensor, array or memory map
            Query vectors, as `Codes.search` takes them.
        k : int, default 10
            Rows per query, at most as many as may be found. Not with radius.
        metric : {"cosine", "ip", "l2", "hamming"}, default "cosine"
            As in `Codes.search`.
        filter : optional
            Rows that may be found: their ids, a mask, or a `pyarrow.compute` expression on the columns, such
            as `pc.field("year") > 2020`.
        mask : (N,) bool, optional
            True for the rows that may be found, in their order. With filter, a row must pass both.
        radius : float, optional
            Find all rows that are nearer than this: distances below it, or similarities above it.
        rescore : (N, D) float matrix, Codes or Dataset, optional
            A better store of the same rows, in their order, which scores k * rescore_multiplier candidates
            anew. A Dataset is asked by id.
        rescore_multiplier : float, default 4
            Candidates per row that is returned, at least 1.

        Returns
        -------
        Found or FoundWithin
            `values, ids`, each (Q, k), or (k,) for one query. With radius `lims, values, ids`, where the rows
            of query i stand from lims[i] to lims[i + 1].

        Notes
        -----
        The answer is that of `Codes.search` over all rows: shards are searched one after another, codes are
        not copied, and of equal scores the row that was appended first comes first. Memory is that of a
        search of the largest shard, and 24 bytes per query and row that is returned.

        Examples
        --------
        >>> import gpuzip, tempfile, torch
        >>> x = torch.eye(4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = gpuzip.Dataset.create(folder, gpuzip.HalfQuantizer().fit(x), ids="string")
        ...     data.append(x, ["north", "east", "south", "west"])
        ...     values, ids = data.search(x[2], k=1)
        ...     lims, _, near = data.search(x, metric="l2", radius=1)
        >>> ids.tolist(), lims.tolist()
        (['south'], [0, 1, 2, 3, 4])
        """
        view = self._view
        allowed = allowed_rows(view, filter, mask)
        if radius is not None:
            if k is not None or rescore is not None:
                raise GpuzipError(f"{WHO}: radius must come without k and rescore. Leave them out.")
            lims, values, places = within(view, queries, check_radius(radius), metric, allowed)
            return FoundWithin(lims, values, as_given(view.ids_at(places.numpy())))
        k = 10 if k is None else k
        if rescore is None:
            values, places = nearest(view, queries, k, metric, allowed)
        else:
            read = _read_from(view, rescore) if isinstance(rescore, Snapshot) else None
            store = store_of(view, rescore, read)
            values, places = rescored(view, queries, k, metric, allowed, store, rescore_multiplier)
        return Found(values, as_given(view.ids_at(places.numpy())))


def _read_from(view: View, other: Snapshot) -> Callable[[Tensor], Tensor]:
    """A function that reads rows from another dataset, by their places in this one."""
    return lambda places: other.rows(view.ids_at(places.numpy())).float()
