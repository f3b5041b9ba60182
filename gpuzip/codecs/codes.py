"""Codes: a codec and the packed bytes it made, as one value."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.device import is_gpu
from gpuzip._core.planes import Planes, joined, split
from gpuzip._core.quality import Quality, QualityMeter
from gpuzip._core.rows import BLOCK_BYTES, Matrix, Rows
from gpuzip.codecs.base import Codec
from gpuzip.errors import GpuzipError
from gpuzip.search.packed import Packed, Searched
from gpuzip.search.rescore import ReadStore, ScorerStore, Store, matrix_store
from gpuzip.search.run import WHO, search
from gpuzip.storage import FileInfo, write_codes

Index = int | slice | Sequence[int] | np.ndarray[Any, Any] | Tensor


class Codes:
    """N compressed rows: in memory, on a GPU, or mapped from a file. A value: methods return new ones.

    codec: the fitted codec that made them. data: (N, B) uint8, a tensor or `Planes`. dtype: of the source,
    and of what `decode` gives back. why: of codes that `gpuzip.compress` chose for an outcome, how they were
    chosen.
    """

    def __init__(self, codec: Codec, data: Tensor | Planes, dtype: torch.dtype = torch.float32) -> None:
        if data.dtype != torch.uint8 or data.ndim != 2 or data.shape[1] != codec.code_size:
            raise GpuzipError(
                f"Codes: data is {tuple(data.shape)} {str(data.dtype).removeprefix('torch.')}, "
                f"(N, {codec.code_size}) uint8 is what this codec makes."
            )
        if isinstance(data, Planes) and data.sizes != codec.plane_sizes:
            raise GpuzipError(
                f"Codes: data is in parts of {data.sizes} columns, {codec.plane_sizes} is what this codec "
                "makes."
            )
        self.codec, self.dtype = codec, dtype
        self.packed = Packed(data, codec.norms)
        self.why: str | None = None

    def __len__(self) -> int:
        return len(self.packed)

    def __repr__(self) -> str:
        ratio = f", {self.ratio:.1f}x smaller" if len(self) else ""
        return (
            f"Codes({len(self)} x {self.codec.d}, {self.codec!r}, {self.nbytes} bytes{ratio}, {self.device})"
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D) of the rows these codes stand for."""
        return len(self), self.codec.d

    @property
    def data(self) -> Tensor:
        """(N, B) uint8: a tensor, or planes that behave as one."""
        return self.packed.data

    @property
    def device(self) -> torch.device:
        return self.packed.device

    @property
    def nbytes(self) -> int:
        """Bytes of the codes and of the codec's state, counted from the tensors."""
        return self.data.nbytes + self.codec.nbytes

    @property
    def ratio(self) -> float:
        """Bytes of the source rows over `nbytes`."""
        return len(self) * self.codec.d * self.dtype.itemsize / self.nbytes

    @property
    def norms(self) -> Tensor:
        """(N,) float32: the L2 norm of every decoded row. Computed once, 4 bytes a row."""
        return self.packed.norms

    def __getitem__(self, index: Index) -> Codes:
        """Codes of some rows; an int keeps the row dimension: `len(codes[7]) == 1`."""
        return Codes(self.codec, self.data[_as_index(index, len(self), self.device)], self.dtype)

    def to(self, device: torch.device | str) -> Codes:
        moved = Codes(self.codec.to(device), self.data.to(device), self.dtype)
        moved.packed.moved_from(self.packed)
        return moved

    def decode(self, dtype: torch.dtype | None = None) -> Tensor:
        """(N, D) rows, in the source's dtype unless another is named."""
        dtype = dtype or self.dtype
        step = max(1, BLOCK_BYTES // (4 * self.codec.d))
        if len(self) <= step:
            return self.codec.decode_block(self.data[:]).to(dtype).contiguous()
        out = torch.empty(self.shape, dtype=dtype, device=self.device)
        for start in range(0, len(self), step):
            out[start : start + step] = self.codec.decode_block(self.data[start : start + step])
        return out

    def rows(self, ids: Sequence[int] | np.ndarray[Any, Any] | Tensor) -> Tensor:
        """(R, D): the decoded rows of ids (R,), in the source's dtype. No other row is touched.

        Negative ids count from the end. Raises IndexError for ids that are no rows.
        """
        index = row_ids("Codes.rows", ids, len(self), self.device)
        return self.codec.decode_rows(self.data, index).to(self.dtype)

    def search(
        self,
        queries: Matrix,
        k: int = 10,
        metric: str = "cosine",
        mask: Tensor | np.ndarray[Any, Any] | None = None,
        rescore: Matrix | Codes | bool | None = None,
        rescore_multiplier: float = 4,
        candidates: str | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The k nearest rows of every query, exactly, without unpacking them.

        queries: (Q, D) or (D,) float. metric: "l2" gives squared distances, ascending; "ip" and
        "cosine" give similarities, descending. Scores are those of the decoded rows, in float32, or where
        the codec says so unbiased estimates of the source's; a row or query of norm 0 has cosine 0. Of equal
        scores the lowest id comes first. "hamming", of binary codes and of first bits, gives the number of
        differing bits, int32, ascending; queries are quantized too, or come as (Q, B) uint8.
        rescore: a better store of the same rows: a float tensor on the codes' device, an array or memory
        map, other Codes, or True for these codes. k * rescore_multiplier candidates are found in the codes
        by the metric `candidates` (else by `metric`), their rows alone are read from the store, and its
        scores are final: the k best are returned. Of RaBitQ codes candidates may also be "plane": the first
        bits alone are scanned, by their own estimates, and the others read for the candidates; or "bound": by
        what a row may reach at most, which 2% exceed, and with more candidates until no other row may win.
        mask: (N,) bool, True for the rows that may be found, on the codes' device; None allows all.
        Returns (values, ids): (Q, k) float32 (int32 for "hamming") and int64, or (k,) for one query; k is
        clamped to N, or to the number of rows that mask allows, which on a GPU waits for that number.
        A CUDA graph can record a search: call it once before, so that kernels are compiled and norms
        are there. Under capture queries are not checked, nor k clamped to a mask: places that no allowed
        row takes then have the id -1 and the worst value, -inf, or inf for "l2".
        Memory beside codes and results: about 128 MB (gpuzip.search.memory.WORKSPACE) and some 20 MB per
        thread; on a GPU up to 2 GB (GPU_WORKSPACE there, at most a sixteenth of its memory) and 256 MB of
        decoded rows. Kept where the metric or the number of queries needs them: norms, 4 bytes per row, and
        as much for what "l2" and "cosine" each make of them.
        """
        store = None if rescore is None or rescore is False else self._store(rescore)
        return search(
            Searched(self.codec, self.packed), queries, k, metric, mask, store, rescore_multiplier, candidates
        )

    def _store(self, rescore: Matrix | Codes | bool) -> Store:
        store = self if isinstance(rescore, bool) else rescore
        if not isinstance(store, Codes):
            return matrix_store(WHO, store, len(self), self.codec.d, self.device)
        if store.shape != self.shape:
            raise GpuzipError(
                f"{WHO}: rescore holds codes of {store.shape}, these are of {self.shape}. "
                "Pass codes of the same rows."
            )
        if not store.codec.scores_are_of_decoded_rows:
            return ScorerStore(
                lambda q, metric: store.codec.scorer(store.packed, q, metric), len(store), store.device
            )
        return ReadStore(
            lambda ids: store.codec.decode_block(store.data[ids.to(store.device)]).to(self.device),
            len(self),
            each_once=not is_gpu(self.device) or store.device != self.device,
        )

    def quality(self, x: Matrix) -> Quality | None:
        """Error of these codes against the rows they were made from; None when there are none."""
        rows = Rows("Codes.quality", x, self.codec.d, self.device)
        if rows.n != len(self):
            raise GpuzipError(f"Codes.quality: x has {rows.n} rows, there are {len(self)} codes.")
        meter = QualityMeter()
        for start, block in rows.blocks():
            decoded = self.codec.decode_block(self.data[start : start + len(block)])
            meter.add(block.to(self.device, torch.float32), decoded.to(self.dtype).float())
        return meter.result()

    def save(self, path: str | os.PathLike[str], x: Matrix | None = None) -> FileInfo:
        """Write one .ezip file, atomically; parent folders are made. See `gpuzip.save`.

        x: the source rows; when given, the quality measured against them is stamped in the file.
        """
        self.codec.check_fitted("Codes.save")
        return write_codes(
            path,
            data=split(self.data, self.codec.plane_sizes),
            codec_id=self.codec.id,
            config=self.codec.config(),
            state=self.codec.state(),
            d=self.codec.d,
            dtype=self.dtype,
            quality=None if x is None else self.quality(x),
        )


def _as_index(index: Index, n: int, device: torch.device) -> slice | Tensor:
    if isinstance(index, slice):
        return index
    if isinstance(index, int | np.integer) or (isinstance(index, Tensor | np.ndarray) and index.ndim == 0):
        row = operator.index(index)
        if not -n <= row < n:
            raise IndexError(f"Codes: row {row} of {n}")
        return slice(row % n, row % n + 1)
    try:
        rows = torch.as_tensor(index, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"Codes: index is {index!r}; an int, a slice, ids or a mask is needed.") from error
    return rows.long() if rows.numel() == 0 else rows


def row_ids(
    who: str, ids: Sequence[int] | np.ndarray[Any, Any] | Tensor, n: int, device: torch.device
) -> Tensor:
    """(R,) int64 ids on the device, none negative. Raises IndexError for ids that are no rows."""
    index = _as_index(ids, n, device)
    if not isinstance(index, Tensor) or index.ndim != 1 or index.dtype == torch.bool:
        raise TypeError(f"{who}: ids are {ids!r}; a list or tensor of row numbers is needed.")
    if len(index) and not -n <= int(index.min()) <= int(index.max()) < n:
        raise IndexError(f"{who}: ids from {int(index.min())} to {int(index.max())}, of {n} rows.")
    return torch.where(index < 0, index + n, index)


def cat(parts: Sequence[Codes]) -> Codes:
    """Concatenate codes of one codec, in order, as torch.cat does."""
    if not parts:
        raise GpuzipError("cat: no codes were given, at least one is needed.")
    first = parts[0]
    for part in parts[1:]:
        if not first.codec.same_as(part.codec):
            raise GpuzipError("cat: the codes come from different codecs. Encode the rows with one of them.")
        if part.device != first.device:
            raise GpuzipError(f"cat: codes are on {first.device} and {part.device}. Move them with .to().")
    return Codes(first.codec, joined([part.data for part in parts]), first.dtype)
