"""Codes within a number of bytes: bits go where they reduce the error most."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import is_whole, whole
from gpuzip._core.rows import BLOCK_BYTES, Matrix, Rows
from gpuzip.codecs import LloydMaxQuantizer, MixedLloydMaxQuantizer, Quantizer
from gpuzip.codecs.codes import Codes
from gpuzip.codecs.mixed import MixedCodes
from gpuzip.errors import GpuzipError, QualityError
from gpuzip.ops import code_bytes
from gpuzip.storage import HEADER_BYTES, MANIFEST_BYTES, table_bytes

Importance = Tensor | np.ndarray[Any, Any] | Sequence[float]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmg]i?)?b?\s*", re.IGNORECASE)
_SAMPLE = 1 << 18  # values to measure the error per number of bits
_TRIED = 4096  # rows to compare codecs on
_FITTED = 1 << 24  # most values to fit a group's codec on


@dataclass(frozen=True)
class Budget:
    """Upper bound on the bytes of a file or folder, or on the bits of codes per dimension."""

    max_bytes: int | None
    bits_per_dim: float | None

    def code_bits(self, n: int, d: int, beside: int) -> float:
        """Most bits of the codes of n rows, if files hold `beside` bytes of other data."""
        if self.max_bytes is None:
            assert self.bits_per_dim is not None
            return self.bits_per_dim * n * d
        return 8.0 * (self.max_bytes - beside - table_bytes(self.max_bytes))

    def row_bits(self, codec: Quantizer, d: int) -> int:
        """Bits per row that count: of values alone for `bits_per_dim`, of whole bytes for `max_bytes`."""
        if self.max_bytes is None and isinstance(codec, LloydMaxQuantizer):
            return d * codec.bits
        return 8 * _size(codec, d)


def parse_bytes(who: str, name: str, value: int | str) -> int:
    """Bytes from a whole number or text: "20MB" (10**6), "1.5 GiB" (2**30), "300k". Raises GpuzipError."""
    if is_whole(value) and int(value) > 0:
        return int(value)
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if not found or float(found[1]) == 0:
        raise GpuzipError(f"{who}: {name} must be a number of bytes, or text such as '20MB'; got {value!r}.")
    return int(float(found[1]) * _UNITS[(found[2] or "").lower()])


def fit_by_importance(
    who: str,
    x: Matrix,
    max_bytes: int | str | None,
    bits_per_dim: float | None,
    importance: Importance,
    max_bits: int,
    seed: int,
) -> MixedCodes:
    """Lloyd-Max codes within a budget, with more bits for rows of more importance."""
    rows, budget = _some_rows(who, x), _budget(who, max_bytes, bits_per_dim)
    rates = _rates(rows.d, whole(who, "max_bits", max_bits, 1, 8))
    return _by_importance(who, rates, rows, budget, importances(who, importance, rows.n), seed)


def fit_alike(
    who: str, x: Matrix, max_bytes: int | str | None, bits_per_dim: float | None, seed: int
) -> Codes:
    """Codes of one size, by the codec within the budget that has the least error on some rows."""
    rows, budget = _some_rows(who, x), _budget(who, max_bytes, bits_per_dim)
    fitted = [codec.fit(x, seed=seed) for codec in _candidates(rows, budget)]
    if not fitted:
        smallest = MixedLloydMaxQuantizer(8 / rows.d)
        raise _too_small(who, budget, rows, HEADER_BYTES + rows.n + _state(smallest, rows.d))
    tried = rows.sample(_TRIED, seed)
    errors = [_error(codec, tried) for codec in fitted]
    return fitted[errors.index(min(errors))].encode(x)


def _some_rows(who: str, x: Matrix) -> Rows:
    rows = Rows(who, x)
    if rows.n == 0:
        raise GpuzipError(f"{who}: x must have at least one row; got none.")
    return rows


def _budget(who: str, max_bytes: int | str | None, bits_per_dim: float | None) -> Budget:
    if (max_bytes is None) == (bits_per_dim is None):
        raise GpuzipError(f"{who}: one of max_bytes and bits_per_dim must be given; got both or none.")
    if max_bytes is not None:
        return Budget(parse_bytes(who, "max_bytes", max_bytes), None)
    number = isinstance(bits_per_dim, float | int) and not isinstance(bits_per_dim, bool)
    if not (number and bits_per_dim is not None and 0 < bits_per_dim <= 8):
        raise GpuzipError(f"{who}: bits_per_dim must be a number above 0 and up to 8; got {bits_per_dim!r}.")
    return Budget(None, float(bits_per_dim))


def importances(who: str, importance: Importance, n: int) -> Tensor:
    """(n,) float64. Raises GpuzipError unless there is one number per row, finite and not negative."""
    try:
        values = torch.as_tensor(importance, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise GpuzipError(f"{who}: importance must be numbers: {error}.") from error
    if values.shape != (n,) or not bool((values.isfinite() & (values >= 0)).all()):
        raise GpuzipError(
            f"{who}: importance must be ({n},) finite numbers of at least 0, one per row; got "
            f"shape {tuple(values.shape)}."
        )
    return values


def _candidates(rows: Rows, budget: Budget) -> list[Quantizer]:
    """Codecs of equal and of mixed bits per dimension, as large as the budget allows."""
    plain = _bytes_per_row(rows, budget, 4 << 8)
    mixed = _bytes_per_row(rows, budget, _state(MixedLloydMaxQuantizer(), rows.d))
    widest = [LloydMaxQuantizer(bits) for bits in range(8, 0, -1) if code_bytes(rows.d, bits) <= plain][:1]
    return [*widest, MixedLloydMaxQuantizer(min(8.0, mixed * 8 / rows.d))] if mixed > 0 else [*widest]


def _bytes_per_row(rows: Rows, budget: Budget, state: int) -> int:
    return int(budget.code_bits(rows.n, rows.d, state + HEADER_BYTES) / rows.n // 8)


def _size(codec: Quantizer, d: int) -> int:
    """Bytes per row of a codec that is not fitted."""
    if isinstance(codec, LloydMaxQuantizer):
        return code_bytes(d, codec.bits)
    assert isinstance(codec, MixedLloydMaxQuantizer)
    return max(1, int(d * codec.bits / 8))


def _state(codec: Quantizer, d: int) -> int:
    """Bytes of the state of a codec that is not fitted."""
    return 4 << codec.bits if isinstance(codec, LloydMaxQuantizer) else 9 * d + 1112


def _by_importance(
    who: str, rates: list[Quantizer], rows: Rows, budget: Budget, importance: Tensor, seed: int
) -> MixedCodes:
    """Codes of rows in groups, for the least error weighted by importance; see `allot_rows`."""
    sample = rows.sample(max(1, _SAMPLE // rows.d), seed)
    errors = torch.tensor(
        [_error(codec.fit(sample, seed=seed), sample) for codec in rates], dtype=torch.float64, device="cpu"
    )
    every = list(range(len(rates)))
    chosen = _chosen(rates, every, rows, budget, importance, errors)
    if chosen is None:
        chosen = _chosen(rates, every[:1], rows, budget, importance, errors)
    if chosen is None:
        raise _too_small(who, budget, rows, _beside(rates[:1], rows) + rows.n * _size(rates[0], rows.d))
    # Again without the rates that no row has, whose headers and levels cost bytes.
    chosen = _chosen(rates, chosen.unique().tolist(), rows, budget, importance, errors)
    assert chosen is not None
    used = chosen.unique(sorted=True).flip(0)
    group = torch.searchsorted(-used.int(), -chosen.int()).to(torch.uint8)
    parts = [_coded(rates[int(rate)], rows, (chosen == rate).nonzero()[:, 0], seed) for rate in used]
    return MixedCodes(parts, group.to(rows.device))


def _chosen(
    rates: Sequence[Quantizer],
    allowed: list[int],
    rows: Rows,
    budget: Budget,
    importance: Tensor,
    errors: Tensor,
) -> Tensor | None:
    """(N,) index of each row's rate among the allowed ones; None if not even the smallest fits."""
    sizes = torch.tensor([budget.row_bits(rates[i], rows.d) for i in allowed], device="cpu")
    beside = _beside([rates[i] for i in allowed], rows)
    spare = int(budget.code_bits(rows.n, rows.d, beside)) - rows.n * int(sizes[0])
    if spare < 0:
        return None
    steps = allot_rows(importance, -errors[allowed].diff(), sizes.diff(), spare)
    return torch.tensor(allowed, device="cpu")[steps.long()]


def _beside(rates: Sequence[Quantizer], rows: Rows) -> int:
    """Bytes of a folder of such codes, without the codes."""
    return MANIFEST_BYTES + rows.n + sum(HEADER_BYTES + _state(codec, rows.d) for codec in rates)


def _rates(d: int, max_bits: int) -> list[Quantizer]:
    """Codecs by rising bytes per row: 1/4 and 1/2 bit per value if those are smaller, then 1 to max_bits."""
    codecs: list[Quantizer] = [LloydMaxQuantizer(bits) for bits in range(max_bits, 0, -1)]
    for bits in (0.5, 0.25):
        if _size(MixedLloydMaxQuantizer(bits), d) < _size(codecs[-1], d):
            codecs.append(MixedLloydMaxQuantizer(bits))
    distinct = {_size(codec, d): codec for codec in codecs}  # the last, of fewest bits, among equal sizes
    return [distinct[size] for size in sorted(distinct)]


def allot_rows(importance: Tensor, gains: Tensor, costs: Tensor, spare: int) -> Tensor:
    """(N,) uint8: index of each row's rate, 0 the smallest, for least weighted error within `spare` bits.

    gains: (R,) how much each step to the next rate reduces a row's error; costs: (R,) its bits. Steps are
    taken by falling importance * gain / cost, the first rows first among equals, until the next one does not
    fit: water-filling with few rates.
    """
    if len(costs) == 0:
        return torch.zeros(len(importance), dtype=torch.uint8, device="cpu")
    slopes = (
        (gains / costs).clamp(min=0).cummin(0).values
    )  # a step cannot come before the one that it builds on
    worth = importance[:, None] * slopes  # [N, R]
    order = worth.flatten().argsort(descending=True, stable=True)
    paid = costs[order % len(costs)].cumsum(0)
    taken = order[: int((paid <= spare).sum())] // len(costs)
    return torch.bincount(taken, minlength=len(importance)).to(torch.uint8)


def _error(codec: Quantizer, x: Tensor) -> float:
    return float((codec.encode(x).decode(torch.float32) - x).square().mean(dtype=torch.float64))


def _coded(codec: Quantizer, rows: Rows, ids: Tensor, seed: int) -> Codes:
    """Codes of some rows by a codec fitted on them; rows are read in blocks."""
    some = min(len(ids), max(1, _FITTED // rows.d))
    drawn = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed), device="cpu")[:some]
    codec = codec.fit(rows.rows(ids[drawn.sort().values]), seed=seed)
    blocks = ids.split(max(1, BLOCK_BYTES // (4 * rows.d)))
    return Codes(codec, torch.cat([codec.encode_block(rows.rows(part)) for part in blocks]), rows.dtype)


def _too_small(who: str, budget: Budget, rows: Rows, least: int) -> QualityError:
    asked = f"max_bytes={budget.max_bytes}"
    needed = (
        f"{least + table_bytes(2 * least)} bytes are needed for the smallest codes, their levels and headers"
    )
    if budget.max_bytes is None:
        asked, needed = f"bits_per_dim={budget.bits_per_dim}", "at least 1 byte per row is needed"
    return QualityError(f"{who}: {asked} is too small for {rows.n} x {rows.d}: {needed}.")
