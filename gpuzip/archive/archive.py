"""Rows of varying length in blocks, and what turns them into rows again, as one value."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import METRICS, SearchMetric, check_k, check_mask, check_metric
from gpuzip._core.device import as_device
from gpuzip._core.ids import Ids, Index, as_index, row_ids
from gpuzip._core.inputs import as_matrix
from gpuzip._core.progress import Progress, reporting
from gpuzip._core.quality import Quality, QualityMeter
from gpuzip._core.rows import Matrix, Rows, narrowed
from gpuzip.archive.block_rows import BlockRows
from gpuzip.errors import GpuzipError
from gpuzip.search.blocks import nearest
from gpuzip.search.rescore import ReadStore, best_of_candidates
from gpuzip.search.result import SearchResult
from gpuzip.storage import FileInfo, Target, write_archive
from gpuzip.storage.archive import Blocks, Kept

_LONGEST = Quality(1.23456e-05, 1.23456e-05, 1.23456e-100)  # as text
_MORE = 16  # candidates of a search beyond k, which are scored again


class Archive(BlockRows):
    """Hold N compressed rows whose codes have different lengths. Methods return new archives.

    `TransformCoder.encode` makes archives, and `gpuzip.open` reads them. Rows are in blocks, which are
    decoded as a whole: a single row costs as much as its block.

    Parameters
    ----------
    coder : TransformCoder
        The fitted coder that made the rows.
    blocks : Blocks
        The stream.
    n : int
        Number of rows.
    dtype : torch.dtype
        Dtype of the source rows, which `decode` returns.
    kept : Kept, optional
        Rows that are stored as they were, since the coder could not hold its bound for them.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.randn(256, 32, generator=torch.Generator().manual_seed(0))
    >>> archive = gpuzip.TransformCoder(bits_per_dim=2).fit(x).encode(x)
    >>> archive.shape, archive.decode().shape
    ((256, 32), torch.Size([256, 32]))
    """

    def __repr__(self) -> str:
        ratio = f", {self.ratio:.1f}x smaller" if len(self) else ""
        facts = f"{len(self)} x {self.shape[1]}, {self.codec!r}, {self.nbytes} bytes{ratio}"
        return f"Archive({facts}, {self.device})"

    @property
    def nbytes(self) -> int:
        """Bytes of the rows and of what the coder learned, as files store them."""
        beside = 0 if self.kept is None else self.kept.rows.nbytes + self.kept.ids.nbytes
        return self.blocks.stream.nbytes + 8 * len(self.blocks) + beside + self.codec.nbytes

    @property
    def ratio(self) -> float:
        """Bytes of the source rows over `nbytes`."""
        return len(self) * self.codec.d * self.dtype.itemsize / self.nbytes

    def __getitem__(self, index: Index) -> Archive:
        """Some rows, coded as they are. An int keeps the row dimension: `len(archive[7]) == 1`."""
        rows = as_index("Archive", index, len(self), self.device)
        ids = torch.arange(len(self), dtype=torch.int64, device=self.device)[rows].contiguous()
        levels = self._read(ids, self._levels)
        kept = None
        if self.kept is not None:
            at = torch.searchsorted(self.kept.ids, ids.cpu()).clamp(max=len(self.kept.ids) - 1)
            found = self.kept.ids[at] == ids.cpu()
            kept = Kept(found.nonzero()[:, 0], self.kept.rows[at[found]]) if bool(found.any()) else None
        blocks = self._scheme.pack(levels, self.blocks.rows)
        return Archive(self.codec, blocks, len(ids), self.dtype, kept)

    def __iter__(self) -> Iterator[Archive]:
        """Each row, in order."""
        return (self[row] for row in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        """The decoded rows, for numpy: float32 where numpy lacks the dtype of the source."""
        found = self.decode(torch.float32 if self.dtype == torch.bfloat16 else None).cpu().numpy()
        return found if dtype is None else found.astype(dtype, copy=False)

    def to(self, device: torch.device | str) -> Archive:
        """Copy the archive to a device.

        Parameters
        ----------
        device : torch.device or str
            Where to decode rows.

        Returns
        -------
        Archive
            The archive on that device.
        """
        where = as_device("Archive.to", device)
        self._verify(range(len(self.blocks)))
        stream = self.blocks.stream.to(where)
        moved = Archive(
            self.codec.to(where),
            Blocks(stream, self.blocks.ends, self.blocks.rows),
            len(self),
            self.dtype,
            self.kept,
        )
        moved.why, moved.unverified = self.why, self.unverified
        return moved

    def decode(self, dtype: torch.dtype | None = None, *, out: Tensor | None = None) -> Tensor:
        """Decode all rows.

        Parameters
        ----------
        dtype : torch.dtype, optional
            Dtype of the result. Default: the source's.
        out : (N, D) float tensor, optional
            Where to write them, on the archive's device.

        Returns
        -------
        (N, D) tensor
            The decoded rows; out, if it is given.

        Raises
        ------
        GpuzipError
            If out has another shape or device.
        FormatError
            If a block of the file is damaged.
        """
        if out is None:
            out = self._empty(dtype or self.dtype)
        elif tuple(out.shape) != self.shape or out.device != self.device:
            raise GpuzipError(
                f"Archive.decode: out must be {self.shape} on {self.device}; got {tuple(out.shape)} on "
                f"{out.device}."
            )
        for start, rows in self._decoded():
            out[start : start + len(rows)] = narrowed(rows, out.dtype)
        return out

    def rows(self, ids: Ids) -> Tensor:
        """Decode some rows. Only the blocks that hold them are read.

        Parameters
        ----------
        ids : (R,) ints
            Row numbers. Negative ids count from the end.

        Returns
        -------
        (R, D) tensor
            The decoded rows, in the source's dtype.

        Raises
        ------
        IndexError
            If an id is not a row.
        """
        index = row_ids("Archive.rows", ids, len(self), self.device)
        return narrowed(self._read(index, self._rows_of_blocks), self.dtype)

    def search(
        self,
        queries: Matrix,
        k: int = 10,
        metric: SearchMetric = "cosine",
        mask: Tensor | np.ndarray[Any, Any] | None = None,
    ) -> SearchResult:
        """Find the k nearest rows of every query, exactly. Every row is decoded, block by block.

        A search of `ProductQuantizer` codes reads packed bytes instead and is many times as fast.

        Parameters
        ----------
        queries : (Q, D) or (D,) float tensor, array or memory map
            Query vectors.
        k : int, default 10
            Rows per query, at most N or the number of rows that mask allows.
        metric : {"cosine", "ip", "l2"}, default "cosine"
            As in `Codes.search`.
        mask : (N,) bool, optional
            True for the rows that may be found.

        Returns
        -------
        values : (Q, k) float32 tensor
            Scores; (k,) for one query.
        ids : (Q, k) int64 tensor
            Row numbers; (k,) for one query.
        """
        who = "Archive.search"
        check_metric(who, metric, METRICS)
        k = check_k(who, k, len(self))
        allowed, most = None, len(self)
        if mask is not None:
            allowed = check_mask(who, mask, len(self), self.device)
            most = int(allowed.sum())
        matrix = as_matrix(who, "queries", queries)
        one = matrix.ndim == 1
        asked = Rows(who, matrix[None] if one else matrix, self.codec.d, self.device, "queries")
        q = asked.block(0, asked.n).float()
        k = min(k, most)
        ids = nearest(self._decoded(), q, min(k + _MORE, most), metric, allowed)
        store = ReadStore(self._float_rows, len(self), each_once=True)
        values, ids, _ = best_of_candidates(store, q, ids, metric, k)
        values = -values if metric == "l2" else values
        return SearchResult(*((values[0], ids[0]) if one else (values, ids)))

    def quality(self, x: Matrix, *, progress: Progress = None) -> Quality | None:
        """Measure the error of the decoded rows against the source rows, as `Codes.quality` does.

        Parameters
        ----------
        x : (N, D) float tensor, array or memory map
            The source rows.
        progress : bool or callable, optional
            As in `Codes.quality`.

        Returns
        -------
        Quality or None
            None if there are no rows.
        """
        source = Rows("Archive.quality", x, self.codec.d, self.device)
        if source.n != len(self):
            raise GpuzipError(f"Archive.quality: x must have {len(self)} rows; got {source.n}.")
        meter = QualityMeter()
        with reporting("Archive.quality", progress, "measure", source.n) as report:
            for start, rows in self._decoded():
                stop = start + len(rows)
                meter.add(source.block(start, stop).float(), narrowed(rows, self.dtype).float())
                report(stop)
        return meter.result()

    def save(self, path: Target, x: Matrix | None = None, *, progress: Progress = None) -> FileInfo:
        """Write one .ezip file atomically.

        Parameters
        ----------
        path : str, path-like or binary file
            As in `Codes.save`.
        x : (N, D) float tensor, array or memory map, optional
            The source rows. If given, the file stores the quality measured against them.
        progress : bool or callable, optional
            As in `quality`.

        Returns
        -------
        FileInfo
            The header of the file.
        """
        return self._written(path, None if x is None else self.quality(x, progress=progress))

    @property
    def most_bytes(self) -> int:
        """Bytes of the file that `save` writes, at most: with the quality, whose digits are not known."""
        with open(os.devnull, "wb") as nowhere:
            return self._written(nowhere, _LONGEST).nbytes

    def _written(self, path: Target, quality: Quality | None) -> FileInfo:
        self._verify(range(len(self.blocks)))
        return write_archive(
            path,
            blocks=self.blocks,
            model=self._scheme.model,
            kept=self.kept,
            codec_id=self.codec.id,
            config=self._scheme.config(),
            n=len(self),
            d=self.codec.d,
            dtype=self.dtype,
            quality=quality,
        )
