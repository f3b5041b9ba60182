"""The smallest file that is good enough, or the best that is small enough, for rows that are only stored."""

from __future__ import annotations

import torch
from torch import Tensor

from gpuzip._core.progress import Progress
from gpuzip._core.quality import mean_or, of_rows
from gpuzip._core.rows import Matrix, Rows
from gpuzip.archive.archive import Archive
from gpuzip.archive.coder import TransformCoder
from gpuzip.choose.by_outcome import Choice, choice_of
from gpuzip.choose.table import Table, Tried, table_of
from gpuzip.choose.target import Target
from gpuzip.choose.trial import ARCHIVES, FEWEST, Trials, likely
from gpuzip.codecs.codes import Codes
from gpuzip.errors import GpuzipError, QualityError
from gpuzip.storage import HEADER_BYTES

_JUDGED = 4000  # rows that are measured


def store_for(
    who: str, x: Matrix, rows: Rows, target: Target, seed: int, progress: Progress = None
) -> tuple[Archive | Codes, Table]:
    """An archive that meets a target, or codes where those are smaller or better, and what was tried."""
    archive = _archive(who, x, rows, target, seed, progress)
    mine = measured(archive, rows, seed)
    if rows.n < FEWEST:  # none can be held out to choose codes
        return archive, table_of([mine])
    trials = Trials(who, rows, target, seed)
    choice = choice_of(who, trials, target)
    chosen = _better(choice, mine, target)
    table = table_of([mine, *trials.tried])
    if chosen is mine:
        archive.why = _why(mine, target, len(table))
        return archive, table
    assert chosen.codec is not None
    codes = chosen.codec.encode(x)  # the archive's progress was shown
    codes.why = choice.why(chosen)
    return codes, table


def _archive(who: str, x: Matrix, rows: Rows, target: Target, seed: int, progress: Progress) -> Archive:
    """The archive of all rows. Raises QualityError if it is larger than the target allows."""
    most = target.max_bytes
    if target.min_cosine is not None:
        archive = TransformCoder(min_cosine=target.min_cosine, seed=seed).fit(x).encode(x, progress=progress)
        if most is not None and (taken := archive.most_bytes) > most:
            raise QualityError(
                f"{who}: {target.asked} cannot be reached together. An archive that is good enough takes "
                f"{taken} bytes. Ask for less of one."
            )
        return archive
    if most is None:
        assert target.code_bytes is not None
        most = target.code_bytes * rows.n + HEADER_BYTES
    try:
        return TransformCoder(max_bytes=most, seed=seed).fit(x).encode(x, progress=progress)
    except GpuzipError as error:
        raise QualityError(f"{who}: {target.asked} is too small for {rows.n} x {rows.d}. {error}") from error


def measured(archive: Archive, rows: Rows, seed: int) -> Tried:
    """What an archive of these rows takes and keeps, measured on some of them."""
    ids = _some(rows, seed)
    mse, cosine = of_rows(rows.rows(ids).float(), archive.rows(ids).float())
    return Tried(
        family=ARCHIVES,
        spec=repr(archive.codec),
        code_size=-(-archive.nbytes // rows.n),
        nbytes=archive.nbytes,
        ratio=archive.ratio,
        row_cosine=mean_or(cosine, 1.0),
        sure_cosine=mean_or(cosine, 1.0) if len(ids) == rows.n else likely(cosine),
        mse=float(mse.mean()),
    )


def _some(rows: Rows, seed: int) -> Tensor:
    order = torch.randperm(rows.n, generator=torch.Generator().manual_seed(seed), device="cpu")
    return order[:_JUDGED].sort().values


def _better(choice: Choice, mine: Tried, target: Target) -> Tried:
    """Codes of the grid where they are smaller, or lose less within a size; else the archive."""
    if target.has_floor:
        return choice.cheapest(0.0, mine)
    try:
        theirs = choice.best()
    except QualityError:  # none is small enough
        return mine
    return theirs if theirs.mse < mine.mse else mine


def _why(mine: Tried, target: Target, count: int) -> str:
    reason = "is the smallest that is sure enough of" if target.has_floor else "loses least of"
    return (
        f"{mine.spec} {reason} {count} codecs tried for {target.asked}: {mine.nbytes / 1e6:.3g} MB, "
        f"{mine.ratio:.1f}x smaller, cosine {mine.row_cosine:.4f}."
    )
