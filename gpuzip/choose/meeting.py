"""Codes for an outcome: which of the ways to choose them what was asked for takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuzip._core.progress import Progress
from gpuzip._core.rows import Matrix, Rows
from gpuzip.choose.by_bytes import fit_alike
from gpuzip.choose.by_outcome import compress_for
from gpuzip.choose.table import Table
from gpuzip.choose.target import Asked, target_of
from gpuzip.choose.trial import FEWEST
from gpuzip.codecs.codes import Codes

if TYPE_CHECKING:  # archives are imported where they are used: most programs need none
    from gpuzip.archive.archive import Archive


def meet(
    who: str,
    x: Matrix,
    asked: Asked,
    queries: Matrix | None,
    in_table: bool,
    seed: int,
    progress: Progress,
    n: int | None = None,
) -> tuple[Codes | Archive, Table]:
    """Codes of x that meet what was asked for, or an archive, and the table of what was tried.

    in_table: whether the table is wanted. n: as `compress_for` takes it.
    """
    rows = Rows(who, x)
    target = target_of(who, rows, asked, n)
    if asked.for_ == "storage":
        from gpuzip.choose.by_storage import store_for

        return store_for(who, x, rows, target, seed, progress)
    if rows.n < FEWEST and not (target.has_floor or target.search or in_table):  # none can be held out
        return fit_alike(who, x, target.max_bytes, asked.bits_per_dim, seed), Table()
    return compress_for(who, x, rows, target, seed, queries, progress, n)
