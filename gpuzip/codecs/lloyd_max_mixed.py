"""Lloyd-Max quantization with more bits for the dimensions that vary more."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from gpuzip._core.checks import is_whole
from gpuzip._core.progress import Progress
from gpuzip._core.rows import Matrix, Rows
from gpuzip.codecs.base import Codec, Learned, check_names
from gpuzip.codecs.quantizer import Quantizer
from gpuzip.codecs.spec import Words
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.ops import bucketize_packed, code_bytes, decode, unpack_bits
from gpuzip.search.memory import scorer_bytes_without_tables
from gpuzip.search.packed import Packed
from gpuzip.search.scorer import Scorer
from gpuzip.search.scorers.layouts import MixedLayout
from gpuzip.search.scorers.tables import norms_by_table, pq_scorer
from gpuzip.training.scalar_levels import optimal_levels

_WIDTHS = (1, 2, 4, 8)  # bits per value that divide a byte
_FEW = 256  # rows that are decoded sooner than a table of all bytes is made
_COLUMNS = 1 << 12  # columns of a table that are made at a time
_VALUES = 1 << 22  # most values that levels and errors are found from
_LEVELS = sum(1 << width for width in _WIDTHS)


@dataclass(frozen=True, eq=False)
class Allotment(Learned):
    """What `fit` learns.

    bits: (d,) uint8, 0, 1, 2, 4 or 8 per dimension. offset, scale: (d,) float32, mean and standard deviation
    per dimension. levels: (278,) float32, the levels of 1, 2, 4 and 8 bits for standardized values. errors:
    (5, d) float64, the squared error per dimension with 0, 1, 2, 4 and 8 bits; None in a codec from a file.
    """

    bits: Tensor
    offset: Tensor
    scale: Tensor
    levels: Tensor
    errors: Tensor | None = None

    @property
    def d(self) -> int:
        return len(self.bits)

    def codebook(self, width: int) -> Tensor:
        """(2**width,) levels of codes of `width` bits."""
        first = sum(1 << narrower for narrower in _WIDTHS if narrower < width)
        return self.levels[first : first + (1 << width)]

    @cached_property
    def code_size(self) -> int:
        """Bytes per row. Computed once, as it waits for a GPU."""
        return _bytes_of(self.bits)

    def columns(self, width: int) -> Tensor:
        """Dimensions with `width` bits."""
        return (self.bits == width).nonzero()[:, 0]


@dataclass(frozen=True, eq=False, repr=False)
class MixedLloydMaxQuantizer(Quantizer[Allotment]):
    """Quantize with 0, 1, 2, 4 or 8 bits per dimension, `bits` on average, for least squared error.

    Parameters
    ----------
    bits : float, default 1.0
        Mean bits per dimension, above 0 and up to 8; may be a fraction.
    fitted : optional
        What `fit` learned; not for callers.
    rotation : Rotation or str, optional
        Rotation of the rows before they are coded, or its kind.

    Notes
    -----
    A row takes at most max(1, floor(d * bits / 8)) bytes. Values are standardized per dimension, and all
    dimensions of one width share levels, so the codec takes 9 bytes per dimension and 1112. A dimension
    without bits decodes to its mean. Each bit goes where it reduces the error most, as measured on up to 4.2
    million values.

    Source: reverse water-filling (Shannon 1959); Huang and Schultheiss, "Block quantization of correlated
    Gaussian random variables", 1963.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    >>> gpuzip.MixedLloydMaxQuantizer(bits=1.5).fit(x).code_size <= 6
    True
    """

    id = "lloydmax-mixed"
    plain_torch_scores_alike = True
    gather_cost = 1
    spec_words: ClassVar[Words] = {"MixedLloydMax{bits}": {}}

    bits: float = 1.0

    def __post_init__(self) -> None:
        number = isinstance(self.bits, float | int) and not isinstance(self.bits, bool)
        if not (number and 0 < self.bits <= 8):
            raise GpuzipError(
                f"MixedLloydMaxQuantizer: bits must be a number above 0 and up to 8; got {self.bits!r}."
            )
        object.__setattr__(self, "bits", float(self.bits))
        super().__post_init__()

    @property
    def code_size(self) -> int:
        return self.learned("code_size").code_size

    def fit(self, x: Matrix, *, seed: int = 0, progress: Progress = None) -> MixedLloydMaxQuantizer:
        """Find the levels and allot bits to dimensions.

        Parameters
        ----------
        x : (N, D) float tensor, array or memory map
            Rows to fit on; at least 1.
        seed : int, default 0
            Seed of the sample of rows and of the rotation.
        progress : bool or callable, optional
            As in `Codec.fit`.

        Returns
        -------
        MixedLloydMaxQuantizer
            A fitted copy.

        Raises
        ------
        GpuzipError
            If x has no rows.
        """
        return self._fit_rows(x, seed, progress)

    def _learn(self, rows: Rows, seed: int) -> MixedLloydMaxQuantizer:
        who = rows.who
        if rows.n == 0:
            raise GpuzipError(f"{who}: x must have at least one row; got none.")
        rows, rotation = self.rotated(rows, seed)
        sample = rows.sample(max(1, _VALUES // rows.d), seed).float()
        offset = sample.mean(0, dtype=torch.float64).float()
        sample = sample - offset
        scale = sample.square().mean(0, dtype=torch.float64).sqrt().float()
        scale = torch.where(scale > 0, scale, 1)
        sample /= scale
        levels = [optimal_levels(sample.view(1, -1), 1 << width)[0] for width in _WIDTHS]
        errors = [sample.square().mean(0)] + [_error(sample, some) for some in levels]
        unscaled = torch.stack(errors).double() * scale.double().square()
        bits = self._bits_by(unscaled)
        return replace(
            self, fitted=Allotment(bits, offset, scale, torch.cat(levels), unscaled), rotation=rotation
        )

    def fit_like(self, other: Codec) -> MixedLloydMaxQuantizer | None:
        if not isinstance(other, MixedLloydMaxQuantizer) or other.fitted is None:
            return None
        learned = other.fitted
        if learned.errors is None or replace(other, bits=self.bits).spec != self.spec:
            return None
        bits = self._bits_by(learned.errors)
        return replace(self, fitted=replace(learned, bits=bits), rotation=other.rotation)

    def _bits_by(self, errors: Tensor) -> Tensor:
        """(5, d) errors -> (d,) uint8 bits."""
        most = max(1, int(errors.shape[1] * self.bits / 8))
        return _allotted(errors.cpu(), most).to(errors.device)

    def _encode(self, x: Tensor) -> Tensor:
        fitted = self.learned("encode")
        parts = []
        for width in _WIDTHS:
            columns, levels = fitted.columns(width), fitted.codebook(width)
            values = (x[:, columns].float() - fitted.offset[columns]) / fitted.scale[columns]
            parts.append(bucketize_packed(values, ((levels[1:] + levels[:-1]) / 2)[None], width))
        return torch.cat(parts, 1)

    @property
    def centroids(self) -> Tensor:
        """(B, 256, S) float32: the values per byte of a code, in the places that `_slots` gives, else zeros.

        A byte has at most 8 values of its own. Dimensions without bits are spread over the bytes; their
        values are the same for all 256 codes.
        """
        fitted, slots, B, S = self.learned("centroids"), self._slots(), self.code_size, self._width
        byte = torch.arange(256, device=fitted.levels.device)
        table = fitted.levels.new_zeros((B, 256, S))
        for width in _WIDTHS:
            columns, each = fitted.columns(width), 8 // width
            shifts = width * torch.arange(each, device=byte.device)[:, None]
            levels = fitted.codebook(width)[(byte >> shifts) & ((1 << width) - 1)]  # [each, 256]
            place = torch.arange(len(columns), device=byte.device) % each
            for some, at in zip(columns.split(_COLUMNS), place.split(_COLUMNS), strict=True):
                values = levels[at] * fitted.scale[some, None] + fitted.offset[some, None]
                table[slots[some] // S, :, slots[some] % S] = values
        for some in fitted.columns(0).split(_COLUMNS):
            table[slots[some] // S, :, slots[some] % S] = fitted.offset[some, None]
        return table

    @property
    def _width(self) -> int:
        """S: 8 values of the byte, then its share of the dimensions without bits."""
        return 8 + -(-len(self.learned("width").columns(0)) // self.code_size)

    def _slots(self) -> Tensor:
        """(d,) int64: place of each dimension among the B * S values."""
        fitted, S = self.learned("slots"), self._width
        slots, first = torch.empty(self.width, dtype=torch.int64, device=fitted.bits.device), 0
        for width in _WIDTHS:
            columns, each = fitted.columns(width), 8 // width
            place = torch.arange(len(columns), device=slots.device)
            slots[columns] = (first + place // each) * S + place % each
            first += -(-len(columns) // each)
        none = fitted.columns(0)
        place = torch.arange(len(none), device=slots.device)
        slots[none] = place % first * S + 8 + place // first
        return slots

    def _decode(self, data: Tensor) -> Tensor:
        if len(data) <= _FEW:
            return self._decode_few(data)
        return decode(data, self.centroids).index_select(1, self._slots())

    def _decode_rows(self, data: Tensor, ids: Tensor) -> Tensor:
        if len(ids) <= _FEW:
            return self._decode_few(data[ids])
        return decode(data, self.centroids, ids).index_select(1, self._slots())

    def _decode_few(self, data: Tensor) -> Tensor:
        """`_decode` without the table, to the same values."""
        fitted, first = self.learned("decode"), 0
        rows = fitted.offset.repeat(len(data), 1)
        for width in _WIDTHS:
            columns = fitted.columns(width)
            stop = first + code_bytes(len(columns), width)
            codes = unpack_bits(data[:, first:stop].contiguous(), len(columns), width)
            values = fitted.codebook(width)[codes.long()]
            rows[:, columns] = values * fitted.scale[columns] + fitted.offset[columns]
            first = stop
        return rows

    def _norms(self, data: Tensor) -> Tensor:
        return norms_by_table(data, self.centroids)

    def _scorer(self, packed: Packed, queries: Tensor, metric: str, mask: Tensor | None) -> Scorer:
        centroids = packed.remembered("bytes", lambda: self.centroids)
        wide = queries.new_zeros((len(queries), centroids.shape[0] * centroids.shape[2]))
        slots = packed.remembered("slots", self._slots)
        wide[:, slots] = queries
        return pq_scorer(packed, centroids, wide, metric, mask, packed.remembered("layout", self._layout))

    def _layout(self) -> MixedLayout:
        fitted = self.learned("layout")
        columns = {width: fitted.columns(width) for width in (*_WIDTHS, 0)}
        counts, order = {width: len(columns[width]) for width in _WIDTHS}, torch.cat(list(columns.values()))
        of_columns = fitted.scale[order], fitted.offset[order], self._slots()[order]
        return MixedLayout(counts, fitted.levels, *of_columns)

    @property
    def scorer_bytes(self) -> int:
        return 3 * 4 * 256 * self.code_size

    @property
    def first_scorer_bytes(self) -> int:
        return scorer_bytes_without_tables(self.width, self.code_size, self.scorer_bytes)

    def _config(self) -> dict[str, Any]:
        return {"bits": self.bits, "d": self.width}

    def _state(self) -> dict[str, Tensor]:
        fitted = self.learned("state")
        names = ("bits", "offset", "scale", "levels")
        return {name: getattr(fitted, name) for name in names}

    @classmethod
    def _restore(cls, config: dict[str, Any], state: dict[str, Tensor]) -> MixedLloydMaxQuantizer:
        check_names(cls.id, config, {"bits", "d"}, state, {"bits", "offset", "scale", "levels"})
        bits, offset, scale, levels = (state[name] for name in ("bits", "offset", "scale", "levels"))
        d = config["d"]
        plausible = (
            is_whole(d)
            and d >= 1
            and bits.dtype == torch.uint8
            and bits.shape == offset.shape == scale.shape == (d,)
            and offset.dtype == scale.dtype == levels.dtype == torch.float32
            and levels.shape == (_LEVELS,)
            and set(bits.tolist()) <= {0, *_WIDTHS}
            and bool((bits > 0).any() and (scale > 0).all())
        )
        if not plausible:
            raise FormatError(
                f"{cls.id}: bits, offset and scale must be (d,) with d={d!r} and levels ({_LEVELS},); got "
                f"{tuple(bits.shape)}, {tuple(offset.shape)}, {tuple(scale.shape)} and {tuple(levels.shape)}."
            )
        return cls(config["bits"], fitted=Allotment(bits, offset, scale, levels))


def _bytes_of(bits: Tensor) -> int:
    return sum(-(-int((bits == width).sum()) * width // 8) for width in _WIDTHS)


def _error(sample: Tensor, levels: Tensor) -> Tensor:
    """(d,) float64: mean squared error per column."""
    total = sample.new_zeros(sample.shape[1], dtype=torch.float64)
    ends = (levels[1:] + levels[:-1]) / 2
    for part in sample.split(4096):
        total += (part - levels[torch.bucketize(part, ends)]).square().sum(0, dtype=torch.float64)
    return total / len(sample)


def _allotted(errors: Tensor, B: int) -> Tensor:
    """(5, d) errors with 0, 1, 2, 4 and 8 bits -> (d,) uint8 bits, in at most B bytes.

    A step raises a dimension to the next width. Steps are taken by falling gain per bit, up to the first that
    does not fit.
    """
    cost = torch.tensor([1, 1, 2, 4], device="cpu")
    gain = (errors[:-1] - errors[1:]) / cost[:, None]
    gain = gain.clamp(min=0).cummin(0).values  # a step cannot come before the one that it builds on
    order = gain.flatten().argsort(descending=True, stable=True)
    step, column = order // errors.shape[1], order % errors.shape[1]
    widths = torch.tensor([0, *_WIDTHS], device="cpu")
    taken, most = 0, int((cost[step].cumsum(0) <= 8 * B).sum())
    for taken in range(most, 0, -1):
        steps = torch.bincount(column[:taken], minlength=errors.shape[1])
        if _bytes_of(widths[steps]) <= B:
            break
    return widths[torch.bincount(column[: max(1, taken)], minlength=errors.shape[1])].to(torch.uint8)
