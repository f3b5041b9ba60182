"""Codes of rows in groups of different sizes: more bits for more important rows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import SearchMetric, check_mask
from gpuzip._core.ids import Index, as_index, row_ids
from gpuzip._core.planes import owned
from gpuzip._core.progress import Progress, reporting
from gpuzip._core.quality import Quality, QualityMeter
from gpuzip._core.rows import Matrix, Rows
from gpuzip.codecs.codes import Codes, as_array, cat_alike
from gpuzip.errors import DtypeError, GpuzipError
from gpuzip.search.result import SearchResult
from gpuzip.storage.folder import Folder, Writer, write_folder
from gpuzip.storage.tensors import save_tensors

KIND = "mixed"
MOST_PARTS = 255  # `group` is uint8


class MixedCodes:
    """Hold N compressed rows whose codes have different sizes. Methods return new codes.

    Parameters
    ----------
    parts : sequence of Codes
        Codes with the same number of columns, dtype and device.
    group : (N,) uint8 tensor, optional
        Index of each row's part. The rows of a part keep their order. Default: the rows of all parts, one
        part after another.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    >>> low, high = (gpuzip.ScalarQuantizer(bits=b).fit(x).encode(x) for b in (2, 8))
    >>> gpuzip.MixedCodes([low, high]).shape
    (128, 8)
    """

    parts: tuple[Codes, ...]

    def __init__(self, parts: Sequence[Codes], group: Tensor | None = None) -> None:
        who = "MixedCodes"
        self.parts = tuple(parts)
        if not self.parts:
            raise GpuzipError(f"{who}: at least one Codes must be given; got none.")
        first = self.parts[0]
        for part in self.parts:
            alike = (
                part.codec.d == first.codec.d and part.dtype == first.dtype and part.device == first.device
            )
            if not alike:
                raise GpuzipError(
                    f"{who}: parts must have {first.codec.d} columns of {first.dtype} on {first.device}; got "
                    f"{part.codec.d} of {part.dtype} on {part.device}."
                )
        if group is not None:
            self._check(who, group)
        self.group = group

    def _check(self, who: str, group: Tensor) -> None:
        counts = [len(part) for part in self.parts]
        fits = group.dtype == torch.uint8 and group.ndim == 1 and group.device == self.device
        if not fits or torch.bincount(group.long(), minlength=len(counts)).tolist() != counts:
            raise GpuzipError(
                f"{who}: group must be (N,) uint8 with {counts} rows per part; got {tuple(group.shape)} "
                f"{group.dtype} on {group.device}."
            )

    def __getstate__(self) -> dict[str, Any]:
        """Without what can be found again."""
        return {"parts": self.parts, "group": None if self.group is None else owned(self.group)}

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __repr__(self) -> str:
        ratio = f", {self.ratio:.1f}x smaller" if len(self) else ""
        return (
            f"MixedCodes({len(self)} x {self.shape[1]} in {len(self.parts)} parts, {self.nbytes} bytes{ratio}"
            f", {self.device})"
        )

    def __getitem__(self, index: Index) -> MixedCodes:
        """Codes of some rows, as `Codes[index]`, in the same parts."""
        rows = torch.arange(len(self), device=self.device)[
            as_index("MixedCodes", index, len(self), self.device)
        ]
        group, places = self.groups()[rows], self._places[rows]
        parts = [part[places[group == i]] for i, part in enumerate(self.parts)]
        return MixedCodes(parts, group.to(torch.uint8))

    def __iter__(self) -> Iterator[MixedCodes]:
        """Codes of each row, in order."""
        return (self[row] for row in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        """The decoded rows, for numpy: float32 where numpy lacks the dtype of the source."""
        return as_array("MixedCodes", self.decode, self.dtype, dtype, copy)

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D) of the source rows."""
        return len(self), self.parts[0].codec.d

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the source rows, which `decode` returns."""
        return self.parts[0].dtype

    @property
    def device(self) -> torch.device:
        """Device of the codes."""
        return self.parts[0].device

    @property
    def nbytes(self) -> int:
        """Bytes of the codes, of the codecs' states and of `group`."""
        return sum(part.nbytes for part in self.parts) + (0 if self.group is None else self.group.nbytes)

    @property
    def ratio(self) -> float:
        """Bytes of the source rows over `nbytes`."""
        return len(self) * self.shape[1] * self.dtype.itemsize / self.nbytes

    def to(self, device: torch.device | str) -> MixedCodes:
        """Copy the codes to a device.

        Parameters
        ----------
        device : torch.device or str
            Where to move codes and codecs.

        Returns
        -------
        MixedCodes
            The codes on that device.
        """
        group = None if self.group is None else self.group.to(device)
        return MixedCodes([part.to(device) for part in self.parts], group)

    def groups(self) -> Tensor:
        """(N,) int64: index of each row's part."""
        if self.group is not None:
            return self.group.long()
        counts = torch.tensor([len(part) for part in self.parts], dtype=torch.int64, device=self.device)
        return torch.arange(len(counts), device=self.device).repeat_interleave(counts)

    @cached_property
    def _members(self) -> list[Tensor]:
        """Row ids per part, (n,) int64 each."""
        if self.group is not None:
            return [(self.group == i).nonzero()[:, 0] for i in range(len(self.parts))]
        ids = torch.arange(len(self), device=self.device)
        return list(ids.split([len(part) for part in self.parts]))

    @cached_property
    def _places(self) -> Tensor:
        """(N,) int64: position of each row in its part."""
        places = torch.empty(len(self), dtype=torch.int64, device=self.device)
        for members in self._members:
            places[members] = torch.arange(len(members), device=self.device)
        return places

    def _located(self, ids: Tensor) -> Iterator[tuple[Codes, Tensor, Tensor]]:
        """For each part with some of these rows: the part, positions in ids, and positions in the part."""
        if self.group is None:  # needs no table of all rows
            ends = torch.tensor([len(part) for part in self.parts], device=self.device).cumsum(0)
            part_of = torch.searchsorted(ends, ids, right=True)
            places = ids - torch.nn.functional.pad(ends, (1, 0))[part_of]
        else:
            part_of, places = self.group[ids], self._places[ids]
        for i, part in enumerate(self.parts):
            here = (part_of == i).nonzero()[:, 0]
            if len(here):
                yield part, here, places[here]

    def rows(self, ids: Sequence[int] | np.ndarray[Any, Any] | Tensor) -> Tensor:
        """Decode some rows, as `Codes.rows` does.

        Parameters
        ----------
        ids : (R,) ints
            Row numbers.

        Returns
        -------
        (R, D) tensor
            The decoded rows.
        """
        index = row_ids("MixedCodes.rows", ids, len(self), self.device)
        out = torch.empty((len(index), self.shape[1]), dtype=self.dtype, device=self.device)
        for part, here, places in self._located(index):
            out[here] = part.rows(places)
        return out

    def decode(self, dtype: torch.dtype | None = None) -> Tensor:
        """Decode all rows, as `Codes.decode` does.

        Parameters
        ----------
        dtype : torch.dtype, optional
            Dtype of the result. Default: the source's.

        Returns
        -------
        (N, D) tensor
            The decoded rows.
        """
        out = torch.empty(self.shape, dtype=dtype or self.dtype, device=self.device)
        for part, members in zip(self.parts, self._members, strict=True):
            out[members] = part.decode(out.dtype)
        return out

    def search(
        self,
        queries: Matrix,
        k: int = 10,
        metric: SearchMetric = "cosine",
        mask: Tensor | np.ndarray[Any, Any] | None = None,
        *,
        progress: Progress = None,
    ) -> SearchResult:
        """Find the k nearest rows of every query in all parts, as `Codes.search` does.

        Parameters
        ----------
        queries : (Q, D) or (D,) float tensor, array or memory map
            Query vectors.
        k : int, default 10
            Rows per query.
        metric : {"cosine", "ip", "l2"}, default "cosine"
            Metric of the search.
        mask : (N,) bool, optional
            True for the rows that may be found.
        progress : bool or callable, optional
            As in `Codes.search`, for each part in turn.

        Returns
        -------
        values : (Q, k) float32 tensor
            Scores.
        ids : (Q, k) int64 tensor
            Row numbers.
        """
        allowed = None if mask is None else check_mask("MixedCodes.search", mask, len(self), self.device)
        found = []
        for part, members in zip(self.parts, self._members, strict=True):
            within = None if allowed is None else allowed[members]
            values, ids = part.search(queries, k, metric, within, progress=progress)
            found.append((values, members[ids]))
        values, ids = (torch.cat(both, -1) for both in zip(*found, strict=True))
        by_id = ids.argsort(-1)
        values, ids = (
            part.gather(-1, by_id) for part in (values, ids)
        )  # the stable sort below keeps this order
        best = values.argsort(dim=-1, descending=metric != "l2", stable=True)[..., :k]
        return SearchResult(values.gather(-1, best), ids.gather(-1, best))

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
        rows = Rows("MixedCodes.quality", x, self.shape[1], self.device)
        if rows.n != len(self):
            raise GpuzipError(
                f"MixedCodes.quality: x must have {len(self)} rows, one per code; got {rows.n}."
            )
        meter = QualityMeter()
        with reporting("MixedCodes.quality", progress, "measure", rows.n) as report:
            for start, block in rows.blocks():
                ids = torch.arange(start, start + len(block), device=self.device)
                meter.add(block.to(self.device, torch.float32), self.rows(ids).float())
                report(start + len(block))
        return meter.result()

    def save(self, path: str | os.PathLike[str]) -> Folder:
        """Write a folder with one .ezip file per part and the groups.

        Parameters
        ----------
        path : str or path-like
            Folder to write. An existing folder of gpuzip is replaced as a whole, or kept on any error.

        Returns
        -------
        Folder
            The folder that was written; `gpuzip.open` reads it.

        Raises
        ------
        NotADirectoryError
            If path is a file.
        GpuzipError
            If path is a folder that gpuzip did not write.
        """
        writers: dict[str, Writer] = {f"part-{i}.ezip": part.save for i, part in enumerate(self.parts)}
        if self.group is not None:
            writers["group.safetensors"] = partial(_save_group, self.group)
        return write_folder(path, KIND, {"parts": len(self.parts)}, writers)


@overload
def cat(parts: Sequence[Codes]) -> Codes: ...


@overload
def cat(parts: Sequence[Codes | MixedCodes]) -> Codes | MixedCodes: ...


def cat(parts: Sequence[Codes] | Sequence[Codes | MixedCodes]) -> Codes | MixedCodes:
    """Concatenate codes, in order, as torch.cat does.

    Parameters
    ----------
    parts : sequence of Codes or MixedCodes
        At least one, all on one device. Codes must be made by one codec, unless a MixedCodes is among them.

    Returns
    -------
    Codes or MixedCodes
        The rows of all parts. MixedCodes if one of the parts is.

    Raises
    ------
    GpuzipError
        If there are no parts, or their codecs or devices differ.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.randn(256, 32, generator=torch.Generator().manual_seed(0))
    >>> codes = gpuzip.compress(x, m=8)
    >>> gpuzip.cat([codes, codes]).shape
    (512, 32)
    """
    if not parts:
        raise GpuzipError("cat: at least one Codes must be given; got none.")
    for part in parts:
        if not isinstance(part, Codes | MixedCodes):
            raise DtypeError(f"cat: parts must be Codes or MixedCodes; got {type(part).__name__}.")
    alike = [part for part in parts if isinstance(part, Codes)]
    return cat_alike(alike) if len(alike) == len(parts) else _cat_mixed(parts)


def _cat_mixed(sources: Sequence[Codes | MixedCodes]) -> MixedCodes:
    """Concatenate the rows; parts of one codec become one, unless they are of one source."""
    mixed = [source if isinstance(source, MixedCodes) else MixedCodes([source]) for source in sources]
    MixedCodes([part for one in mixed for part in one.parts])  # raises if they do not fit each other
    merged: list[list[Codes]] = []
    groups = []
    for one in mixed:
        places: list[int] = []
        for part in one.parts:
            same = (i for i, of in enumerate(merged) if i not in places and of[0].codec.same_as(part.codec))
            places.append(next(same, len(merged)))
            merged += [[]] * (places[-1] == len(merged))
            merged[places[-1]] = [*merged[places[-1]], part]
        groups.append(torch.tensor(places, device=one.device, dtype=torch.int64)[one.groups()])
    if len(merged) > MOST_PARTS:
        raise GpuzipError(
            f"cat: parts must have at most {MOST_PARTS} codecs; got {len(merged)}. Encode rows with fewer."
        )
    return MixedCodes([cat_alike(of) for of in merged], torch.cat(groups).to(torch.uint8))


def _save_group(group: Tensor, path: Path) -> None:
    save_tensors({"group": group.cpu().contiguous()}, path)
