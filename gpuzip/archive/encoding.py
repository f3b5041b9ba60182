"""Rows coded in blocks, and those kept beside that a coder cannot hold its bound for."""

from __future__ import annotations

import torch
from torch import Tensor

from gpuzip._core.progress import Progress, reporting
from gpuzip._core.rows import Rows, narrowed
from gpuzip.archive import exact
from gpuzip.archive.archive import Archive
from gpuzip.archive.sample import are_unit
from gpuzip.archive.scheme import Settings
from gpuzip.archive.transform import Transform, beyond
from gpuzip.storage.archive import Blocks, Kept


def encoded(coder: Settings, rows: Rows, progress: Progress = None) -> Archive:
    """The archive of rows by the transform of a coder, some blocks at a time."""
    scheme = coder.scheme
    step = max(1, (1 << 22) // (rows.d * coder.block_rows)) * coder.block_rows
    parts: list[Blocks] = []
    kept: list[tuple[Tensor, Tensor]] = []
    with reporting("TransformCoder.encode", progress, "encode", rows.n) as report:
        for start in range(0, rows.n, step):
            block = rows.block(start, start + step)
            given = rows.as_given()[start : start + step] if rows.dtype == torch.float64 else block
            levels = scheme.levels_of(block.float())
            missed = _missed(coder, given, levels, rows.dtype).nonzero()[:, 0]
            parts.append(scheme.pack(levels, coder.block_rows))
            if len(missed):
                kept.append((missed.cpu() + start, _as_kept(given[missed])))
            report(min(start + step, rows.n))
    return Archive(coder, _joined(parts, coder.block_rows, coder.device), rows.n, rows.dtype, _kept(kept))


def encoded_exactly(
    rows: Rows, max_error: float | None, block_rows: int
) -> tuple[exact.Exact, Blocks, Kept | None]:
    """Rows bit for bit, or to within an error per value: their scheme, their stream, those kept beside."""
    x = rows.as_given()
    step, missed = None, torch.zeros(rows.n, dtype=torch.bool, device=rows.device)
    if max_error is not None:
        rows.check()
        step, missed = exact.grid_for(x, max_error) if rows.n else (None, missed)
    first = x if rows.n else x.new_zeros((1, rows.d))
    scheme, blocks = exact.coded(first, block_rows, step, missed if rows.n else missed.new_zeros(1))
    ids = missed.nonzero()[:, 0]
    kept = Kept(ids.cpu(), _as_kept(x[ids])) if len(ids) else None
    return scheme, blocks if rows.n else _joined([], block_rows, rows.device), kept


def _missed(coder: Settings, rows: Tensor, levels: Tensor, dtype: torch.dtype) -> Tensor:
    """(N,) bool: rows that are not within the bound, and must be kept as they are."""
    missed = beyond(levels)
    if isinstance(coder.scheme, Transform) and coder.scheme.unit:
        missed |= ~are_unit(rows.float())
    if coder.max_row_error is not None:
        off = rows.double() - narrowed(coder.scheme.rows_of(levels), dtype).double()
        missed |= torch.linalg.vector_norm(off, dim=1) > coder.max_row_error * (1 - 1e-6)
    return missed


def _as_kept(rows: Tensor) -> Tensor:
    return rows.cpu() if rows.dtype == torch.float64 else rows.float().cpu()


def _joined(parts: list[Blocks], block_rows: int, device: torch.device) -> Blocks:
    if not parts:
        none = torch.zeros(0, dtype=torch.int64, device="cpu")
        return Blocks(torch.zeros(0, dtype=torch.uint8, device=device), none, block_rows)
    ends, before = [], 0
    for part in parts:
        ends.append(part.ends + before)
        before += len(part.stream)
    return Blocks(torch.cat([part.stream for part in parts]), torch.cat(ends), block_rows)


def _kept(parts: list[tuple[Tensor, Tensor]]) -> Kept | None:
    if not parts:
        return None
    return Kept(torch.cat([ids for ids, _ in parts]), torch.cat([rows for _, rows in parts]))
