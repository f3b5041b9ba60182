"""Measures of compression quality: cosine, squared error, recall."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from gpuzip._core.checks import METRICS
from gpuzip.errors import FormatError, GpuzipError


def _is_measure(name: str, value: Any) -> bool:
    """Whether a field of a Quality or HeldOut can have been measured."""
    if name in ("cosine", "row_cosine"):
        return bool(-1 <= value <= 1)
    if name in ("recall", "rescored_recall"):
        return bool(0 <= value <= 1)
    if name == "metric":
        return value in METRICS
    return bool(0 <= value < float("inf"))


@dataclass(frozen=True)
class Quality:
    """Hold the error of decoded rows against the source rows.

    Attributes
    ----------
    cosine : float
        Cosine between the two matrices, flattened (as embzip reports it).
    row_cosine : float
        Mean cosine over the rows that have a direction: a source row of zeros has none, and is not counted.
        1 where no row has one.
    mse : float
        Mean squared error per value, over all rows.
    """

    cosine: float
    row_cosine: float
    mse: float

    def to_json(self) -> dict[str, float]:
        """Return the fields as JSON."""
        return {name: float(f"{value:.6g}") for name, value in asdict(self).items()}

    @staticmethod
    def is_json(fields: Any) -> bool:
        """Return whether fields have the names, types and ranges that `to_json` writes.

        Parameters
        ----------
        fields : object
            Parsed JSON.

        Returns
        -------
        bool
            Whether `Quality(**fields)` restores them.
        """
        names = {"cosine", "row_cosine", "mse"}
        return (
            isinstance(fields, dict)
            and set(fields) == names
            and all(type(v) is float and _is_measure(name, v) for name, v in fields.items())
        )


@dataclass(frozen=True)
class HeldOut:
    """Hold the quality of a codec on rows that it was not fitted on.

    Attributes
    ----------
    rows : int
        Number of rows that were held out.
    row_cosine, mse : float
        As in Quality.
    k : int or None
        Number of true neighbours per row that recall counts.
    metric : str or None
        Metric of those neighbours.
    recall : float or None
        Mean share of the k true neighbours that a search of the codes finds.
    rescored_recall : float or None
        The same for a search whose 4k candidates are rescored by the source rows.
    queries : int or None
        Number of the caller's queries that recall was measured with. None: held-out rows were the queries,
        and other queries may find less.

    Notes
    -----
    Attributes that were not measured are None.
    """

    rows: int
    row_cosine: float
    mse: float
    k: int | None = None
    metric: str | None = None
    recall: float | None = None
    rescored_recall: float | None = None
    queries: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        found = {name: value for name, value in asdict(self).items() if value is not None}
        return {name: float(f"{v:.6g}") if isinstance(v, float) else v for name, v in found.items()}

    @classmethod
    def of_json(cls, measured: Any) -> HeldOut:
        """Make the HeldOut that `to_json` wrote.

        Parameters
        ----------
        measured : object
            Parsed JSON.

        Returns
        -------
        HeldOut
            The same values.

        Raises
        ------
        FormatError
            If the fields are not those that `to_json` writes.
        """
        kinds = {"rows": int, "row_cosine": float, "mse": float, "k": int, "metric": str}
        kinds |= {"recall": float, "rescored_recall": float, "queries": int}
        known = isinstance(measured, dict) and {"rows", "row_cosine", "mse"} <= set(measured) <= set(kinds)
        if not known or not all(
            type(value) is kinds[name] and _is_measure(name, value) for name, value in measured.items()
        ):
            raise FormatError(f"held_out: fields must be those of a HeldOut; got {measured!r:.200}.")
        return cls(**measured)

    def __str__(self) -> str:
        parts = [f"cosine {self.row_cosine:.6g}"]
        if self.recall is not None:
            parts.append(f"recall@{self.k} {self.recall:.6g}")
        if self.rescored_recall is not None:
            parts.append(f"rescored {self.rescored_recall:.6g}")
        if self.recall is None:
            return f"{', '.join(parts)} on {self.rows} rows"
        asked = "for queries like the rows" if self.queries is None else f"for {self.queries} queries"
        return f"{', '.join(parts)} by {self.metric} on {self.rows} rows, {asked}"


class QualityMeter:
    """Sums over blocks of (source, decoded) rows, in float64."""

    def __init__(self) -> None:
        self._rows = self._values = self._directed = 0
        self._dot = self._source = self._decoded = self._error = self._row_cosines = 0.0

    def add(self, source: Tensor, decoded: Tensor) -> None:
        """Add (n, D) source rows and their decoded forms."""
        x, y = source.double(), decoded.double()
        dot, xx, yy = ((a * b).sum(1) for a, b in ((x, y), (x, x), (y, y)))
        self._rows += len(source)
        self._values += source.numel()
        self._dot += float(dot.sum())
        self._source += float(xx.sum())
        self._decoded += float(yy.sum())
        self._error += float((x - y).square().sum())
        cosines = of_rows(x, y)[1]
        self._directed += len(cosines)
        self._row_cosines += float(cosines.sum())

    def result(self) -> Quality | None:
        """The quality of all rows added, or None if there are none."""
        if self._rows == 0:
            return None
        norms = (self._source * self._decoded) ** 0.5
        cosine = self._dot / norms if norms > 0 else float(self._source == self._decoded)
        row_cosine = self._row_cosines / self._directed if self._directed else 1.0
        return Quality(cosine, row_cosine, self._error / self._values)


def of_rows(source: Tensor, decoded: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared error of each row (n,), and cosine of each whose source is not zero (m,); float64.

    A row of zeros has no direction to keep. One with a direction that is decoded to zeros has cosine 0.
    """
    x, y = source.double(), decoded.double()
    error, directed = (x - y).square().mean(1), (x != 0).any(1)
    x, y = x[directed], y[directed]
    dot, xx, yy = ((a * b).sum(1) for a, b in ((x, y), (x, x), (y, y)))
    return error, torch.where(yy > 0, dot / (xx * yy).sqrt().clamp(min=1e-300), 0.0)


def mean_or(values: Tensor, default: float) -> float:
    """The mean, or a default where there are no values."""
    return float(values.mean()) if len(values) else default


def recall(ids: Tensor, truth: Tensor) -> float:
    """Compute the share of true neighbours found: mean over queries of |ids & truth| / |truth|.

    Parameters
    ----------
    ids : (Q, k) int tensor
        Rows found for each query.
    truth : (Q, k) int tensor
        True nearest rows of each query.

    Returns
    -------
    float
        Mean recall, 0 to 1.

    Raises
    ------
    GpuzipError
        If ids and truth do not have one row per query each.

    Examples
    --------
    >>> import gpuzip, torch
    >>> gpuzip.recall(torch.tensor([[0, 1]]), torch.tensor([[1, 2]]))
    0.5
    """
    if ids.shape[0] != truth.shape[0]:
        raise GpuzipError(
            f"recall: ids and truth must have one row per query; got {len(ids)} and {len(truth)} rows."
        )
    found = (ids[:, :, None] == truth[:, None, :]).any(1)
    return float(found.double().mean())
