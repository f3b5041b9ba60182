"""Measure codecs on a caller's rows, for a report."""

from __future__ import annotations

import datetime
from dataclasses import replace

import torch

from gpuzip._core.checks import Metric, whole
from gpuzip._core.progress import Progress, reporting
from gpuzip._core.rows import Matrix, Rows
from gpuzip._version import __version__
from gpuzip.choose import Trials, Tried, table_target
from gpuzip.choose.bound import cosine_of, distortion
from gpuzip.errors import GpuzipError
from gpuzip.reports.choices import choices_of
from gpuzip.reports.evidence import Evidence
from gpuzip.reports.report import Report
from gpuzip.reports.rows import BoundRow, ReportRow, Setting
from gpuzip.reports.selection import Codecs, kind_of, selected
from gpuzip.reports.speeds import Speeds, device_name, some_queries, some_rows, speeds_of
from gpuzip.rotations.spectrum import variances

_FITTED = 16_384  # most rows to fit on and to search among
_METRIC: Metric = "cosine"
_APART = 1.25  # ratio of sizes at which the bound is told
_CERTAIN = 0.9995  # cosines of the bound that tell nothing


def report(
    x: Matrix,
    queries: Matrix | None = None,
    codecs: Codecs | None = None,
    *,
    k: int = 10,
    seed: int = 0,
    progress: Progress = None,
) -> Report:
    """Measure what compression does to x: size, quality and speed of several codecs.

    Parameters
    ----------
    x : (N, D) float tensor, array or memory map
        Rows to compress; at least 100.
    queries : (Q, D) float tensor, array or memory map, optional
        Queries to measure recall with. Default: held-out rows, and other queries may find less.
    codecs : list of str or Quantizer, optional
        Codecs that are not fitted, as specs ("PQ48x8", see `from_spec`) or as objects. Default: one or two of
        each kind, from 16 to half a bit per dimension.
    k : int, default 10
        Number of neighbours that recall counts.
    seed : int, default 0
        Seed of all random draws.
    progress : bool or callable, optional
        True shows a bar, which needs rich. A function is called after every codec with the number of codecs
        done and of all.

    Returns
    -------
    Report
        The table of codecs. print() shows it, notebooks show it with pictures, and `save_html` writes a page
        to share.

    Raises
    ------
    GpuzipError
        If x has fewer than 100 rows, queries do not fit it, or a codec is given that cannot be fitted on it.

    Notes
    -----
    A fifth of the rows, at most 4,000, is held out: cosine and error are theirs. Codecs are fitted on the
    others, at most 16,384, and recall is that of a search among these by cosine. Sizes are those of all N
    rows. Only the rows that are measured are read.

    The defaults take less than a minute for 8,000 x 384 on two cores.

    See Also
    --------
    gpuzip.pareto : Measure more sizes of each kind, without speeds.
    gpuzip.compress : Find the smallest codec for a recall, with 95 % confidence.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    >>> report = gpuzip.report(x, codecs=["SQ8", "Binary"])
    >>> [row.spec for row in report.rows]
    ['Binary', 'SQ8']
    """
    who = "report"
    rows, target, seed = Rows(who, x), table_target(who, k, _METRIC), whole(who, "seed", seed, 0)
    if queries is not None and Rows(who, queries, rows.d, rows.device, "queries").n == 0:
        raise GpuzipError(f"{who}: queries must be at least one row; got none. Omit them.")
    trials = Trials(who, rows, target, seed, queries, all_queries=True, most=_FITTED)
    named = selected(who, codecs, rows.n, rows.d, trials.n_trained)
    speeds: dict[str, Speeds] = {}
    with reporting(who, progress, "codecs measured", len(named)) as tell:
        for done, (name, codec) in enumerate(named.items(), 1):
            tried = trials.of_codec(codec, name, name)
            assert tried.codec is not None
            speeds[name] = speeds_of(
                tried.codec.encode(trials.trained_rows), trials.trained_rows, trials.asked[0], k
            )
            tell(done)
    unit = variances(torch.nn.functional.normalize(trials.trained_rows, dim=1))
    table = _marked(trials.tried)
    found = tuple(_row(row, speeds[row.spec], unit) for row in table)
    return Report(
        rows=found,
        bound=_bound(found, unit, variances(trials.trained_rows) / rows.d),
        choices=choices_of(found, trials.asked[1].shape[1]),
        setting=_setting(rows, trials, queries is not None, seed),
        evidence=Evidence.of(trials, table),
    )


def _marked(tried: list[Tried]) -> list[Tried]:
    """By rising bytes per row, with the front marked: no codec of fewer has as much recall."""
    rows, best = [], -1.0
    for row in sorted(tried, key=lambda row: (row.code_size, -(row.recall or 0.0))):
        rows.append(replace(row, on_front=(row.recall or 0.0) > best))
        best = max(best, row.recall or 0.0)
    return rows


def _row(tried: Tried, speeds: Speeds, unit: torch.Tensor) -> ReportRow:
    assert tried.recall is not None
    assert tried.rescored_recall is not None
    return ReportRow(
        spec=tried.spec,
        about=kind_of(tried.codec),
        code_size=tried.code_size,
        nbytes=tried.nbytes,
        ratio=tried.ratio,
        row_cosine=tried.row_cosine,
        mse=tried.mse,
        bound_cosine=cosine_of(distortion(unit, 8 * tried.code_size)),
        recall=tried.recall,
        rescored_recall=tried.rescored_recall,
        encode_speed=speeds.encode,
        decode_speed=speeds.decode,
        search_speed=speeds.search,
        on_front=tried.on_front,
    )


def _bound(rows: tuple[ReportRow, ...], unit: torch.Tensor, per_value: torch.Tensor) -> tuple[BoundRow, ...]:
    """The bound at the sizes of the rows that differ by a quarter or more, where it is not almost 1."""
    sizes: list[int] = []
    for size in sorted({row.code_size for row in rows if row.bound_cosine < _CERTAIN}):
        if not sizes or size >= _APART * sizes[-1]:
            sizes.append(size)
    return tuple(
        BoundRow(size, cosine_of(distortion(unit, 8 * size)), distortion(per_value, 8 * size))
        for size in sizes
    )


def _setting(rows: Rows, trials: Trials, has_queries: bool, seed: int) -> Setting:
    queries, truth = trials.asked
    return Setting(
        n=rows.n,
        d=rows.d,
        dtype=str(rows.dtype).removeprefix("torch."),
        nbytes=rows.n * rows.d * rows.dtype.itemsize,
        fitted=trials.n_trained,
        held_out=len(trials.held_out_rows),
        queries=len(queries),
        has_queries=has_queries,
        k=truth.shape[1],
        metric=_METRIC,
        seed=seed,
        speed_rows=len(some_rows(trials.trained_rows)),
        speed_queries=len(some_queries(queries)),
        device=device_name(rows.device),
        versions=f"gpuzip {__version__}, torch {torch.__version__}",
        date=datetime.date.today().isoformat(),
    )
