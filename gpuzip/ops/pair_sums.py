"""The k best rows by tables for pairs of bytes, which numpy reads sooner than torch reads tables of bytes.

Entries are rounded to whole steps, so that sums fit 16 bits. Rows that may be among the k best, whatever the
rounding, are scored as `adc_scan` scores them: the answer has the bits of `adc_scan` and `topk`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.best import in_order, places_of_best
from gpuzip._core.byte_tables import byte_tables
from gpuzip._core.parallel import map_blocks, rows_per_thread
from gpuzip.ops.adc import RowTerms

Array = np.ndarray[Any, Any]

#: Times as many bytes as the planes: a place in a table takes 8 bytes, since numpy would convert others.
COLUMN_BYTES = 4

_MOST_QUERIES = 4  # for more, tables of bytes side by side read each code once
_FEWEST_ROWS = 4096  # times the square of the queries: to make tables costs as much as some thousand rows
_LEAST_BLOCK, _MOST_BLOCK = 1 << 15, 1 << 17  # rows per block, each of which makes all tables
_MOST_BYTES = 1024  # of a code: the more entries, the more rows may be among the best
_MOST_ENTRIES = 1 << 20  # of rows that are scored again; more, if many are equal, are left to a scan
_PAIR = np.dtype("<u2")
_LARGEST = (1 << 16) - 1
_LEAST_STEP = 2.0**-120
_TINY = 2.0**-140  # of products too small for float32's digits


def pairs_pay(Q: int, N: int, B: int) -> bool:
    """Return whether `best_by_pairs` takes less time than a scan of N codes of B bytes."""
    return 0 < Q <= _MOST_QUERIES and N >= _FEWEST_ROWS * Q * Q and B <= _MOST_BYTES


def pair_columns(planes: Sequence[Tensor]) -> Tensor:
    """Read planes (N, B_p) uint8 as (P, N) int64: pairs of bytes, then a last odd byte, plane by plane."""
    columns = _columns(planes)
    found = np.empty((len(columns), len(planes[0])), np.intp)
    for out, column in zip(found, columns, strict=True):
        np.copyto(out, column)
    return torch.from_numpy(found)


def best_by_pairs(
    planes: Sequence[Tensor], lut: Tensor, k: int, terms: RowTerms, shift: Tensor | None, kept: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """Find what `one_pass.adc_topk` does; None where a scan has to.

    kept: what `pair_columns` returned for the planes; None: pairs are converted in each block.
    """
    columns = _columns(planes) if kept is None else list(kept.numpy())
    tables, widths = byte_tables(lut).numpy(), [plane.shape[1] for plane in planes]
    scores, ids = np.empty((len(lut), k), np.float32), np.empty((len(lut), k), np.intp)
    for q, some in enumerate(tables):
        coef = None if terms.coef is None else terms.coef[q].numpy()
        added = np.float32(0) if shift is None else shift[q, 0].numpy()
        steps = _steps_of(some)
        if steps is None:
            return None
        rows = _candidates(_Query(steps, widths, columns, terms, coef, abs(float(added))), len(planes[0]), k)
        if rows is None:
            return None
        found = _exact(planes, some, terms, coef, rows) + added
        best = in_order(found, np.arange(len(rows)), k)
        scores[q], ids[q] = found[best], rows[best]
    return torch.from_numpy(scores), torch.from_numpy(ids)


def _columns(planes: Sequence[Tensor]) -> list[Array]:
    """Pairs of bytes (N,) uint16, and single bytes (N,) uint8, as views."""
    found: list[Array] = []
    for plane in planes:
        rows = (plane if plane.stride(1) == 1 else plane.contiguous()).numpy()
        even = rows.shape[1] // 2 * 2
        found += [*rows[:, :even].view(_PAIR).T, *rows[:, even:].T]
    return found


def _candidates(query: _Query, N: int, k: int) -> Array | None:
    """Ascending numbers of all rows that may be among the k best; None if these are too many, or too few."""
    block = rows_per_thread(N, _LEAST_BLOCK, _MOST_BLOCK)
    found = map_blocks(lambda start, stop: query.best_of(start, stop, k), N, block)
    error = float(np.max([error for _, _, error in found]))  # NaN if one is
    scores, rows = (np.concatenate(parts) for parts in list(zip(*found, strict=True))[:2])
    if not np.isfinite(2 * error) or len(rows) < k:
        return None
    rows = rows[places_of_best(scores, k, 2 * error)] if len(found) > 1 else rows
    return rows if len(rows) <= max(_MOST_ENTRIES // query.entries, 4 * k) else None


@np.errstate(over="ignore", invalid="ignore")  # as torch
def _exact(
    planes: Sequence[Tensor], tables: Array, terms: RowTerms, coef: Array | None, rows: Array
) -> Array:
    """(R,): the scores of `adc_scan`, by the same additions in the same order."""
    codes = np.concatenate([plane.numpy()[rows] for plane in planes], 1)
    entries = tables[np.arange(len(tables)), codes]
    scores: Array = np.add.accumulate(entries, 1)[:, -1] + np.float32(0)  # no -0.0
    if terms.scale is not None:
        scores *= terms.scale.numpy()[rows]
    if terms.extra is not None and coef is not None:
        for column, factor in zip(terms.extra.numpy()[rows].T, coef, strict=True):
            scores += column * factor
    return scores


class _Steps(NamedTuple):
    """Tables as offset + step * whole: whole (B, 256) uint16. size: that of the largest entries, added up."""

    whole: Array
    step: float
    offset: float
    size: float


def _steps_of(tables: Array) -> _Steps | None:
    """Round tables (B, 256) so that no sum exceeds 16 bits; None if float32 holds no such step."""
    wide = tables.astype(np.float64)
    least, size = wide.min(1), float(np.abs(wide).max(1).sum())
    step = float((wide.max(1) - least).sum()) / (_LARGEST - len(tables)) or 1.0
    if not (np.isfinite(size) and step > _LEAST_STEP):
        return None
    whole = np.rint((wide - least[:, None]) / step).astype(np.uint16)
    return _Steps(whole, step, float(least.sum()), size)


class _Query:
    """Sums of pairs for one query.

    widths: bytes of each plane. columns: see `_columns`. coef: (E,) or None. apart: the size of what is added
    to scores, after which more of them may be equal.
    """

    def __init__(
        self,
        steps: _Steps,
        widths: Sequence[int],
        columns: Sequence[Array],
        terms: RowTerms,
        coef: Array | None,
        apart: float,
    ) -> None:
        self._steps, self._widths, self._columns = steps, widths, columns
        self._terms, self._coef, self._apart = terms, coef, apart
        self.entries = len(steps.whole)

    @np.errstate(over="ignore", invalid="ignore")  # what has no bound is left to a scan
    def best_of(self, start: int, stop: int, k: int) -> tuple[Array, Array, float]:
        """Estimates of the rows of a block that may be among the k best, their numbers, and the error.

        The error is the most by which an estimate and a score differ.
        """
        allowed = None if self._terms.mask is None else self._terms.mask[start:stop].numpy()
        if allowed is not None and not allowed.any():
            return np.empty(0, np.float32), np.empty(0, np.intp), 0.0
        step = np.float32(self._steps.step)
        scores: Array = np.multiply(self._sums(start, stop), step, dtype=np.float32)
        scores += np.float32(self._steps.offset)
        error = self._add_terms(scores, start, stop)
        if not np.isfinite(2 * error):
            return scores[:0], np.empty(0, np.intp), error
        if allowed is not None:
            scores[~allowed] = -np.inf
        places = places_of_best(scores, min(k, stop - start), 2 * error)
        if allowed is not None:
            places = places[allowed[places]]
        return scores[places], places + start, error

    def _sums(self, start: int, stop: int) -> Array:
        n = stop - start
        sums, part = np.zeros(n, np.uint16), np.empty(n, np.uint16)
        place = np.empty(n, np.intp)
        for table, column in zip(self._joined(), self._columns, strict=True):
            at = column[start:stop]
            if at.dtype != np.intp:
                np.copyto(place, at)
                at = place
            np.take(table, at, out=part, mode="clip")  # "raise" would write to another array first
            sums += part
        return sums

    def _joined(self) -> Iterator[Array]:
        """The table of each column; that of a pair lasts until the next one."""
        pair, first = np.empty((256, 256), np.uint16), 0
        for width in self._widths:
            own = self._steps.whole[first : first + width]
            for low, high in zip(own[0::2], own[1::2], strict=False):
                yield np.add(high[:, None], low, out=pair).reshape(-1)
            if width % 2:
                yield own[-1]
            first += width

    def _add_terms(self, scores: Array, start: int, stop: int) -> float:
        """Turn sums into scores in place; returns the most by which these are off.

        An entry is off by half a step. Each product that a score or its estimate sums up may be off by 2**-24
        of the sum of their sizes.
        """
        (scale, _, extra, _), size, coarse = self._terms, self._steps.size, self._steps.step
        if scale is not None:
            factors = scale[start:stop].numpy()
            scores *= factors
            largest = _largest(factors)
            size, coarse = size * largest, coarse * largest
        added = 0
        if extra is not None and self._coef is not None:
            for column, factor in zip(extra[start:stop].numpy().T, self._coef, strict=True):
                products = column * factor
                scores += products
                size, added = size + _largest(products), added + 1
        roundings = (self.entries + 2 * added + 16) * 2.0**-23
        return roundings * (size + self._apart) + 0.501 * self.entries * coarse + _TINY


def _largest(values: Array) -> float:
    """The largest size of values; NaN if one is NaN."""
    return float(np.maximum(values.max(), -values.min()))
