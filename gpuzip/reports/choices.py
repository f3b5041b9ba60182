"""Which codec of a report to choose for which need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpuzip.reports.rows import Choice, ReportRow

Measure = Callable[[ReportRow], float]


@dataclass(frozen=True)
class _Need:
    """A floor for a measure, and what to have most of above it."""

    need: str
    rule: str
    floor: float
    measure: Measure
    best: Measure


def _small(row: ReportRow) -> float:
    return -row.nbytes


def _needs(k: int) -> list[_Need]:
    recall: Measure = lambda row: row.recall  # noqa: E731
    rescored: Measure = lambda row: row.rescored_recall  # noqa: E731
    return [
        _Need(
            "Search as if nothing had changed",
            f"smallest with recall@{k} of 0.99 or more",
            0.99,
            recall,
            _small,
        ),
        _Need("Search in less memory", f"smallest with recall@{k} of 0.90 or more", 0.9, recall, _small),
        _Need(
            "Search in memory, rescore from disk",
            f"smallest with rescored recall@{k} of 0.99 or more",
            0.99,
            rescored,
            _small,
        ),
        _Need(
            "Get the vectors back",
            "smallest with a cosine of 0.99 or more",
            0.99,
            lambda r: r.row_cosine,
            _small,
        ),
        _Need(
            "Answer most queries per second",
            f"fastest search with recall@{k} of 0.90 or more",
            0.9,
            recall,
            lambda row: row.search_speed,
        ),
        _Need("Store as little as possible", "smallest", -1.0, recall, _small),
    ]


def choices_of(rows: Sequence[ReportRow], k: int) -> tuple[Choice, ...]:
    """A codec for each need; the nearest where none fulfils it."""
    return tuple(_choice(need, rows, k) for need in _needs(k))


def _choice(need: _Need, rows: Sequence[ReportRow], k: int) -> Choice:
    met = [row for row in rows if need.measure(row) >= need.floor]
    row = max(met, key=need.best) if met else max(rows, key=need.measure)
    return Choice(need.need, need.rule, row.spec, bool(met), _facts(row, k))


def _facts(row: ReportRow, k: int) -> str:
    return (
        f"{row.code_size:,} bytes per row, {row.ratio:.1f}x smaller, cosine {row.row_cosine:.4f}, "
        f"recall@{k} {row.recall:.3f}, rescored {row.rescored_recall:.3f}, "
        f"{_per_second(row.search_speed)} queries per second"
    )


def _per_second(speed: float) -> str:
    return f"{float(f'{speed:.3g}'):,.0f}" if speed >= 10 else f"{speed:.2g}"
