"""TransformCoder: rows in as few bytes as their quality allows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from gpuzip._core.checks import whole
from gpuzip._core.device import as_device
from gpuzip._core.matmul import matrix_product
from gpuzip._core.progress import Progress, reporting
from gpuzip._core.rows import Matrix, Rows
from gpuzip.archive import aims
from gpuzip.archive.archive import Archive
from gpuzip.archive.basis import Moments
from gpuzip.archive.scheme import Scheme
from gpuzip.archive.transform import Learned
from gpuzip.errors import GpuzipError, NotFittedError
from gpuzip.ops.trellis import LARGEST, next_states
from gpuzip.storage.archive import Blocks, Kept

_DIALS = ("min_cosine", "bits_per_dim", "max_bytes", "max_error", "max_row_error", "lossless")
_SAMPLED = 3 << 19  # values that steps and tables are learned from
_FEWEST = 1024  # rows, however many columns they have
_MOMENTS = 1 << 25  # values that directions are learned from
_UNIT = 1e-3  # how far a row's length may be from 1
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
    dictionary : Dictionary, path or folder, optional
        What `train_dictionary` learned from other rows of the same model. Files refer to it.
    states : int, default 8
        States of the trellis: 4, 8, 16, 32, 64, 128 or 256. More take fewer bytes (64 about 1 %) and more
        time to encode (64 three times), and the same time to decode.
    block_rows : int, default 1024
        Rows per block. A single row is read by decoding its block.
    seed : int, default 0
        Seed of the sample to learn from.

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
    dictionary: Any = None
    states: int = 8
    block_rows: int = BLOCK_ROWS
    seed: int = 0
    fitted: Scheme | None = field(default=None, kw_only=True)

    id = "transform"

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
        if rows.n == 0:
            raise GpuzipError("TransformCoder.fit: x must have at least one row; got none.")
        return replace(self, fitted=self._learned(rows).transform)

    def _learned(self, rows: Rows) -> Learned:
        sample = _sample(rows, self.seed)
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
            miss, finer = aims.misses_bytes(most, lambda found: self._bytes(found, rows.n)), False
            start = aims.step_of_bits(moments, 8 * most / rows.n)
        return aims.closest(sample, self.states, miss, finer_is_better=finer, start=start)

    def _bytes(self, found: Learned, n: int) -> float:
        """About the bytes of a file of n rows."""
        blocks = -(-n // self.block_rows)
        of_block = 4 + 4 * min(_LANES, self.block_rows, n) + 8 + 1
        return n * found.row_bits / 8 + blocks * of_block + len(found.transform.model) + _BESIDE

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
        step = max(1, (1 << 22) // (rows.d * self.block_rows)) * self.block_rows
        parts: list[Blocks] = []
        kept: list[tuple[Tensor, Tensor]] = []
        with reporting(who, progress, "encode", rows.n) as report:
            for start in range(0, rows.n, step):
                block = rows.block(start, start + step).float()
                levels = scheme.levels_of(block)
                missed = self._missed(block, levels).nonzero()[:, 0]
                parts.append(scheme.pack(levels, self.block_rows))
                if len(missed):
                    kept.append((missed.cpu() + start, block[missed].cpu()))
                report(min(start + step, rows.n))
        return Archive(self, _joined(parts, self.block_rows, self.device), rows.n, rows.dtype, _kept(kept))

    def _missed(self, rows: Tensor, levels: Tensor) -> Tensor:
        """(N,) bool: rows that are not within the bound, and must be kept as they are."""
        missed: Tensor = levels.abs().amax(1) >= LARGEST
        if self.max_row_error is not None:
            off = rows.double() - self.scheme.rows_of(levels).double()
            missed |= torch.linalg.vector_norm(off, dim=1) > self.max_row_error * (1 - 1e-6)
        return missed


def _sample(rows: Rows, seed: int) -> aims.Sample:
    most = max(_FEWEST, _SAMPLED // rows.d)
    part = rows.sample(most, seed).float()
    wide = part if rows.n <= most else rows.sample(max(most, _MOMENTS // rows.d), seed).float()
    lengths = torch.linalg.vector_norm(part, dim=1)
    unit = bool(((lengths - 1).abs() < _UNIT).all())
    return aims.Sample(part, _moments(wide, rows.n), rows.n <= most, unit)


def _moments(x: Tensor, n: int) -> Moments:
    mean = x.double().mean(0)
    second = torch.zeros((x.shape[1], x.shape[1]), dtype=torch.float64, device=x.device)
    for part in x.split(1 << 14):
        centered = part.double() - mean
        second += matrix_product(torch.mm, centered.T, centered)
    return Moments(n, mean.cpu(), (second / len(x)).cpu())


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
