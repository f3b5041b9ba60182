"""What is asked of codes: how small they must be, and how good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpuzip.budget import parse_bytes
from gpuzip.errors import GpuzipError
from gpuzip.rows import Rows, whole
from gpuzip.search import check_metric

#: Bytes of a file beside its codes and what decodes them, at most.
HEADER = 2048

_USES = ("search", "storage")


@dataclass(frozen=True)
class Target:
    """Limits of size, `max_bytes` of a file and `code_bytes` a row, floors of quality, and what is measured.

    search: whether recall is measured, of the k nearest by the metric, with candidates rescored or without.
    asked: the arguments that were given, in words.
    """

    max_bytes: int | None
    code_bytes: int | None
    min_cosine: float | None
    min_recall: float | None
    search: bool
    k: int
    metric: str
    rescore: bool
    asked: str

    @property
    def has_floor(self) -> bool:
        return self.min_cosine is not None or self.min_recall is not None


def target_of(
    who: str,
    rows: Rows,
    *,
    max_bytes: int | str | None,
    bits_per_dim: float | None,
    ratio: float | None,
    min_cosine: float | None,
    min_recall: float | None,
    k: int,
    metric: str,
    rescore: bool,
    for_: str | None,
) -> Target:
    """Raises GpuzipError for arguments that are no target."""
    given = {"max_bytes": max_bytes, "bits_per_dim": bits_per_dim, "ratio": ratio}
    sizes = [name for name, value in given.items() if value is not None]
    if len(sizes) > 1:
        raise GpuzipError(f"{who}: {' or '.join(sizes)} is needed, and not both.")
    floors = {"min_cosine": min_cosine, "min_recall": min_recall}
    if not sizes and all(value is None for value in floors.values()):
        raise GpuzipError(
            f"{who}: max_bytes, bits_per_dim, ratio, min_cosine or min_recall is needed. Say what to reach."
        )
    if for_ not in (None, *_USES):
        raise GpuzipError(f"{who}: for_ is {for_!r}, 'search' or 'storage' is needed.")
    if for_ == "storage" and (min_recall is not None or rescore):
        raise GpuzipError(f"{who}: min_recall and rescore are of search, for_='storage' is not. Give one.")
    if not isinstance(rescore, bool):
        raise GpuzipError(f"{who}: rescore is {rescore!r}, True or False is needed.")
    check_metric(who, metric)
    for name, value in floors.items():
        if value is not None:
            _number(who, name, value, 1)
    code_bytes = None
    if bits_per_dim is not None:
        code_bytes = int(_number(who, "bits_per_dim", bits_per_dim, 8) * rows.d / 8)
    if max_bytes is not None:
        max_bytes = parse_bytes(who, "max_bytes", max_bytes)
    if ratio is not None:
        max_bytes = int(rows.n * rows.d * rows.dtype.itemsize / _number(who, "ratio", ratio))
    search = for_ == "search" or min_recall is not None or rescore
    asked = ", ".join(f"{name}={value}" for name, value in (given | floors).items() if value is not None)
    return Target(
        max_bytes, code_bytes, min_cosine, min_recall, search, whole(who, "k", k), metric, rescore, asked
    )


def table_target(who: str, k: int, metric: str) -> Target:
    """No limits and no floors: recall of the k nearest by the metric is measured."""
    check_metric(who, metric)
    return Target(None, None, None, None, True, whole(who, "k", k), metric, False, "a table")


def _number(who: str, name: str, value: Any, most: float | None = None) -> float:
    fits = isinstance(value, float | int) and not isinstance(value, bool) and 0 < value < float("inf")
    if not fits or (most is not None and value > most):
        needed = "above 0" if most is None else f"above 0 and up to {most}"
        raise GpuzipError(f"{who}: {name} is {value!r}, a number {needed} is needed.")
    return float(value)
