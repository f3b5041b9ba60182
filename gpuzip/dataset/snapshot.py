"""What can be read of a dataset: searches, rows, ids and columns of one state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import SearchMetric
from gpuzip._core.device import as_device, is_gpu
from gpuzip._core.rows import Matrix
from gpuzip.choose.by_bytes import parse_bytes
from gpuzip.codecs.codes import Codes
from gpuzip.codecs.quantizer import Quantizer
from gpuzip.dataset.filters import allowed_rows
from gpuzip.dataset.ids import Given, as_ids
from gpuzip.dataset.info import DatasetInfo, info_of, nbytes_of
from gpuzip.dataset.ranges import check_radius, within
from gpuzip.dataset.results import Found, FoundWithin, as_given
from gpuzip.dataset.searching import WHO, nearest, rescored, store_of
from gpuzip.dataset.streaming import nearest_on, pieces_of
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
        device: torch.device | str = ...,
        max_gpu_memory: int | str | None = ...,
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
        device: torch.device | str = "cpu",
        max_gpu_memory: int | str | None = None,
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
        device : torch.device or str, default "cpu"
            Device to search on, without radius and rescore. Codes are copied to a GPU piece by piece, so that
            the dataset may be larger than its memory.
        max_gpu_memory : int or str, optional
            Most bytes to take there, or text such as "8GB". Default: half of what is free.

        Returns
        -------
        Found or FoundWithin
            `values, ids`, each (Q, k), or (k,) for one query. With radius `lims, values, ids`, where the rows
            of query i stand from lims[i] to lims[i + 1].

        Notes
        -----
        The answer is that of `Codes.search` over all rows: shards are searched one after another, codes are
        not copied, and of equal scores the row that was appended first comes first. Memory is that of a
        search of the largest shard, and 24 bytes per query and row that is returned. Shards stay mapped, with
        the norms that a search remembers, where all codes take up to 1 GB. Those of larger datasets are
        closed, each once it is searched.

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
        on = as_device(WHO, device)
        if is_gpu(on) and (radius is not None or rescore is not None):
            raise GpuzipError(
                f"{WHO}: device must be 'cpu' with radius or rescore; got {device!r}. Omit one."
            )
        if not is_gpu(on) and max_gpu_memory is not None:
            raise GpuzipError(
                f"{WHO}: max_gpu_memory must come with a GPU as device; got {device!r}. Omit it."
            )
        if radius is not None:
            if k is not None or rescore is not None:
                raise GpuzipError(f"{WHO}: radius must come without k and rescore. Leave them out.")
            lims, values, places = within(view, queries, check_radius(radius), metric, allowed)
            return FoundWithin(lims, values, as_given(view.ids_at(places.numpy())))
        k = 10 if k is None else k
        if is_gpu(on):
            sizes = [shard.entry.n for shard in view.shards]
            pieces = pieces_of(sizes, view.codec.code_size, _budget(on, max_gpu_memory))
            values, places = nearest_on(on, view, queries, k, metric, allowed, pieces)
        elif rescore is None:
            values, places = nearest(view, queries, k, metric, allowed)
        else:
            read = _read_from(view, rescore) if isinstance(rescore, Snapshot) else None
            store = store_of(view, rescore, read)
            values, places = rescored(view, queries, k, metric, allowed, store, rescore_multiplier)
        return Found(values, as_given(view.ids_at(places.numpy())))


def _budget(device: torch.device, asked: int | str | None) -> int:
    """Bytes of a GPU that a search may take."""
    if asked is None:
        return torch.cuda.mem_get_info(device)[0] // 2
    return parse_bytes(WHO, "max_gpu_memory", asked)


def _read_from(view: View, other: Snapshot) -> Callable[[Tensor], Tensor]:
    """A function that reads rows from another dataset, by their places in this one."""
    return lambda places: other.rows(view.ids_at(places.numpy())).float()
