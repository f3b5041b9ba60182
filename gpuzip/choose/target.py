"""The target of a choice: limits on size and floors on quality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpuzip._core.checks import Metric, check_metric, whole
from gpuzip._core.rows import Rows
from gpuzip.choose.by_bytes import parse_bytes
from gpuzip.errors import GpuzipError
from gpuzip.storage import LONG_HEADER_BYTES, table_bytes

_USES = ("search", "storage")


@dataclass(frozen=True)
class Target:
    """Limits on size, floors on quality, and what to measure.

    Attributes
    ----------
    max_bytes : int or None
        Upper bound on the bytes of the file.
    code_bytes : int or None
        Upper bound on the bytes per row of the codes.
    min_cosine, min_recall : float or None
        Floors.
    search : bool
        Measure the recall of the k nearest rows by `metric`.
    rescore : bool
        The floor is for the recall of a search that rescores its candidates.
    asked : str
        The caller's arguments, for messages.
    """

    max_bytes: int | None
    code_bytes: int | None
    min_cosine: float | None
    min_recall: float | None
    search: bool
    k: int
    metric: Metric
    rescore: bool
    asked: str

    @property
    def has_floor(self) -> bool:
        return self.min_cosine is not None or self.min_recall is not None

    def row_bytes(self, n: int, state: int) -> int | None:
        """Most bytes per row for n rows and a codec of `state` bytes; None without a limit."""
        if self.max_bytes is None:
            return self.code_bytes
        beside = LONG_HEADER_BYTES + table_bytes(self.max_bytes) + state
        return max(0, (self.max_bytes - beside) // max(1, n))

    @property
    def is_of_these_rows(self) -> bool:
        """Whether only the rows themselves count, so that none are held out."""
        return not (self.has_floor or self.search)


@dataclass(frozen=True)
class Asked:
    """The arguments of `gpuzip.compress` that make a target, as given."""

    max_bytes: int | str | None
    bits_per_dim: float | None
    ratio: float | None
    min_cosine: float | None
    min_recall: float | None
    k: int
    metric: Metric
    rescore: bool
    for_: str | None

    @property
    def sizes(self) -> dict[str, Any]:
        return _given(self, "max_bytes", "bits_per_dim", "ratio")

    @property
    def floors(self) -> dict[str, Any]:
        return _given(self, "min_cosine", "min_recall")


def _given(asked: Asked, *names: str) -> dict[str, Any]:
    return {name: getattr(asked, name) for name in names if getattr(asked, name) is not None}


def target_of(who: str, rows: Rows, asked: Asked, n: int | None = None) -> Target:
    """The target of a caller's arguments. Raises GpuzipError if they contradict each other.

    n: how many rows it is for, where these are a sample of them.
    """
    _check(who, asked)
    return Target(
        max_bytes=_file_bytes(who, rows, asked, rows.n if n is None else n),
        code_bytes=_code_bytes(who, rows, asked),
        min_cosine=asked.min_cosine,
        min_recall=asked.min_recall,
        search=asked.for_ == "search" or asked.min_recall is not None or asked.rescore,
        k=whole(who, "k", asked.k),
        metric=asked.metric,
        rescore=asked.rescore,
        asked=", ".join(f"{name}={value}" for name, value in (asked.sizes | asked.floors).items()),
    )


def _check(who: str, asked: Asked) -> None:
    if len(asked.sizes) > 1:
        raise GpuzipError(f"{who}: one size must be given; got {' and '.join(asked.sizes)}. Omit one.")
    if not asked.sizes and not asked.floors:
        raise GpuzipError(f"{who}: max_bytes, bits_per_dim, ratio, min_cosine or min_recall must be given.")
    if asked.for_ not in (None, *_USES):
        raise GpuzipError(f"{who}: for_ must be 'search' or 'storage'; got {asked.for_!r}.")
    if asked.for_ == "storage" and (asked.min_recall is not None or asked.rescore):
        raise GpuzipError(f"{who}: min_recall and rescore must not be given with for_='storage'. Omit one.")
    if not isinstance(asked.rescore, bool):
        raise GpuzipError(f"{who}: rescore must be True or False; got {asked.rescore!r}.")
    check_metric(who, asked.metric)
    for name, value in asked.floors.items():
        _number(who, name, value, 1)
    if asked.min_recall == 1:
        raise GpuzipError(
            f"{who}: min_recall must be below 1, as no number of queries can show that all others find "
            f"everything; got {asked.min_recall!r}. Ask for 0.99, or use HalfQuantizer."
        )


def _file_bytes(who: str, rows: Rows, asked: Asked, n: int) -> int | None:
    if asked.max_bytes is not None:
        return parse_bytes(who, "max_bytes", asked.max_bytes)
    if asked.ratio is not None:
        return int(n * rows.d * rows.dtype.itemsize / _number(who, "ratio", asked.ratio))
    return None


def _code_bytes(who: str, rows: Rows, asked: Asked) -> int | None:
    if asked.bits_per_dim is None:
        return None
    return int(_number(who, "bits_per_dim", asked.bits_per_dim, 8) * rows.d / 8)


def table_target(who: str, k: int, metric: Metric) -> Target:
    """A target without limits and floors, for which recall is measured."""
    check_metric(who, metric)
    return Target(None, None, None, None, True, whole(who, "k", k), metric, False, "a table")


def _number(who: str, name: str, value: Any, most: float | None = None) -> float:
    fits = isinstance(value, float | int) and not isinstance(value, bool) and 0 < value < float("inf")
    if not fits or (most is not None and value > most):
        needed = "above 0" if most is None else f"above 0 and up to {most}"
        raise GpuzipError(f"{who}: {name} must be a number {needed}; got {value!r}.")
    return float(value)
