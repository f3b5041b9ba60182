"""TransformCoder: rows in as few bytes as their quality allows."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from gpuzip._core.checks import whole
from gpuzip._core.device import as_device
from gpuzip._core.progress import Progress, reporting
from gpuzip._core.rows import Matrix, Rows, narrowed
from gpuzip.archive import aims, exact
from gpuzip.archive.archive import Archive
from gpuzip.archive.dictionary import Dictionary, given_dictionary
from gpuzip.archive.sample import Sample, are_unit, sample_of
from gpuzip.archive.scheme import Scheme
from gpuzip.archive.shared import learned_by
from gpuzip.archive.transform import LARGEST_WIDTH, Learned, Transform, beyond
from gpuzip.errors import GpuzipError, NotFittedError
from gpuzip.ops.trellis import next_states
from gpuzip.storage.archive import LARGEST_BLOCK, Blocks, Kept

_DIALS = ("min_cosine", "bits_per_dim", "max_bytes", "max_error", "max_row_error", "lossless")
_BESIDE = 1000  # bytes of a file's header
_LANES = 32

#: Rows per block: what a single row costs to read.
BLOCK_ROWS = 1024


@dataclass(frozen=True, eq=False)
class TransformCoder:
    """Compress rows for storage: principal directions, trellis-coded quantization and entropy coding.

    Codes of search, such as those of `ProductQuantizer`, have one length for all rows, so that a scan can
    read them. Where rows are only stored or sent, these take half to a third of the bytes for the same
    cosine. They stay within about 0.1 bits per value of the least that any codec needs for Gaussian rows.

    Give one of the first six arguments.

    Parameters
    ----------
    min_cosine : float, optional
        Least mean cosine between source and decoded rows.
    bits_per_dim : float, optional
        Most bits per value, with all that comes beside the rows.
    max_bytes : int, optional
        Most bytes of the file for the rows that the coder is fitted on.
    max_error : float, optional
        Largest error of any value, guaranteed: each value is decoded to within max_error.
    max_row_error : float, optional
        Largest error of any row, as the length of the difference, guaranteed.
    lossless : bool, default False
        Decode the same bits.
    dictionary : Dictionary, str or path-like, optional
        What `train_dictionary` learned from other rows of the same model. Files refer to it.
    states : int, default 8
        States of the trellis: 4, 8, 16, 32, 64, 128 or 256. More take fewer bytes (64 about 1 %) and more
        time to encode (64 three times), and the same time to decode.
    block_rows : int, default 1024
        Rows per block. A single row is read by decoding its block.
    seed : int, default 0
        Seed of the sample to learn from.
    fitted : optional
        What `fit` learned; not for callers.

    Notes
    -----
    Trellis-coded quantization: Marcellin and Fischer, 1990, with the entropy-coded tables of Fischer and
    Wang, 1992. Entropy coder: asymmetric numeral systems, Duda, 2013.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.randn(256, 32, generator=torch.Generator().manual_seed(0))
    >>> archive = gpuzip.TransformCoder(min_cosine=0.95).fit(x).encode(x)
    >>> archive.quality(x).row_cosine >= 0.95
    True
    """

    min_cosine: float | None = None
    bits_per_dim: float | None = None
    max_bytes: int | None = None
    max_error: float | None = None
    max_row_error: float | None = None
    lossless: bool = False
    dictionary: Dictionary | str | os.PathLike[str] | None = None
    states: int = 8
    block_rows: int = BLOCK_ROWS
    seed: int = 0
    fitted: Scheme | None = field(default=None, kw_only=True)

    id: ClassVar[str] = "transform"

    def __post_init__(self) -> None:
        given = list(self._given())
        if len(given) > 1 or (not given and self.fitted is None):
            raise GpuzipError(
                f"TransformCoder: one of {', '.join(_DIALS)} must be given; got "
                f"{' and '.join(given) or 'none'}."
            )
        for name in ("min_cosine", "bits_per_dim", "max_bytes", "max_error", "max_row_error"):
            self._check_number(name)
        whole("TransformCoder", "block_rows", self.block_rows)
        if self.block_rows > LARGEST_BLOCK:
            raise GpuzipError(
                f"TransformCoder: block_rows must be at most {LARGEST_BLOCK}; got {self.block_rows}. "
                "64 to 1024 suit."
            )
        next_states(self.states)

    def _check_number(self, name: str) -> None:
        value = getattr(self, name)
        if value is None:
            return
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        below = 1 if name == "min_cosine" else float("inf")
        if not is_number or not 0 < value < below:
            raise GpuzipError(f"TransformCoder: {name} must be a number within (0, {below}); got {value!r}.")

    def _given(self) -> dict[str, Any]:
        every = {name: getattr(self, name) for name in _DIALS}
        return {name: value for name, value in every.items() if value is not None and value is not False}

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self._given().items())
        return f"TransformCoder({given})"

    @property
    def is_fitted(self) -> bool:
        """Whether `fit` made this coder."""
        return self.fitted is not None

    @property
    def scheme(self) -> Scheme:
        """What was learned. Raises NotFittedError before `fit`."""
        if self.fitted is None:
            raise NotFittedError(
                "TransformCoder: this coder is not fitted. Call .fit(x) and use what it returns."
            )
        return self.fitted

    @property
    def d(self) -> int:
        """Columns of the rows."""
        return self.scheme.d

    @property
    def device(self) -> torch.device:
        """Where rows are coded."""
        return self.scheme.device

    @property
    def nbytes(self) -> int:
        """Bytes of what was learned, as files store it."""
        return len(self.scheme.model)

    def to(self, device: torch.device | str) -> TransformCoder:
        """Copy the coder to a device.

        Parameters
        ----------
        device : torch.device or str
            Where to code rows.

        Returns
        -------
        TransformCoder
            The coder on that device.
        """
        return replace(self, fitted=self.scheme.to(as_device("TransformCoder.to", device)))

    def fit(self, x: Matrix) -> TransformCoder:
        """Learn how to code rows like these.

        Parameters
        ----------
        x : (N, D) float tensor, array or memory map
            The rows to compress, or rows like them. Larger sets are sampled.

        Returns
        -------
        TransformCoder
            A fitted copy.
        """
        rows = Rows("TransformCoder.fit", x)
        if rows.d > LARGEST_WIDTH and not self._is_exact:
            raise GpuzipError(
                f"TransformCoder.fit: x must have at most {LARGEST_WIDTH} columns; got {rows.d}. Use "
                "max_error= or lossless=True, which take any number."
            )
        if rows.n == 0:
            raise GpuzipError("TransformCoder.fit: x must have at least one row; got none.")
        if self._is_exact:  # which is learned from the rows that are encoded, as it must hold for each
            return replace(self, fitted=exact.Exact(b"", rows.d, rows.dtype, None, rows.device))
        return replace(self, fitted=self._learned(rows).transform)

    @property
    def _is_exact(self) -> bool:
        return self.lossless or self.max_error is not None

    def _learned(self, rows: Rows) -> Learned:
        sample = sample_of(rows, self.seed)
        moments = sample.moments
        if self.min_cosine is not None:
            miss, finer = aims.misses_cosine(sample, self.min_cosine), True
            start = aims.step_of_cosine(moments, self.min_cosine)
        elif self.max_row_error is not None:
            miss, finer = aims.misses_row_error(sample, self.max_row_error), True
            start = 2 * self.max_row_error / rows.d**0.5
        else:
            most = float(self.max_bytes or rows.n * rows.d * (self.bits_per_dim or 0) / 8)
            if not sample.is_all:
                most *= 1 - 2e-3
            beside = self._beside(rows.n) + sample.left_out * (6 * rows.d + 8)
            miss, finer = aims.misses_bytes(most, partial(_bytes, rows, beside)), False
            start = aims.step_of_bits(moments, 8 * max(most - beside, most / 8) / rows.n)
        if self.dictionary is None:
            return aims.closest(sample, self.states, miss, finer_is_better=finer, start=start)
        dictionary = given_dictionary(self.dictionary)
        if dictionary.d != rows.d:
            raise GpuzipError(
                f"TransformCoder.fit: x must have {dictionary.d} columns, as the dictionary; got {rows.d}."
            )
        learn = partial(_by_dictionary, dictionary, sample, self.states)
        return aims.solved(learn, sample, miss, finer_is_better=finer, start=start)

    def _beside(self, n: int) -> int:
        """About the bytes of a file of n rows, without the rows and the model."""
        blocks = -(-n // self.block_rows)
        return blocks * (4 + 4 * min(_LANES, self.block_rows, n) + 8 + 1) + _BESIDE

    def encode(self, x: Matrix, *, progress: Progress = None) -> Archive:
        """Compress rows, some blocks at a time.

        Parameters
        ----------
        x : (N, D) float tensor, array or memory map
            Rows to compress. A tensor must be on the coder's device.
        progress : bool or callable, optional
            True shows a bar. A function is called with the rows done and all rows.

        Returns
        -------
        Archive
            The N compressed rows.
        """
        who = "TransformCoder.encode"
        scheme = self.scheme
        rows = Rows(who, x, self.d, self.device)
        if self._is_exact:
            return self._encoded_exactly(rows)
        step = max(1, (1 << 22) // (rows.d * self.block_rows)) * self.block_rows
        parts: list[Blocks] = []
        kept: list[tuple[Tensor, Tensor]] = []
        with reporting(who, progress, "encode", rows.n) as report:
            for start in range(0, rows.n, step):
                block = rows.block(start, start + step)
                given = rows.as_given()[start : start + step] if rows.dtype == torch.float64 else block
                levels = scheme.levels_of(block.float())
                missed = self._missed(given, levels, rows.dtype).nonzero()[:, 0]
                parts.append(scheme.pack(levels, self.block_rows))
                if len(missed):
                    kept.append((missed.cpu() + start, _as_kept(given[missed])))
                report(min(start + step, rows.n))
        return Archive(self, _joined(parts, self.block_rows, self.device), rows.n, rows.dtype, _kept(kept))

    def _encoded_exactly(self, rows: Rows) -> Archive:
        x = rows.as_given()
        step, missed = None, torch.zeros(rows.n, dtype=torch.bool, device=self.device)
        if self.max_error is not None:
            rows.check()
            step, missed = exact.grid_for(x, self.max_error) if rows.n else (None, missed)
        first = x if rows.n else x.new_zeros((1, rows.d))
        scheme, blocks = exact.coded(first, self.block_rows, step, missed if rows.n else missed.new_zeros(1))
        ids = missed.nonzero()[:, 0]
        kept = Kept(ids.cpu(), _as_kept(x[ids])) if len(ids) else None
        if not rows.n:
            blocks = _joined([], self.block_rows, self.device)
        return Archive(replace(self, fitted=scheme), blocks, rows.n, rows.dtype, kept)

    def _missed(self, rows: Tensor, levels: Tensor, dtype: torch.dtype) -> Tensor:
        """(N,) bool: rows that are not within the bound, and must be kept as they are."""
        missed = beyond(levels)
        if isinstance(self.scheme, Transform) and self.scheme.unit:
            missed |= ~are_unit(rows.float())
        if self.max_row_error is not None:
            off = rows.double() - narrowed(self.scheme.rows_of(levels), dtype).double()
            missed |= torch.linalg.vector_norm(off, dim=1) > self.max_row_error * (1 - 1e-6)
        return missed


def _bytes(rows: Rows, beside: int, found: Learned) -> float:
    of_kept = max(4, rows.dtype.itemsize) * rows.d + 8
    return rows.n * (found.row_bits / 8 + found.kept * of_kept) + len(found.transform.model) + beside


def _as_kept(rows: Tensor) -> Tensor:
    return rows.cpu() if rows.dtype == torch.float64 else rows.float().cpu()


def _by_dictionary(dictionary: Dictionary, sample: Sample, states: int, step: float) -> Learned:
    return learned_by(dictionary, sample.moments, sample.rows, step, states, sample.unit)


def _joined(parts: list[Blocks], block_rows: int, device: torch.device) -> Blocks:
    if not parts:
        none = torch.zeros(0, dtype=torch.int64, device="cpu")
        return Blocks(torch.zeros(0, dtype=torch.uint8, device=device), none, block_rows)
    ends, before = [], 0
    for part in parts:
        ends.append(part.ends + before)
        before += len(part.stream)
    return Blocks(torch.cat([part.stream for part in parts]), torch.cat(ends), block_rows)


def _kept(parts: list[tuple[Tensor, Tensor]]) -> Kept | None:
    if not parts:
        return None
    return Kept(torch.cat([ids for ids, _ in parts]), torch.cat([rows for _, rows in parts]))
