"""RaBitQ: the direction of a row in 1 to 8 bits per dimension, with unbiased estimates of its scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import METRICS, SearchMetric, is_whole, whole
from gpuzip._core.parallel import map_blocks
from gpuzip._core.planes import Planes, split
from gpuzip._core.progress import Progress
from gpuzip._core.rows import SOUND_SQUARES, Matrix, Rows
from gpuzip.codecs._former import formerly
from gpuzip.codecs.base import Learned, check_names
from gpuzip.codecs.quantizer import Quantizer
from gpuzip.codecs.spec import Words
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.ops import decode, pack_bits, rabitq_encode, rabitq_signs, zero_rows
from gpuzip.ops.few import cheaper, grid_few, only, rabitq_few
from gpuzip.ops.grid import Array, facts_of, grid_pays
from gpuzip.ops.row_reader import RowReader, grid_reader
from gpuzip.rotations import Rotation
from gpuzip.search.memory import scorer_bytes_without_tables
from gpuzip.search.packed import Packed, Searched
from gpuzip.search.prepared import OfCodesOrFloats, Prepared
from gpuzip.search.scorer import Scorer
from gpuzip.search.scorers.common import both, sound_rows
from gpuzip.search.scorers.hamming import HammingScorer, prepared_hamming
from gpuzip.search.scorers.rabitq import Kept, RaBitQScorer
from gpuzip.search.scorers.rabitq_factors import (
    DEEP,
    FIRST,
    Terms,
    coefficients,
    deep_bytes,
    first_bytes,
    largest_of,
    read_deep,
    read_first,
    share_of_roundings,
    terms,
)

#: Standard errors between an estimate and its upper bound (RaBitQ's epsilon_0); 2 % of scores exceed theirs.
REACH = 2.0

_SAMPLE = 65_536  # rows for the mean
_PAY = 64  # queries times bits for which products are faster than tables, before tiles are kept
_BLOCK = 256  # rows that are summed while they are in cache
_UNEVEN = ("pca", "balanced", "opq")  # columns have different variances, which one grid does not fit


@dataclass(frozen=True, eq=False)
class Mean(Learned):
    """What `fit` learns. center: (d,) float32, the mean of the rows."""

    center: Tensor

    @property
    def d(self) -> int:
        return len(self.center)


@formerly("center", Mean)
@dataclass(frozen=True, eq=False, repr=False)
class RaBitQuantizer(Quantizer[Mean]):
    """Quantize rows, less their mean, to a grid of 2**bits values per dimension (RaBitQ).

    Parameters
    ----------
    bits : int, default 1
        Bits per dimension, 1 to 8. One bit holds the signs. With more, the signs are a plane of their own:
        `search(rescore=True, candidates="plane")` scans it alone and reads the other bits only for the
        candidates.
    fitted : optional
        What `fit` learned; not for callers.
    rotation : Rotation or str, default "hadamard"
        Rotation of the rows before they are coded, or its kind. "hadamard" gives all dimensions similar
        variance, which the grid needs. A Hadamard mix is appended to "pca", "balanced" and "opq" for the same
        reason.
    reach : float, default 0.0
        Standard errors added to estimates, which makes them upper bounds. Set by `coarse`; not for callers.

    Notes
    -----
    A row takes bits * ceil(D / 8) bytes, and 6 bytes of factors, or 10 where bits is 2 or more.

    Scores are unbiased estimates, over random rotations, of the scores of the source rows. They are not the
    scores of the decoded rows, which are shorter than their sources. By "cosine" an estimate may exceed 1.
    "hamming" compares the signs. A search keeps 8 bytes of factors per row and metric, 12 by "l2".

    Source: Gao and Long, "RaBitQ: quantizing high-dimensional vectors with a theoretical error bound for
    approximate nearest neighbor search", 2024; Gao et al., "Practical and asymptotically optimal quantization
    of high-dimensional vectors in Euclidean space for approximate nearest neighbor search", 2024.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    >>> gpuzip.RaBitQuantizer(bits=4).fit(x).code_size
    26
    """

    id = "rabitq"
    plain_torch_scores_alike = True
    gather_cost = 1
    spec_words: ClassVar[Words] = {"RaBitQ{bits}": {}, "RaBitQ": {"bits": 1}}
    metrics: ClassVar[tuple[SearchMetric, ...]] = (*METRICS, "hamming")
    score_bytes = 8  # blocks of scores, then their concatenation
    coarse_kinds: ClassVar[Mapping[str, bool]] = {"plane": False, "bound": True}
    scores_are_of_decoded_rows = False

    bits: int = 1
    rotation: Rotation | str | None = field(default="hadamard", kw_only=True)
    reach: float = field(default=0.0, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", whole("RaBitQuantizer", "bits", self.bits, 1, 8))
        super().__post_init__()

    @property
    def center(self) -> Tensor:
        """(width,) float32: mean of the rotated rows."""
        return self.learned("center").center

    @property
    def code_size(self) -> int:
        return sum(self.plane_sizes)

    @property
    def plane_sizes(self) -> tuple[int, ...]:
        W = -(-self.width // 8)
        return (W, FIRST) if self.bits == 1 else (W, FIRST, (self.bits - 1) * W, DEEP)

    def fit(self, x: Matrix, *, seed: int = 0, progress: Progress = None) -> RaBitQuantizer:
        """Find the mean of at most 65,536 rows.

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
        RaBitQuantizer
            A fitted copy.

        Raises
        ------
        GpuzipError
            If x has no rows.
        """
        return self._fit_rows(x, seed, progress)

    def _learn(self, rows: Rows, seed: int) -> RaBitQuantizer:
        who = rows.who
        if rows.n == 0:
            raise GpuzipError(f"{who}: x must have at least one row; got none.")
        rotated, rotation = self.rotated(rows, seed)
        if rotation is None:
            return replace(self, fitted=Mean(_mean_of(rows, seed)))
        if rotation.kind in _UNEVEN:
            rotation = rotation.mixed(seed)
            rotated = rows.rotated(rotation.apply, rotation.width)
        if rotation.normalize:
            center = _mean_of(rotated, seed)
        else:  # the mean of rotated rows is the rotated mean
            center = rotation.rotate_queries(_mean_of(rows, seed)[None])[0]
        return replace(self, fitted=Mean(center), rotation=rotation)

    def _encode(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(self.center)
        if self.bits == 1:
            signs, sums, zeros = rabitq_signs(x, self.center)
            return torch.cat([signs, first_bytes(sums, zeros, self.width, length)], 1)
        codes, sums = rabitq_encode(x, self.center, self.bits)
        first, *others = (pack_bits((codes >> bit) & 1, 1) for bit in reversed(range(self.bits)))
        factors = first_bytes(sums, zero_rows(x), self.width, length)
        return torch.cat([first, factors, *others, deep_bytes(sums)], 1)

    def _row_reader(self, data: Tensor | Planes) -> RowReader | None:
        signs, first, *deep = data.parts if isinstance(data, Planes) else data.split(self.plane_sizes, 1)
        return grid_reader([signs, *deep[:1]], deep[1] if deep else first, self.center)

    def _decode(self, data: Tensor) -> Tensor:
        read = self._row_reader(data)
        rows = None if read is None else read(torch.arange(len(data), dtype=torch.int64, device=data.device))
        return self._decoded(data) if rows is None else rows

    def _decoded(self, data: Tensor) -> Tensor:
        """`_decode` in plain torch."""
        signs, first, *deep = data.split(self.plane_sizes, 1)
        step = read_deep(deep[1])[0] if deep else read_first(first).step
        planes = [signs, *(deep[0].split(signs.shape[1], 1) if deep else ())]
        table = _signs(data.device)
        grid = torch.zeros((len(data), self.width), device=data.device, dtype=torch.float32)
        for plane in planes:
            grid = 2 * grid + decode(plane.contiguous(), table, None, plane.shape[1])[:, : self.width]
        return self.center + step[:, None] * grid

    def _scorer(self, packed: Packed, queries: Tensor, metric: str, mask: Tensor | None) -> Scorer:
        if metric == "hamming":
            signs = self._planes(packed, 0)[0]
            return HammingScorer(signs, self._signs_of(queries), mask, lambda: packed.turned([signs]))
        found, sound = self._of_rows(packed, metric)
        asked, planes = coefficients(queries, self.center, metric, self.reach), self._planes(packed)
        verify = partial(packed.verified, planes=range(0, len(planes), 2))
        largest = partial(packed.remembered, f"largest terms-{metric}", partial(largest_of, found))
        of_codes = [*planes[::2]]
        kept: Kept = partial(packed.turned, of_codes), lambda Q: None
        if grid_pays(of_codes, self.width):
            kept = (lambda: None), partial(self._grid, packed, of_codes, found, metric)
        return RaBitQScorer(of_codes, found, asked, both(mask, sound), verify, largest, *kept)

    def _grid(
        self, packed: Packed, planes: list[Tensor], found: Terms, metric: str, Q: int
    ) -> tuple[Array, Tensor | None] | None:
        """Facts of rows, and tiles of planes or None, for `grid_best`; None where tables take less time."""
        tiles = packed.grid_tiles(planes)
        if tiles is None and Q * self.bits < _PAY:
            return None
        share = share_of_roundings(self.width, planes[0].shape[1] * self.bits, found.extra.shape[1])

        def find() -> Array:
            largest = packed.remembered(f"largest terms-{metric}", partial(largest_of, found))
            return facts_of(planes, found.scale, share, largest)

        return packed.while_unchanged(f"grid facts-{metric}", planes, find), tiles

    def _of_rows(self, packed: Packed, metric: str) -> tuple[Terms, Tensor | None]:
        """Terms of rows, and which rows are sound; see `sound_rows`."""
        found: Terms = packed.remembered(f"terms-{metric}", lambda: self._terms(packed, metric))
        return found, sound_rows(
            packed, metric, lambda: found.scale.isfinite() & found.extra.isfinite().all(1)
        )

    def _prepared(self, packed: Packed, metric: str) -> Prepared | OfCodesOrFloats | None:
        planes = [*self._planes(packed)[::2]]
        if len(packed) == 0:
            return None
        if metric == "hamming":
            return prepared_hamming(packed, planes[0], self.code_size, self.width, self._signs_of_few)
        found, sound = self._of_rows(packed, metric)
        of_rows, asked = (found.scale, sound, found.extra), (self.center, metric, self.reach)
        by_bytes = grid_pays(planes, self.width)
        turned = None if by_bytes else packed.turned(planes)
        few = rabitq_few(planes, asked, of_rows, turned, SOUND_SQUARES)
        if few is None:
            return None
        choice, grid = only(few), self._grid(packed, planes, found, metric, 1) if by_bytes else None
        if grid is not None:
            by_products = grid_few(planes, asked, of_rows, *grid, SOUND_SQUARES)
            choice = cheaper(few, by_products, lambda Q: True)
        return Prepared(choice, planes, len(packed), self.width, torch.float32, metric == "l2")

    def _planes(self, packed: Packed, *whole: int) -> tuple[Tensor, ...]:
        """The planes. whole: those that will be read as a whole, which are verified."""
        packed.verified(slice(None), whole)
        planes: Planes = packed.remembered("planes", lambda: split(packed.raw, self.plane_sizes))
        return planes.parts

    def _terms(self, packed: Packed, metric: str) -> Terms:
        _, first, *deep = self._planes(packed, *range(1, len(self.plane_sizes), 2))
        of_all_bits = read_deep(deep[1]) if deep else None
        return terms(read_first(first), of_all_bits, self.center, metric, self.reach > 0)

    def _signs_of(self, queries: Tensor) -> Tensor:
        """(Q, W) uint8 signs of (Q, width) float queries or (Q, code_size) codes."""
        if queries.dtype == torch.uint8:
            return queries[:, : self.plane_sizes[0]].contiguous()
        return pack_bits((queries >= self.center).to(torch.uint8), 1)

    def _signs_of_few(self, queries: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """What `_signs_of` returns for few rows of floats, by numpy, whose calls take less time."""
        return np.packbits(queries >= self.center.numpy(), axis=1, bitorder="little")

    def coarse(self, packed: Packed, kind: str) -> Searched:
        """Return the signs as codes of one bit, without a copy.

        Parameters
        ----------
        packed : Packed
            The codes.
        kind : {"plane", "bound"}
            Scores by the estimates of the signs, or by upper bounds: estimates plus two standard errors.

        Returns
        -------
        Searched
            The codes of one bit and their codec.
        """
        one = replace(self, bits=1, reach=REACH if kind == "bound" else 0.0)
        first: Packed = packed.remembered(
            kind, lambda: Packed(Planes(self._planes(packed, 0, 1)[:2]), one.norms)
        )
        return Searched(one, first)

    @property
    def scorer_bytes(self) -> int:
        return 3 * 4 * 256 * self.bits * self.plane_sizes[0]

    @property
    def first_scorer_bytes(self) -> int:
        return scorer_bytes_without_tables(self.width, self.code_size, self.scorer_bytes)

    def _config(self) -> dict[str, Any]:
        return {"bits": self.bits, "d": self.width}

    def _state(self) -> dict[str, Tensor]:
        return {"center": self.center}

    @classmethod
    def _restore(cls, config: dict[str, Any], state: dict[str, Tensor]) -> RaBitQuantizer:
        check_names(cls.id, config, {"bits", "d"}, state, {"center"})
        center, d = state["center"], config["d"]
        if not is_whole(d) or d < 1 or center.shape != (d,) or center.dtype != torch.float32:
            raise FormatError(
                f"rabitq: center must be ({d!r},) float32; got {tuple(center.shape)} {center.dtype}."
            )
        return cls(config["bits"], fitted=Mean(center), rotation=None)


def _mean_of(rows: Rows, seed: int) -> Tensor:
    """(d,) float32: the mean of at most _SAMPLE rows."""
    if rows.device.type != "cpu":
        return rows.sample(_SAMPLE, seed).double().mean(0).float()
    sums: list[Tensor] = []

    def add(first: int, x: Tensor) -> bool:
        def some_rows(start: int, stop: int) -> tuple[Tensor, float]:
            block = x[start:stop].float()
            values = block.numpy().reshape(-1)
            with np.errstate(all="ignore"):
                return block.sum(0), float(np.dot(values, values))

        found = map_blocks(some_rows, len(x), _BLOCK)
        sums.extend(total for total, _ in found)
        return sum(squares for _, squares in found) < SOUND_SQUARES

    if rows.n > _SAMPLE:
        add(0, rows.sample(_SAMPLE, seed))
    else:
        for _ in rows.passed_over(add):  # which also checks them, while they are in cache
            pass
    return (torch.stack(sums).double().sum(0) / min(rows.n, _SAMPLE)).float()


def _signs(device: torch.device) -> Tensor:
    """(1, 256, 8) float32: the signs per byte, the first dimension in the lowest bit."""
    byte, place = (torch.arange(n, device=device) for n in (256, 8))
    return (2 * ((byte[:, None] >> place) & 1) - 1).float()[None]
